"""What is particular to the Longformer: its window, its global tokens, its cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import ConfigError, ModelDims, registry
from zoo.testing import ARCHITECTURE_CHECKS, ArchitectureSubject
from zoo_longformer.backbone import LongformerAttention, LongformerBackbone
from zoo_longformer.config import LongformerConfig

SMALL: dict[str, dict[str, Any]] = {
    "narrow, as RoBERTa": {"window": [4], "prenorm": False, "n_heads": 2},
    "dilated": {"window": [4], "dilation": [3], "dilated_heads": 1, "n_heads": 2, "n_global": 3},
    "as in LRA": {"window": [5], "counts_self": True, "n_global": 0, "n_heads": 2, "bias": False},
}
EXACT = [
    "shapes",
    "length_contract",
    "every_parameter_gets_a_gradient",
    "gradients_match_finite_differences",
    "pure_function",
    "rows_do_not_mix",
    "rows_of_the_state_do_not_mix",
    "causal",
    "causal_with_state",
    "padding_changes_nothing",
    "content_of_pads_is_irrelevant",
    "fully_masked_row_is_finite",
    "pads_do_not_enter_the_state",
    "fully_masked_row_keeps_its_state",
    "state_of_another_batch_is_refused",
    "state_of_another_architecture_is_refused",
    "state_size_is_correct",
    "chunks_equal_one_call",
    "step_equals_forward",
    "state_gradient_contract",
    "follows_the_device_of_its_input",
]


@pytest.mark.parametrize("variant", list(SMALL))
def test_conformance_with_windows_that_bind(variant: str) -> None:
    """The default window is wider than the suite's inputs."""
    subject, checks = ArchitectureSubject.find("longformer", SMALL[variant]), {c.name: c for c in ARCHITECTURE_CHECKS}
    for name in EXACT:
        checks[name](subject)


def build(mode: str, max_len: int = 64, n_layers: int = 2, seed: int = 0, **fields: Any) -> LongformerBackbone:
    config, dims = (
        LongformerConfig(n_heads=2, **fields),
        ModelDims(d_model=8, n_layers=n_layers, mode=mode, max_len=max_len),
    )  # type: ignore[arg-type]
    config.check(dims)
    torch.manual_seed(seed)
    return LongformerBackbone(config, dims).double().eval()


def reach(backbone: LongformerBackbone, length: int, at: int) -> list[int]:
    """Inputs on which output `at` depends."""
    x = torch.randn(1, length, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x).hidden[0, at].square().sum(), x)
    return gradient[0].abs().sum(-1).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("mode", "fields", "seen"),
    [
        ("bidirectional", {"window": [4], "n_global": 0}, [18, 19, 20, 21, 22]),
        ("bidirectional", {"window": [4]}, [0, 18, 19, 20, 21, 22]),
        ("bidirectional", {"window": [4], "n_global": 2}, [0, 1, 18, 19, 20, 21, 22]),
        ("bidirectional", {"window": [4], "counts_self": True, "n_global": 0}, [19, 20, 21, 22]),
        ("bidirectional", {"window": [5], "counts_self": True, "n_global": 0}, [18, 19, 20, 21, 22]),
        ("bidirectional", {"window": [4], "dilation": [3], "n_global": 0}, [14, 17, 20, 23, 26]),
        ("bidirectional", {"window": [2], "dilation": [3], "dilated_heads": 1, "n_global": 0}, [17, 19, 20, 21, 23]),
        ("causal", {"window": [4]}, [18, 19, 20]),
        ("causal", {"window": [4], "n_global": 2}, [0, 1, 18, 19, 20]),
        ("causal", {"window": [4], "counts_self": True}, [19, 20]),
        ("causal", {"window": [4], "dilation": [2]}, [16, 18, 20]),
    ],
)
def test_what_a_token_sees(mode: str, fields: dict[str, Any], seen: list[int]) -> None:
    assert reach(build(mode, n_layers=1, **fields), 40, 20) == seen


def test_a_global_token_sees_everything() -> None:
    assert reach(build("bidirectional", n_layers=1, window=[4]), 40, 0) == list(range(40))


def test_layers_may_have_windows_of_their_own() -> None:
    assert reach(build("bidirectional", window=[2, 6], n_global=0), 40, 20) == list(range(16, 25))


