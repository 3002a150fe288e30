"""docs/library.md: every block is executed, in order, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from tests.conftest import ROOT
from zoo import ConfigError

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "library.md").read_text("utf-8"), re.M | re.S)


def test_every_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, Any] = {}
    assert len(BLOCKS) >= 9
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/library.md, block {number}", "exec"), namespace)
    assert namespace["outputs"].logits.shape == (4, 5)
    assert namespace["new"].shape == (4, 20)


LANGUAGE = [
    (name, mode)
    for name, entry in zoo.registry().architectures.items()
    for mode in sorted(entry.record.capabilities.modes)
    if (name, mode) != ("perceiver", "bidirectional")
]


def small(name: str, mode: str, **options: Any) -> zoo.LanguageModel:
    torch.manual_seed(0)
    own = {"linformer": {"k": 8}}.get(name, {})
    options = {"d_model": 16, "n_layers": 1, "max_len": 24, "segment_len": 8} | own | options
    return zoo.LanguageModel(name, vocab_size=11, mode=mode, **options).eval()


@pytest.mark.parametrize(("name", "mode"), LANGUAGE)
def test_the_loss_is_that_of_the_logits_and_pads_do_not_matter(name: str, mode: str) -> None:
    model = small(name, mode)
    ids = torch.randint(1, 11, (2, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(20) < torch.tensor([20, 13])[:, None]
    outputs = model(ids, mask.long(), labels=ids)
    assert set(outputs) == {"loss", "logits"}
    assert outputs.loss.requires_grad
    predicted, right = outputs.logits, ids.masked_fill(~mask, -100)[:, -outputs.logits.shape[1] :]
    if mode == "causal":
        predicted, right = predicted[:, :-1], right[:, 1:]
    if mode == "seq2seq":
        right = ids
    expected = torch.nn.functional.cross_entropy(predicted.flatten(0, 1), right.flatten())
    aux = zoo.registry().architecture(name).record.capabilities.aux
    if not aux:
        torch.testing.assert_close(outputs.loss, expected)
    other = model(ids.masked_fill(~mask, 7), mask, labels=ids)
    torch.testing.assert_close(other.loss, outputs.loss)


def padded(ids: torch.Tensor, lengths: tuple[int, ...], places: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The first tokens of each row with pads at the end, in front, or between them, and the mask."""
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    shuffled = torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(2))
    mask = {"end": mask, "front": mask.flip(1), "between": mask[:, shuffled]}[places]
    given = torch.full_like(ids, 7)
    for row, length in enumerate(lengths):
        given[row, mask[row]] = ids[row, :length]
    return given, mask


@pytest.mark.parametrize(("name", "mode"), LANGUAGE)
@pytest.mark.parametrize("places", ["front", "between"])
def test_pads_in_front_or_between_give_the_logits_and_the_loss_of_pads_at_the_end(
    name: str, mode: str, places: str
) -> None:
    """Positions and segments count real tokens, and the first token of a row is predicted from nothing."""
    model = small(name, mode).double()
    ids = torch.randint(1, 11, (3, 20), generator=torch.Generator().manual_seed(1))
    lengths = (20, 13, 6)
    results = []
    for where in ("end", places):
        given, mask = padded(ids, lengths, where)
        out = model(given, mask, labels=ids[:, :5] if mode == "seq2seq" else given)
        results.append((out.loss, out.logits if mode == "seq2seq" else out.logits[mask[:, -out.logits.shape[1] :]]))
    (loss, logits), (moved_loss, moved_logits) = results
    torch.testing.assert_close(moved_loss, loss, rtol=1e-10, atol=1e-10)
    if logits.shape == moved_logits.shape:  # there may be outputs for the last positions only
        torch.testing.assert_close(moved_logits, logits, rtol=1e-9, atol=1e-10)


CLASSIFIERS = [(name, pool) for name in zoo.registry().architectures for pool in ("mean", "last", "cls")]
LATENTS = {("perceiver", "last"), ("perceiver", "cls")}


@pytest.mark.parametrize(("name", "pool"), [pair for pair in CLASSIFIERS if pair not in LATENTS])
def test_a_classifier_reads_real_tokens_wherever_the_pads_stand(name: str, pool: str) -> None:
    torch.manual_seed(0)
    own: dict[str, Any] = {"linformer": {"k": 8}}.get(name, {}) | {"pool": pool, "segment_len": 8}
    options: dict[str, Any] = {"n_classes": 3, "d_model": 16, "n_layers": 1, "max_len": 24} | own
    model = zoo.Classifier(name, vocab_size=11, **options).double().eval()
    ids = torch.randint(1, 11, (3, 20), generator=torch.Generator().manual_seed(1))
    expected, *others = (model(*padded(ids, (20, 13, 6), where)).logits for where in ("end", "front", "between"))
    for logits in others:
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["s5", "transformer", "transformer_xl"])
def test_a_state_goes_on_where_the_text_before_ended(name: str) -> None:
    model = small(name, "causal")
    ids = torch.randint(1, 11, (2, 16), generator=torch.Generator().manual_seed(1))
    first = model(ids[:, :8], use_cache=True)
    second = model(ids[:, 8:], state=first.state)
    torch.testing.assert_close(second.logits, model(ids).logits[:, 8:], rtol=1e-4, atol=1e-5)


def test_mistakes_name_the_argument() -> None:
    with pytest.raises(ConfigError, match=r"arch.n_head: unknown key; did you mean 'arch.n_heads'"):
        zoo.build("transformer", d_model=16, n_layers=1, max_len=8, n_head=2)
    with pytest.raises(ConfigError, match="integer > 0"):
        zoo.build("transformer", d_model=16, n_layers=1, max_len=8, n_heads=0)
    with pytest.raises(ConfigError, match="latents"):
        small("perceiver", "bidirectional")(torch.ones(1, 4, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"token ids \(vocab_size\) or numbers"):
        zoo.Classifier("s5", n_classes=2, d_model=8, n_layers=1, max_len=8)
    with pytest.raises(ConfigError, match="input_values: missing"):
        zoo.Classifier("s5", n_classes=2, channels=1, d_model=8, n_layers=1, max_len=8)(torch.ones(1, 4))
    with pytest.raises(ConfigError, match="decoder_input_ids"):
        small("longt5", "seq2seq")(torch.ones(1, 4, dtype=torch.int64))
    with pytest.raises(AttributeError, match="no hidden_states; there are logits"):
        _ = small("s5", "causal")(torch.ones(1, 4, dtype=torch.int64)).hidden_states


def test_values_in_one_channel_need_no_last_dimension() -> None:
    model = zoo.Classifier("s5", n_classes=3, channels=1, d_model=8, n_layers=1, max_len=8).eval()
    values = torch.randn(2, 7)
    torch.testing.assert_close(model(input_values=values).logits, model(input_values=values[..., None]).logits)
