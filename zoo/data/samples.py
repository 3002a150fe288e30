"""Made-up text for small sample files (`Task.sample_files`)."""

from __future__ import annotations

import numpy as np

WORDS = (
    *("the", "film", "was", "a", "long", "slow", "bright", "story", "about", "rain"),
    *("and", "two", "people", "who", "never", "met", "again"),
)


def random_sentence(seed: int, words: int) -> str:
    """Random words without punctuation, a function of the arguments alone."""
    rng = np.random.RandomState(seed)  # NumPy promises never to change its stream, unlike default_rng's
    return " ".join(WORDS[i] for i in rng.randint(0, len(WORDS), words))
