"""The published wordings. No torch or NumPy here.

Needle: RULER (Hsieh et al. 2024, arXiv 2404.06654), niah_single_1, and with other needles niah_multikey_1; its keys
come from a large list of English words, ours from the lists below. Key-value retrieval: Liu et al. 2023 (arXiv
2307.03172).
"""

from __future__ import annotations

from collections.abc import Callable

HAY = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = "One of the special magic numbers for {key} is: {value}."
BEFORE = (
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the"
    " number afterwards.\n"
)
AFTER = (
    "\nWhat is the special magic number for {key} mentioned in the provided text? The special magic number for {key}"
    " mentioned in the provided text is "
)
ADJECTIVES = (
    *("able", "amber", "ancient", "brave", "bright", "broken", "calm", "clever", "cold", "crisp"),
    *("curious", "dark", "early", "fancy", "fierce", "gentle", "golden", "grand", "hollow", "humble"),
    *("icy", "jolly", "keen", "late", "lively", "loud", "mellow", "narrow", "noble", "odd"),
    *("pale", "proud", "quick", "quiet", "rapid", "rough", "silent", "steep", "tender", "vivid"),
)
NOUNS = (
    *("anchor", "apple", "badge", "barrel", "beacon", "bridge", "candle", "castle", "cedar", "cloud"),
    *("compass", "desert", "engine", "falcon", "feather", "forest", "garden", "harbor", "island", "jacket"),
    *("kettle", "ladder", "lantern", "maple", "meadow", "mirror", "mountain", "needle", "ocean", "orchard"),
    *("pepper", "pillow", "rabbit", "river", "saddle", "signal", "tunnel", "valley", "violin", "window"),
)
LONGEST_KEY = max(map(len, ADJECTIVES)) + 1 + max(map(len, NOUNS))


def needle_overhead(digits: int, distractors: int, count: Callable[[str], int] = len) -> int:
    """Tokens of a sequence that are no hay, at most: frame, needles, answer and end symbol.

    count  tokens of a text; names and numbers are taken to have one for each byte
    """
    needle = count(NEEDLE.format(key="", value="")) + LONGEST_KEY + digits + 1
    return count(BEFORE) + count(AFTER.format(key="")) + 2 * LONGEST_KEY + (1 + distractors) * needle + digits + 1


KV_BEFORE = "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{"
KV_PAIR = '"{key}": "{value}"'
KV_BETWEEN = ",\n "
KV_AFTER = '}}\n\nKey: "{key}"\nCorresponding value:'
UUID = 36


def kv_length(pairs: int) -> int:
    """Bytes of a prompt with so many pairs of UUIDs, the answer and the end symbol."""
    frame = len(KV_BEFORE) + len(KV_AFTER.format(key="")) + UUID
    return frame + pairs * (len(KV_PAIR.format(key="", value="")) + 2 * UUID) + (pairs - 1) * len(KV_BETWEEN) + UUID + 1
