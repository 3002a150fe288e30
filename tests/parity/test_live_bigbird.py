"""The encoder of a live transformers BigBird and ours, with its weights, on the same embeddings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BigBirdConfig, BigBirdModel

from tests.parity.live import copy_backbone
from zoo import Backbone, ConfigError, ModelDims
from zoo.spec.registry import registry
from zoo_bigbird.convert import CONVERSION


def pair(arch: dict[str, Any], **fields: Any) -> tuple[BigBirdModel, Backbone]:
    """A small random model of theirs, and ours with its weights and the settings `arch` besides, both float64."""
    theirs = BigBirdModel(
        BigBirdConfig(
            vocab_size=20, intermediate_size=10, max_position_embeddings=128, initializer_range=0.5, **fields
        ),
        add_pooling_layer=False,
    )
    theirs = theirs.double().eval()
    return theirs, copy_backbone("bigbird", CONVERSION, theirs, **arch)


def compare(theirs: BigBirdModel, ours: Backbone, mask: Tensor) -> None:
    """Hidden vectors at real tokens, theirs from ids, ours from what their embedding makes of them."""
    embedded: list[Tensor] = []
    theirs.embeddings.register_forward_hook(lambda module, args, out: embedded.append(out))
    ids = torch.where(mask, torch.randint(3, 20, mask.shape), 0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
        hidden = ours(embedded[-1][:, : mask.shape[1]], mask=mask).hidden
    torch.testing.assert_close(hidden[mask], expected[mask], rtol=1e-8, atol=1e-8)


DRAWN: dict[str, Any] = {"random_blocks": "drawn", "block_size": 4}
SIZES = {
    "block": st.integers(2, 5),
    "n_random": st.integers(1, 3),
    "heads": st.integers(1, 3),
    "n_layers": st.integers(1, 2),
    "activation": st.sampled_from(["gelu", "gelu_new", "relu"]),
    "seed": st.integers(0, 100),
}


def build(
    block: int, n_random: int, heads: int, n_layers: int, activation: str, seed: int, arch: dict[str, Any] | None = None
) -> Any:
    torch.manual_seed(seed)
    return pair(
        arch or {},
        hidden_size=4 * heads,
        num_hidden_layers=n_layers,
        num_attention_heads=heads,
        hidden_act=activation,
        block_size=block,
        num_random_blocks=n_random,
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(drawn=st.booleans(), more=st.integers(1, 30), short=st.lists(st.integers(0, 4), min_size=1, max_size=3), **SIZES)
def test_sparse_attention_is_that_of_transformers(
    drawn: bool,
    more: int,
    short: list[int],
    block: int,
    n_random: int,
    heads: int,
    n_layers: int,
    activation: str,
    seed: int,
) -> None:
    """Longer than the minimum, odd lengths; every example ends in the last block, which theirs takes to be global.

    In evaluation transformers draws block 0 for everybody and counts it again, and so do imported configurations
    (random_blocks=first). Where ours are really drawn, the test puts them into theirs.
    """
    arch = {"random_blocks": "drawn"} if drawn else {}
    theirs, ours = build(block, n_random, heads, n_layers, activation, seed, arch)
    length = (5 + 2 * n_random) * block + more
    last = (length - 1) // block * block
    mask = torch.arange(length) < torch.tensor([max(length - s, last + 1) for s in short])[:, None]
    for layer, block_of_ours in zip(theirs.encoder.layer, ours.stack.blocks, strict=True):
        if drawn:
            chosen = block_of_ours.mixer.random_blocks(-(-length // block))[0, :, 1:-1].numpy()  # (H, n - 2, r)
            layer.attention.self._bigbird_block_rand_mask_with_head = lambda chosen=chosen, **_: list(chosen)
    compare(theirs, ours, mask)
    assert theirs.attention_type == "block_sparse"


def test_an_example_in_longer_company_is_as_alone() -> None:
    """A short example is attended to in full; what its company has of block 0 again must not reach it."""
    _, ours = build(block=3, n_random=2, heads=2, n_layers=2, activation="gelu", seed=0)
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    mask = torch.arange(40) < torch.tensor([40, 20])[:, None]
    with torch.no_grad():
        together, alone = ours(x, mask=mask).hidden[1, :20], ours(x[1:, :20]).hidden[0]
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_full_attention_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    theirs, ours = pair({}, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, attention_type="original_full")
    compare(theirs, ours, torch.arange(100) < torch.tensor([100, 41])[:, None])
    assert theirs.attention_type == "original_full"


@settings(max_examples=15, deadline=None, derandomize=True)
@given(less=st.integers(0, 40), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3), **SIZES)
def test_short_inputs_are_attended_to_in_full_as_in_transformers(
    less: int, lengths: list[int], block: int, n_random: int, heads: int, n_layers: int, activation: str, seed: int
) -> None:
    theirs, ours = build(block, n_random, heads, n_layers, activation, seed)
    length = max((5 + 2 * n_random) * block - less, 1)
    compare(theirs, ours, torch.arange(length) < torch.tensor(lengths)[:, None])
    assert theirs.attention_type == "original_full"


def test_both_directions_of_a_configuration() -> None:
    architecture = registry().architecture("bigbird").record
    values, dims = CONVERSION.import_config(BigBirdConfig(block_size=16, num_random_blocks=2).to_dict())
    config = architecture.load_config()(**values)
    assert CONVERSION.import_config(CONVERSION.export_config(config, dims)) == (values, dims)


@pytest.mark.parametrize(
    "fields",
    [{"prenorm": True}, {"bias": False}, {"n_random": 0}, {"d_qkv": 4}, DRAWN],
)
def test_what_transformers_does_not_have_is_refused(fields: dict[str, Any]) -> None:
    architecture = registry().architecture("bigbird").record
    config = architecture.load_config()(**{"prenorm": False, "random_blocks": "first"} | fields)
    with pytest.raises(ConfigError) as caught:
        CONVERSION.export_config(config, ModelDims(d_model=8, n_layers=1, mode="bidirectional", max_len=16))
    assert caught.value.key in fields


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_act": "tanh"},
        {"attention_type": "sparse"},
        {"use_bias": False},
        {"is_decoder": True},
        {"add_cross_attention": True},
    ],
)
def test_what_is_not_offered_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        CONVERSION.import_config(fields)
    assert caught.value.key in fields
