"""Nyströmformer: landmarks and their pseudo-inverse, rows that do not depend on padding or on each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo import ConfigError, ModelDims, registry
from zoo.convert import match_keys
from zoo.ops.attention import attention
from zoo.testing import run_checks
from zoo_nystromformer.config import NystromformerConfig
from zoo_nystromformer.convert import CONVERSION
from zoo_nystromformer.op import depthwise, iterative_pinv, landmark_weights, nystrom_attention

FEW = settings(max_examples=25, deadline=None)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def qkv(*shape: int) -> tuple[Tensor, Tensor, Tensor]:
    return noise(*shape, seed=1), noise(*shape, seed=2), noise(*shape, seed=3)


def build(config: NystromformerConfig, *, max_len: int = 64, d_model: int = 16) -> torch.nn.Module:
    torch.manual_seed(0)
    record = registry().architecture("nystromformer").record
    return record.build(config, d_model=d_model, n_layers=2, mode="bidirectional", max_len=max_len).double().eval()


def test_conformance_with_few_landmarks() -> None:
    """Most sequences of the suite are shorter than the default number of landmarks, which is exact attention."""
    report = run_checks("nystromformer", overrides={"n_landmarks": 5, "conv_kernel": 3})
    assert report.ok, report.to_text()
    assert report.count("passed") >= 27


# -- the pseudo-inverse --------------------------------------------------------------------------------------------


@FEW
@given(m=st.integers(1, 8), init=st.sampled_from(["exact", "original"]), scale=st.floats(0.1, 3.0))
def test_the_iteration_converges_to_the_pseudo_inverse(m: int, init: str, scale: float) -> None:
    A = torch.softmax(scale * noise(2, 2, m, m) + 2 * torch.eye(m), dim=-1)
    torch.testing.assert_close(iterative_pinv(A, n_iter=60, init=init), torch.linalg.pinv(A), rtol=1e-6, atol=1e-7)


def test_it_finds_the_pseudo_inverse_of_a_singular_matrix() -> None:
    A = torch.softmax(noise(1, 1, 6, 6), dim=-1)
    A[..., 4, :], A[..., 5, :] = A[..., 0, :], A[..., 0, :]  # rank 4 at most
    # (each further step would add to the rounding errors in the null space)
    torch.testing.assert_close(iterative_pinv(A, n_iter=12), torch.linalg.pinv(A, rtol=1e-9), rtol=1e-5, atol=1e-6)


def test_six_iterations_from_the_exact_scale_are_nearer_than_from_the_original() -> None:
    A = torch.softmax(torch.stack([noise(1, 8, 8, seed=s) * (1 + s) for s in range(4)])[:, 0][:, None], dim=-1)
    errors = [(A @ iterative_pinv(A, init=init) @ A - A).norm() for init in ("exact", "original")]
    assert errors[0] < errors[1]


# -- landmarks -----------------------------------------------------------------------------------------------------


@FEW
@given(m=st.integers(1, 9), each=st.integers(1, 5))
def test_landmarks_are_the_published_means_where_they_divide(m: int, each: int) -> None:
    x = noise(2, 3, m * each, 4)
    weights, _ = landmark_weights(None, m * each, m, "real", x)
    torch.testing.assert_close(weights[0] @ x, x.unflatten(2, (m, each)).mean(3))


@FEW
@given(n=st.integers(1, 40), m=st.integers(1, 12), pad=st.integers(0, 9))
def test_segments_are_contiguous_and_as_equal_as_can_be(n: int, m: int, pad: int) -> None:
    mask = (torch.arange(n + pad) < n)[None]
    weights, n_tokens = landmark_weights(mask, n + pad, m, "real", noise(1))
    assert n_tokens.tolist() == [n]
    assert not weights[..., n:].any()
    sizes = (weights[0] > 0).sum(-1)
    assert sizes.sum() == n
    assert sizes.max() - sizes.min() <= 1
    owner = weights[0, :, :n].argmax(0)
    assert owner.diff().min() >= 0 if n > 1 else True
    torch.testing.assert_close(weights.sum(-1)[0], (sizes > 0).to(weights.dtype))


@FEW
@given(length=st.integers(1, 20), extra=st.integers(0, 4), heads=st.integers(1, 3))
def test_as_many_landmarks_as_tokens_are_softmax_attention(length: int, extra: int, heads: int) -> None:
    q, k, v = qkv(2, heads, length, 4)
    y = nystrom_attention(q, k, v, m=length + extra)
    torch.testing.assert_close(y, attention(q, k, v), rtol=1e-9, atol=1e-11)


def test_repeated_tokens_are_exact_with_one_landmark_each() -> None:
    """Where all tokens of a segment are equal the method has no error but the iteration's."""
    q, k, v = (t.repeat_interleave(7, dim=2) for t in qkv(2, 2, 5, 8))
    y = nystrom_attention(q, k, v, m=5, n_iter=40)
    torch.testing.assert_close(y, attention(q, k, v), rtol=1e-6, atol=1e-8)