@settings(max_examples=15, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    window=st.sampled_from([2, 4, 10]),
    dilation=st.integers(1, 3),
    n_global=st.integers(0, 4),
    short=st.integers(0, 8),
)
def test_pieces_equal_the_whole_with_global_tokens(
    pieces: list[int], window: int, dilation: int, n_global: int, short: int
) -> None:
    """One row whole, one shorter: the cache, and the global tokens that arrive piece by piece, are exact."""
    backbone = build("causal", window=[window], dilation=[dilation], n_global=n_global)
    total = sum(pieces)
    mask = torch.arange(total) < torch.tensor([total, max(total - short, 0)])[:, None]
    x = torch.randn(2, total, 8, dtype=torch.float64)
    whole = backbone(x, mask=mask)
    state, start, hidden = None, 0, []
    for length in pieces:
        part = slice(start, start + length)
        out = backbone(x[:, part], mask=mask[:, part], state=state)
        hidden.append(out.hidden)
        state, start = out.state, start + length
    torch.testing.assert_close(torch.cat(hidden, 1)[mask], whole.hidden[mask], rtol=1e-10, atol=1e-12)
    for a, b in zip(state, whole.state, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-10, atol=1e-12)
    steps = backbone.init_state(2, device="cpu", dtype=torch.float64)
    for t in range(total):
        y_t, steps = backbone.step(x[:, t], steps)
        torch.testing.assert_close(y_t[0], whole.hidden[0, t], rtol=1e-10, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 30), n_global=st.integers(1, 4), real=st.integers(0, 30), dilation=st.integers(1, 2))
def test_the_causal_form_is_that_of_arbitrary_global_tokens(
    length: int, n_global: int, real: int, dilation: int
) -> None:
    """The form with a cache equals `forward_whole`, which the reference's vectors test, when the first are global."""
    torch.manual_seed(0)
    config = LongformerConfig(window=[4], n_heads=2, n_global=n_global, dilation=[dilation])
    mixer = LongformerAttention(config, 8, layer=0, causal=True).double()
    x = torch.randn(2, length, 8, dtype=torch.float64)
    mask = torch.arange(length) < torch.tensor([length, min(real, length)])[:, None]
    first = torch.arange(min(n_global, length)).expand(2, -1)
    expected = mixer.forward_whole(x, mask, first, torch.ones_like(first, dtype=torch.bool))
    torch.testing.assert_close(mixer(x, mask=mask)[0], expected, rtol=1e-10, atol=1e-12)


def test_global_projections_begin_as_the_local_ones() -> None:
    mixer = LongformerAttention(LongformerConfig(), 8, layer=0, causal=False)
    pairs = ((mixer.q, mixer.q_global), (mixer.k, mixer.k_global), (mixer.v, mixer.v_global))
    for local, own in pairs:
        assert torch.equal(local.weight, own.weight)
        assert local.weight is not own.weight


def test_a_long_sequence_takes_no_square() -> None:
    """16,384 tokens: the (L, L) scores alone would be 1 GiB per head."""
    backbone = LongformerBackbone(
        LongformerConfig(window=[64]), ModelDims(d_model=32, n_layers=1, mode="bidirectional", max_len=16384)
    )
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        backbone(torch.randn(1, 16384, 32)).hidden.sum().backward()
    assert sum(kept.values()) < 150 * 2**20


@pytest.mark.parametrize(
    ("fields", "key", "numbers"),
    [
        ({"n_heads": 3}, "n_heads", ["3", "8"]),
        ({"window": [3]}, "window", ["3"]),
        ({"window": [2], "counts_self": True}, "window", ["2", "3"]),
        ({"window": [4, 4, 4]}, "window", ["3 numbers", "2 layers"]),
        ({"window": [0]}, "window", ["0"]),
        ({"dilation": [1, 2, 3]}, "dilation", ["3 numbers", "2 layers"]),
        ({"dilated_heads": 5}, "dilated_heads", ["4", "5"]),
        ({"n_global": -1}, "n_global", ["-1"]),
        ({"d_qkv": 10}, "n_heads", ["4", "10"]),
        ({"activation": "tanh"}, "activation", ["tanh", "gelu"]),
        ({"norm_eps": 0.0}, "norm_eps", ["0"]),
        ({"dropout": 1.0}, "dropout", ["1.0"]),
    ],
)
def test_impossible_configurations_are_named(fields: dict[str, Any], key: str, numbers: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        registry().architecture("longformer").record.check(
            LongformerConfig(**fields), ModelDims(d_model=8, n_layers=2, mode="causal", max_len=64)
        )
    assert caught.value.key == f"arch.{key}"
    for number in numbers:
        assert number in caught.value.message
