"""The Perceiver: symmetry of the latents' reading, causality of Perceiver AR, and the frame's contract."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.run.conftest import resolve_one
from zoo import Backbone, ConfigError, ModelDims
from zoo.data.batch import Batch
from zoo.model.models import LMHeadModel, SequenceClassifier
from zoo.model.segments import SegmentPlan
from zoo.nn import sequence_lengths
from zoo_perceiver import zoo_architectures
from zoo_perceiver.config import PerceiverConfig
from zoo_perceiver.op import latent_attention

B, D = 3, 8
SAME = {"rtol": 1e-10, "atol": 1e-12}
WIDTHS = {"d_latents": 12, "qk_channels": 4, "v_channels": 6}
AR_FORMS = [
    {},
    {"latent_keys": True},
    {"rotary_dim": 2},
    {"latent_keys": True, "rotary_dim": 4, "activation": "gelu"},
    WIDTHS | {"rotary_dim": 2},
]


def build(mode: str, n_latents: int, n_layers: int = 2, **config: Any) -> Backbone:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    dims = ModelDims(d_model=D, n_layers=n_layers, mode=mode, max_len=32)
    backbone = arch.build(PerceiverConfig(n_latents=n_latents, n_heads=2, n_cross_heads=2, **config), dims)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return backbone.double().eval()


def tokens(length: int, batch: int = B, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scatter(x: Tensor, mask: Tensor) -> Tensor:
    """Rows of real tokens, laid out where the mask is True; what lies in between must not matter."""
    padded = torch.full((*mask.shape, x.shape[-1]), float("nan"), dtype=x.dtype)
    padded[mask] = x.flatten(0, 1)
    return padded


def layout(kind: str, real: int, length: int) -> Tensor:
    mask = torch.zeros(B, length, dtype=torch.bool)
    free = length - real
    starts = {"right": [0] * B, "left": [free] * B, "ragged": [0, free, free // 2]}[kind]
    for b, start in enumerate(starts):
        mask[b, start : start + real] = True
    return mask


def test_attention_against_loops() -> None:
    torch.manual_seed(0)
    N, K, H = 3, 5, 2
    q, k = torch.randn(B, N, 4, dtype=torch.float64), torch.randn(B, K, 4, dtype=torch.float64)
    v = torch.randn(B, K, 6, dtype=torch.float64)
    visible = torch.rand(B, 1, N, K) < 0.5
    visible[1, 0, 2] = False
    expected = torch.zeros(B, N, 6, dtype=torch.float64)
    for b, n, h in itertools.product(range(B), range(N), range(H)):
        seen = visible[b, 0, n].nonzero()[:, 0]
        if len(seen):
            weight = (k[b, seen, 2 * h : 2 * h + 2] @ q[b, n, 2 * h : 2 * h + 2] / 2**0.5).softmax(0)
            expected[b, n, 3 * h : 3 * h + 3] = weight @ v[b, seen, 3 * h : 3 * h + 3]
    q.requires_grad_()
    z = latent_attention(q, k, v, H, visible)
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    z.sum().backward()
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_permuting_inputs_with_their_positions_changes_nothing() -> None:
    backbone = build("bidirectional", 4)
    x, order = tokens(11), torch.randperm(11, generator=torch.Generator().manual_seed(5))
    hidden = backbone(x).hidden
    torch.testing.assert_close(backbone(x[:, order]).hidden, hidden, **SAME)
    # positions are the frame's: moved without its position, an input is another input
    position = tokens(11, batch=1, seed=7)
    assert (backbone(x[:, order] + position).hidden - backbone(x + position).hidden).abs().max() > 1e-3


@pytest.mark.parametrize("widths", [{}, WIDTHS])
@pytest.mark.parametrize("length", [1, 3, 20])
def test_bidirectional_returns_its_latents(length: int, widths: dict[str, Any]) -> None:
    backbone = build("bidirectional", 5, **widths)
    hidden, latents = backbone(tokens(length)).hidden, backbone.core(tokens(length))
    assert hidden.shape == (B, 5, D)
    assert latents.shape == (B, 5, widths.get("d_latents", D))
    normed = backbone.final_norm(latents)
    if widths:  # hidden keeps the width of x: one linear map after the norm
        normed = normed @ backbone.to_output.weight.T + backbone.to_output.bias
    torch.testing.assert_close(hidden, normed, **SAME)


def test_channels_are_as_told() -> None:
    backbone = build("bidirectional", 5, **WIDTHS)
    for layer, source in ((backbone.core.cross, D), (backbone.core.layers[0], 12)):  # type: ignore[union-attr,index]
        assert layer.attention.W_q.weight.shape == (4, 12)
        assert layer.attention.W_k.weight.shape == (4, source)
        assert layer.attention.W_v.weight.shape == (6, source)
        assert layer.W_o.weight.shape == (12, 6)


@pytest.mark.parametrize("widths", [{}, WIDTHS])
@pytest.mark.parametrize("kind", ["right", "left", "ragged"])
def test_bidirectional_padding(kind: str, widths: dict[str, Any]) -> None:
    backbone = build("bidirectional", 5, **widths)
    x, mask = tokens(6), layout(kind, 6, 10)
    torch.testing.assert_close(backbone(scatter(x, mask), mask=mask).hidden, backbone(x).hidden, **SAME)


@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
def test_a_row_of_pads_is_finite_whatever_it_holds(mode: str) -> None:
    backbone = build(mode, 5)
    x, mask = tokens(8), torch.ones(B, 8, dtype=torch.bool)
    mask[1] = False
    x[1] = float("nan")
    hidden = backbone(x, mask=mask).hidden
    assert hidden.isfinite().all()
    x[1] = 3.0
    assert torch.equal(backbone(x, mask=mask).hidden, hidden)
    torch.testing.assert_close(hidden[0], backbone(x).hidden[0], **SAME)


def test_blocks_share_their_weights() -> None:
    once, twice = build("bidirectional", 4), build("bidirectional", 4, n_blocks=2)
    assert sum(p.numel() for p in once.parameters()) == sum(p.numel() for p in twice.parameters())
    twice.load_state_dict(once.state_dict())
    x = tokens(7)
    z = once.core(x)
    for layer in once.core.layers:  # type: ignore[union-attr]
        z = layer(z)
    torch.testing.assert_close(twice.core(x), z, **SAME)


@pytest.mark.parametrize("form", AR_FORMS)
@pytest.mark.parametrize("n_latents", [1, 4, 9, 20])
def test_ar_never_sees_the_future_and_sees_all_of_the_past(form: dict[str, Any], n_latents: int) -> None:
    backbone = build("causal", n_latents, **form)
    x = tokens(9).requires_grad_()
    hidden = backbone(x).hidden
    out_len = min(n_latents, 9)
    assert hidden.shape == (B, out_len, D)
    for i in range(out_len):
        position = 9 - out_len + i
        (gradient,) = torch.autograd.grad(hidden[:, i].square().sum(), [x], retain_graph=True)
        assert gradient[:, position + 1 :].abs().sum() == 0
        assert gradient[:, : position + 1].abs().amax((0, 2)).min() > 0


@pytest.mark.parametrize("form", AR_FORMS)
def test_ar_with_latents_for_all_positions_does_not_depend_on_what_follows(form: dict[str, Any]) -> None:
    backbone = build("causal", 12, **form)
    x = tokens(12)
    torch.testing.assert_close(backbone(x[:, :5]).hidden, backbone(x).hidden[:, :5], **SAME)


@pytest.mark.parametrize("form", AR_FORMS)
@pytest.mark.parametrize("kind", ["right", "left", "ragged"])
@pytest.mark.parametrize("n_latents", [5, 8, 10, 16])
def test_ar_padding(form: dict[str, Any], kind: str, n_latents: int) -> None:
    """hidden[:, i] stands for position L - out_len + i, with or without pads; compared wherever both have an output."""
    backbone = build("causal", n_latents, **form)
    real, length = 7, 10
    x, mask = tokens(real), layout(kind, real, length)
    bare, padded = backbone(x).hidden, backbone(scatter(x, mask), mask=mask).hidden
    N_bare, N = bare.shape[1], padded.shape[1]
    assert padded.isfinite().all()
    compared = 0
    for b, position in mask.nonzero().tolist():
        own = position - int(mask[b].nonzero()[0])  # its place in the unpadded row
        if position >= length - N and own >= real - N_bare:
            torch.testing.assert_close(padded[b, position - length + N], bare[b, own - real + N_bare], **SAME)
            compared += 1
    assert compared >= 2 * B


def test_ar_with_pads_in_front_loses_no_output() -> None:
    backbone = build("causal", 4)
    x, mask = tokens(10), torch.ones(B, 10, dtype=torch.bool)
    mask[2, 5:] = False
    alone = backbone(x[2:, :5]).hidden[0]
    assert backbone(x, mask=mask).hidden[2].abs().max() == 0  # positions 6 to 9 are pads
    shift = mask.shape[1] - sequence_lengths(mask)
    in_front = [torch.stack([row.roll(int(n), 0) for row, n in zip(t, shift, strict=True)]) for t in (x, mask)]
    torch.testing.assert_close(backbone(in_front[0], mask=in_front[1]).hidden[2], alone, **SAME)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("pool", "length", "fine"), [("mean", 12, True), ("mean", 11, False), ("last", 9, True), ("last", 8, False)]
)
def test_the_frame_refuses_to_pool_what_pads_decide(pool: str, length: int, fine: bool) -> None:
    overrides = {"model.mode": "causal", "model.pool": pool, "arch.n_latents": 4}
    model = SequenceClassifier(resolve_one("perceiver", "toytask", overrides=overrides).model_spec)
    ids, mask = torch.ones(2, 12, dtype=torch.int64), torch.ones(2, 12, dtype=torch.bool)
    mask[1, length:] = False
    if fine:
        assert model.pooled(ids, mask)[0].isfinite().all()
    else:
        with pytest.raises(ConfigError, match="last 4 of 12 positions"):
            model.pooled(ids, mask)


@pytest.mark.usefixtures("toys")
def test_the_frame_predicts_no_token_from_latents_nor_from_less_than_a_segment() -> None:
    experiment = resolve_one("perceiver", "toyrecall", protocol="smoke", overrides={"arch.n_latents": 4})
    ids = torch.ones(2, 12, dtype=torch.int64)
    model = LMHeadModel(experiment.model_spec)
    assert model(Batch(ids, None, ids)).logits.shape[0] == 24
    model.encoder.plan = SegmentPlan(6)
    with pytest.raises(ConfigError, match=r"segments\.length: 4 outputs for a segment of 6 tokens"):
        model(Batch(ids, None, ids))
    model.encoder.plan, model.encoder.causal = SegmentPlan(), False
    with pytest.raises(ConfigError, match=r"model\.mode: perceiver returns latents then"):
        model(Batch(ids, None, ids))


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("n_latents", [7, 12])
def test_as_many_latents_as_tokens_are_still_latents(n_latents: int) -> None:
    """Pads of the input hide none of them, and no position can be picked."""

    def build_model(**options: Any) -> SequenceClassifier:
        overrides = {"arch.n_latents": n_latents, **options}
        return SequenceClassifier(resolve_one("perceiver", "toytask", overrides=overrides).model_spec).double().eval()

    model = build_model()
    ids = torch.arange(12)[None] % 3
    padded = torch.arange(12)[None] < 9
    torch.testing.assert_close(model.pooled(ids, padded)[0], model.pooled(ids[:, :9], None)[0], **SAME)
    model = build_model(**{"model.pool": "last"})
    with pytest.raises(ConfigError, match="no meaning for latents"):
        model.pooled(ids, padded)


@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
def test_rows_do_not_mix(mode: str) -> None:
    backbone = build(mode, 8)
    x, mask = tokens(9), torch.ones(B, 9, dtype=torch.bool)
    mask[0, 6:] = False
    together = backbone(x, mask=mask).hidden
    for b in range(B):
        torch.testing.assert_close(backbone(x[b : b + 1], mask=mask[b : b + 1]).hidden[0], together[b], **SAME)


@pytest.mark.parametrize("mode", ["bidirectional", "causal"])
def test_autocast_dropout_and_gradients(mode: str) -> None:
    backbone = build(mode, 4, dropout=0.3).float()
    x = tokens(9).float()
    mask = torch.ones(B, 9, dtype=torch.bool)
    mask[0, 6:] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone(x, mask=mask).hidden.isfinite().all()
    backbone.train()
    assert not torch.equal(backbone(x).hidden, backbone(x).hidden)
    # of the last layer too, and of the unnormalised sum (a norm's outputs sum to a constant)
    (backbone(x).hidden * tokens(backbone(x).hidden.shape[1], seed=2).float()).sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name


def test_initialisation_is_deepminds() -> None:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    backbone = arch.build(d_model=128, n_layers=1, mode="bidirectional", max_len=8)
    p = dict(backbone.named_parameters())
    assert p["core.layers.0.attention.W_q.weight"].std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert p["core.layers.0.mlp.linear1.bias"].abs().max() == 0
    assert p["core.latents"].abs().max() <= 0.04
    assert p["core.latents"].std().item() == pytest.approx(0.02 * 0.88, rel=0.05)


@pytest.mark.parametrize(
    ("config", "mode", "key"),
    [
        ({"n_heads": 3}, "causal", "arch.n_heads"),
        ({"n_cross_heads": 3}, "causal", "arch.n_cross_heads"),
        ({"n_latents": 0}, "causal", "arch.n_latents"),
        ({"d_latents": 6}, "bidirectional", "arch.n_heads"),
        ({"d_latents": 0}, "bidirectional", "arch.d_latents"),
        ({"qk_channels": 6}, "bidirectional", "arch.n_heads"),
        ({"qk_channels": -4}, "bidirectional", "arch.qk_channels"),
        ({"v_channels": 6}, "bidirectional", "arch.n_heads"),
        ({"d_latents": 12, "latent_keys": True}, "causal", "arch.latent_keys"),
        ({"qk_channels": 4, "rotary_dim": 2}, "causal", "arch.rotary_dim"),
        ({"activation": "gelo"}, "causal", "arch.activation"),
        ({"n_blocks": 2}, "causal", "arch.n_blocks"),
        ({"rotary_dim": 3}, "causal", "arch.rotary_dim"),
        ({"rotary_dim": 4}, "causal", "arch.rotary_dim"),
        ({"rotary_dim": 2}, "bidirectional", "arch.rotary_dim"),
        ({"latent_keys": True}, "bidirectional", "arch.latent_keys"),
        ({"dropout": -0.1}, "causal", "arch.dropout"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], mode: str, key: str) -> None:
    (arch,) = zoo_architectures()
    with pytest.raises(ConfigError) as error:
        arch.build(PerceiverConfig(**config), ModelDims(d_model=8, n_layers=1, mode=mode, max_len=8))
    assert error.value.key == key


def test_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="no state"):
        build("causal", 4)(tokens(4), state=[tokens(4)])