def test_more_landmarks_are_nearer_to_attention() -> None:
    # a smooth sequence, as neighbouring tokens of images and speech are
    q, k, v = (t.cumsum(2) / 8 for t in qkv(2, 2, 128, 8))
    exact = attention(q, k, v)
    errors = [float((nystrom_attention(q, k, v, m=m, n_iter=20) - exact).norm() / exact.norm()) for m in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02, errors


# -- rows by themselves --------------------------------------------------------------------------------------------


@FEW
@given(
    real=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    m=st.integers(1, 12),
    pad=st.integers(0, 20),
    kernel=st.sampled_from([0, 1, 7]),
)
def test_a_row_in_a_padded_batch_is_the_row_alone(real: list[int], m: int, pad: int, kernel: int) -> None:
    model = build(NystromformerConfig(n_landmarks=m, conv_kernel=kernel))
    seq_len = max(1, max(real) + pad)
    x = noise(len(real), seq_len, 16)
    mask = torch.arange(seq_len) < torch.tensor(real)[:, None]
    together = model(torch.where(mask[..., None], x, 50 * x), mask=mask).hidden
    assert together.isfinite().all()
    for row, n in enumerate(real):
        if n:
            alone = model(x[row : row + 1, :n]).hidden[0]
            torch.testing.assert_close(together[row, :n], alone, rtol=1e-8, atol=1e-9)


def test_the_published_scale_mixes_the_rows_of_a_batch_and_the_default_does_not() -> None:
    x = noise(4, 32, 16)
    x[1:] *= 3
    moved = {}
    for init in ("exact", "original"):
        model = build(NystromformerConfig(n_landmarks=8, pinv_init=init))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("q.weight", "k.weight")):
                    parameter *= 4
        moved[init] = (model(x).hidden[0] - model(x[:1]).hidden[0]).abs().max()
    assert moved["exact"] < 1e-10
    assert moved["original"] > 1e-5


@pytest.mark.parametrize("padding", ["zero", "blind"])
def test_the_published_paddings_are_moved_by_padding(padding: str) -> None:
    model = build(NystromformerConfig(n_landmarks=4, padding=padding))
    x = noise(1, 24, 16)
    mask = (torch.arange(24) < 17)[None]
    assert (model(x, mask=mask).hidden[:, :17] - model(x[:, :17]).hidden).abs().max() > 1e-6


