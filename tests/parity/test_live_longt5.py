"""LongT5 against transformers' live model: weights copied by the plugin's own name map, shapes and masks drawn.

Masks are right-padded, as the published code assumes, and integers: block numbers come there from a cumulative sum of
1 / block, which for masks of floats, or from a thousand tokens on, falls short of whole numbers.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LongT5Config as TheirConfig
from transformers import LongT5EncoderModel, LongT5ForConditionalGeneration, LongT5Model

import zoo
from tests.parity.live import copy_model, hf_config
from zoo import Backbone, ConfigError
from zoo_longt5.config import LongT5Config
from zoo_longt5.convert import CONVERSION

FEW = settings(max_examples=20, deadline=None)
SIZES = {
    "heads": st.integers(1, 3),
    "d_kv": st.integers(1, 5),
    "radius": st.integers(1, 9),
    "block": st.integers(1, 9),
    "kind": st.sampled_from(["local", "transient-global"]),
    "ffn": st.sampled_from(["gated-gelu", "relu"]),
    "buckets": st.sampled_from([8, 12, 32]),
    "seed": st.integers(0, 99),
    "lengths": st.lists(st.integers(1, 45), min_size=1, max_size=4),
}


def their_config(s: dict[str, Any], **more: Any) -> TheirConfig:
    return TheirConfig(
        vocab_size=11,
        d_model=6,
        d_kv=s["d_kv"],
        d_ff=7,
        num_layers=2,
        num_heads=s["heads"],
        local_radius=s["radius"],
        global_block_size=s["block"],
        relative_attention_num_buckets=s["buckets"],
        relative_attention_max_distance=20,
        dropout_rate=0.0,
        feed_forward_proj=s["ffn"],
        encoder_attention_type=s["kind"],
        **more,
    )


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """float64, with norms that are not one and weights large enough for attention to choose."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.5)
    return model.double().eval()


def ours_from(theirs: torch.nn.Module) -> Backbone:
    """Our backbone with the model's weights."""
    return copy_model("longt5", CONVERSION, theirs).backbone


def batch(lengths: list[int], d_model: int = 6) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(*mask.shape, d_model, dtype=torch.float64), mask


def close(ours: Tensor, theirs: Tensor) -> None:
    # their norms and softmax take their statistics in float32, whatever the model's dtype
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@FEW
@given(**SIZES)
def test_encoder(lengths: list[int], seed: int, **sizes: Any) -> None:
    torch.manual_seed(seed)
    theirs = randomised(LongT5EncoderModel(their_config(sizes)))
    x, mask = batch(lengths)
    expected = theirs(inputs_embeds=x, attention_mask=mask.long()).last_hidden_state
    ours = ours_from(theirs)
    assert ours.dims.mode == "bidirectional"
    close(ours(x, mask=mask).hidden[mask], expected[mask])


@FEW
@given(targets=st.integers(1, 24), cuts=st.lists(st.integers(0, 24), max_size=3), decoders=st.integers(1, 3), **SIZES)
def test_encoder_and_decoder(
    targets: int, cuts: list[int], decoders: int, lengths: list[int], seed: int, **sizes: Any
) -> None:
    torch.manual_seed(seed)
    theirs = randomised(LongT5Model(their_config(sizes, num_decoder_layers=decoders)))
    x, mask = batch(lengths)
    y = torch.randn(len(lengths), targets, 6, dtype=torch.float64)
    out = theirs(inputs_embeds=x, attention_mask=mask.long(), decoder_inputs_embeds=y)
    ours = ours_from(theirs)
    memory = ours(x, mask=mask).hidden
    close(memory[mask], out.encoder_last_hidden_state[mask])
    whole = ours.decode(y, memory=memory, memory_mask=mask).hidden
    close(whole, out.last_hidden_state)
    edges = [0, *sorted(c for c in set(cuts) if 0 < c < targets), targets]
    state, pieces = None, []
    for start, stop in itertools.pairwise(edges):
        hidden, state, _ = ours.decode(y[:, start:stop], memory=memory, memory_mask=mask, state=state)
        pieces.append(hidden)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [LongT5EncoderModel, LongT5Model])
def test_an_exported_configuration_imports_as_the_same(kind: type) -> None:
    sizes = {"heads": 2, "d_kv": 3, "radius": 4, "block": 5, "kind": "transient-global", "ffn": "relu", "buckets": 12}
    theirs = kind(their_config(sizes, num_decoder_layers=3))
    values, dims = CONVERSION.import_config(hf_config(theirs))
    written = CONVERSION.export_config(LongT5Config(**values), dims)
    assert CONVERSION.import_config(written) == (values, dims)
    again = kind(TheirConfig(vocab_size=11, **written))
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize(
    ("key", "value"), [("feed_forward_proj", "gated-silu"), ("encoder_attention_type", "longformer")]
)
def test_what_is_not_offered_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=value) as error:
        CONVERSION.import_config({**TheirConfig().to_dict(), key: value})
    assert error.value.key == key


def test_greedy_generation_is_theirs() -> None:
    sizes = {"d_kv": 4, "heads": 2, "radius": 5, "block": 4, "ffn": "relu", "buckets": 8, "kind": "transient-global"}
    torch.manual_seed(0)
    theirs = randomised(LongT5ForConditionalGeneration(their_config(sizes, decoder_start_token_id=0)))
    tokens = torch.randint(1, 11, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(20) < torch.tensor([20, 11, 3])[:, None]
    expected = theirs.generate(
        tokens, attention_mask=mask.long(), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    ours = copy_model("longt5", CONVERSION, theirs)
    assert torch.equal(zoo.generate(ours, tokens, 12, mask=mask, start=0), expected[:, 1:])