def test_gradients_pass_the_finite_difference_check() -> None:
    leaves = [t.requires_grad_() for t in qkv(2, 1, 9, 3)]
    mask = torch.arange(9) < torch.tensor([9, 2])[:, None]

    def both(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nystrom_attention(q, k, v, m=3, mask=mask)

    assert torch.autograd.gradcheck(both, leaves)


@FEW
@given(length=st.integers(1, 12), half=st.integers(0, 7))
def test_the_convolution_is_its_sum(length: int, half: int) -> None:
    c = 2 * half + 1
    v, w = noise(2, 3, length, 4), noise(3, c, seed=1)
    expected = torch.zeros_like(v)
    for i in range(length):
        for t in range(c):
            j = i + t - half
            if 0 <= j < length:
                expected[:, :, i] += w[None, :, t, None] * v[:, :, j]
    torch.testing.assert_close(depthwise(v, w), expected)


def test_half_precision_is_computed_in_float32() -> None:
    model = build(NystromformerConfig(n_landmarks=8, conv_kernel=5)).float()
    x = noise(2, 50, 16).float()
    wide = model(x).hidden
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = model(x).hidden
    assert (narrow - wide).norm() / wide.norm() < 0.05


# -- configuration and conversion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (NystromformerConfig(n_heads=3), "arch.n_heads", "3 does not divide d_model 16"),
        (NystromformerConfig(n_heads=3, d_qkv=8), "arch.n_heads", "3 does not divide d_qkv 8"),
        (NystromformerConfig(n_landmarks=-1), "arch.n_landmarks", "integer >= 0, got -1"),
        (NystromformerConfig(conv_kernel=4), "arch.conv_kernel", "odd number of taps, or 0 for none, got 4"),
        (NystromformerConfig(conv_kernel=-3), "arch.conv_kernel", "got -3"),
        (NystromformerConfig(pinv_iterations=0), "arch.pinv_iterations", "integer > 0, got 0"),
        (NystromformerConfig(pinv_init="fast"), "arch.pinv_init", r"expected exact \| original, got 'fast'"),
        (NystromformerConfig(padding="left"), "arch.padding", r"expected real \| zero \| blind, got 'left'"),
        (NystromformerConfig(dropout=1.0), "arch.dropout", r"\[0, 1\), got 1.0"),
    ],
)
def test_impossible_configurations_name_key_and_numbers(config: NystromformerConfig, key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(config)
    assert caught.value.key == key


def test_there_is_no_causal_form() -> None:
    with pytest.raises(ConfigError, match="no causal form"):
        registry().architecture("nystromformer").record.build(d_model=16, n_layers=1, mode="causal", max_len=64)


def test_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="carries none"):
        build(NystromformerConfig())(noise(1, 5, 16), state=[torch.zeros(1, 2)])


THEIRS = NystromformerConfig(n_landmarks=4, prenorm=False, padding="blind", pinv_init="original")
SHAPE = ModelDims(d_model=16, n_layers=2, mode="bidirectional", max_len=32)


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"prenorm": True}, "prenorm", "True: .* only prenorm=False"),
        ({"padding": "real"}, "padding", "'real'.* only padding='blind'"),
        ({"pinv_init": "exact"}, "pinv_init", "'exact'.* only pinv_init='original'"),
        ({"bias": False}, "bias", "False"),
        ({"d_qkv": 8}, "d_qkv", "8 .* as wide as d_model"),
        ({"pinv_iterations": 5}, "pinv_iterations", "5: .* only pinv_iterations=6"),
        ({"conv_kernel": 0}, "conv_kernel", "always has the convolution"),
        ({"n_landmarks": 5}, "n_landmarks", "5 .* divide max_len"),
    ],
)
def test_what_transformers_lacks_is_not_exported(change: dict[str, Any], key: str, message: str) -> None:
    assert CONVERSION.export_config(THEIRS, SHAPE)["segment_means_seq_len"] == 32
    with pytest.raises(ConfigError, match=message) as caught:
        CONVERSION.export_config(replace(THEIRS, **change), SHAPE)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("change", "key"),
    [({"hidden_act": "tanh"}, "hidden_act"), ({"inv_coeff_init_option": True}, "inv_coeff_init_option")],
)
def test_variants_that_are_not_offered_are_refused(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        CONVERSION.import_config(CONVERSION.export_config(THEIRS, SHAPE) | change)
    assert caught.value.key == key


@pytest.mark.parametrize("config", [THEIRS, replace(THEIRS, conv_kernel=0), replace(THEIRS, n_landmarks=0)])
def test_the_map_names_every_weight_once(config: NystromformerConfig) -> None:
    sources = match_keys(CONVERSION.key_map(config), build(config).state_dict())
    keys = [key for source in sources.values() for key in source.sources]
    assert len(set(keys)) == len(keys)
