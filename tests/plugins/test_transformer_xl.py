"""Transformer-XL: what the paper promises of the memory, and what the frame's contract asks of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from tests.plugins.steps import assert_steps_equal_segments
from zoo import Backbone, ConfigError, ModelDims
from zoo.nn.state import elements, select_rows
from zoo.ops.relative import distances, rel_shift, relative_attention, visible_keys
from zoo_transformer_xl import zoo_architectures
from zoo_transformer_xl.backbone import TransformerXLBackbone
from zoo_transformer_xl.config import TransformerXLConfig

B, D = 3, 8
MODES = ("causal", "bidirectional")


def build(mode: str = "causal", n_layers: int = 2, max_len: int = 8, **config: Any) -> Backbone:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    dims = ModelDims(d_model=D, n_layers=n_layers, mode=mode, max_len=max_len)
    backbone = arch.build(TransformerXLConfig(n_heads=2, **config), dims).double().eval()
    for parameter in backbone.parameters():  # the paper's 0.02 makes attention nearly uniform: nothing would show
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return backbone


def tokens(length: int, batch: int = B, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drive(backbone: Backbone, x: Tensor, lengths: list[int]) -> tuple[Tensor, Any]:
    state, hidden = None, []
    for piece in x.split(lengths, dim=1):
        out = backbone(piece, state=state)
        state = out.state
        hidden.append(out.hidden)
    return torch.cat(hidden, dim=1), state


@pytest.mark.parametrize("pre_lnorm", [False, True])
@pytest.mark.parametrize("clamp_len", [None, 4])
def test_segments_equal_one_pass_while_the_memory_holds_everything(pre_lnorm: bool, clamp_len: int | None) -> None:
    backbone = build(mem_len=17, pre_lnorm=pre_lnorm, clamp_len=clamp_len)
    x = tokens(17)
    whole, _ = drive(backbone, x, [17])
    pieces, _ = drive(backbone, x, [5, 7, 1, 4])
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


def test_the_gradient_stops_at_the_segments_edge() -> None:
    backbone = build(mem_len=12)
    first, second = tokens(6).requires_grad_(), tokens(6, seed=2).requires_grad_()
    state = backbone(first).state
    assert not any(leaf.requires_grad for leaf in state["memory"])
    y = backbone(second, state=state).hidden.square().sum()
    g_first, g_second = torch.autograd.grad(y, [first, second], allow_unused=True)
    assert g_first is None
    assert g_second.abs().max() > 0


@pytest.mark.parametrize("name", ["W_kE", "W_v", "W_kR"])
def test_projections_learn_from_memory_rows(name: str) -> None:
    """The stop-gradient is on the hidden states: of a fixed memory, keys and values are still made by the weights.

    The gradient must be that of the loss with the memory held fixed; caching projected rows would lose a part.
    """
    backbone = build(mem_len=6, n_layers=1)
    state = backbone(tokens(6)).state
    x = tokens(1, seed=2)  # one token: nearly every key is a memory row
    key = f"layers.0.attention.{name}.weight"
    weights = dict(backbone.named_parameters())
    direction = torch.randn(weights[key].shape, dtype=torch.float64)

    def loss(step: float) -> Tensor:
        moved = {**weights, key: weights[key] + step * direction}
        return (functional_call(backbone, moved, (x,), {"state": state}).hidden * tokens(1, seed=3)).sum()

    (gradient,) = torch.autograd.grad(loss(0.0), [weights[key]])
    numeric = (loss(1e-5) - loss(-1e-5)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-6, atol=1e-8)
    # and the memory's part in it is not small
    fresh = (backbone(x).hidden * tokens(1, seed=3)).sum()
    (alone,) = torch.autograd.grad(fresh, [weights[key]])
    assert (gradient - alone).norm() > 0.1 * gradient.norm()


def test_same_length_does_not_depend_on_the_segmentation() -> None:
    backbone = build(mem_len=5, same_length=True)
    x = tokens(16)
    whole, _ = drive(backbone, x, [16])
    for lengths in ([4] * 4, [1] * 16, [7, 2, 1, 6], [15, 1]):
        pieces, _ = drive(backbone, x, lengths)
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", [{"same_length": True}, {"pre_lnorm": True, "clamp_len": 4}, {"mem_len": 0}])
def test_steps_equal_segments(config: dict[str, Any]) -> None:
    assert_steps_equal_segments(build(max_len=4, **{"mem_len": 6, **config}))


def test_without_same_length_the_reach_depends_on_the_segmentation() -> None:
    backbone = build(mem_len=5)
    x = tokens(16)
    assert (drive(backbone, x, [4] * 4)[0] - drive(backbone, x, [16])[0]).abs().max() > 1e-3


def test_same_length_sees_exactly_mem_len_keys_itself_included() -> None:
    backbone = build(mem_len=3, n_layers=1, same_length=True)
    x = tokens(9).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x).hidden[:, 7].sum(), [x])
    reached = gradient.abs().amax((0, 2)) > 0
    assert reached.tolist() == [False] * 5 + [True] * 3 + [False]


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize(("T", "M"), [(1, 0), (1, 4), (5, 0), (4, 3), (3, 7)])
def test_rel_shift_and_attention_against_loops(T: int, M: int, two_sided: bool) -> None:
    torch.manual_seed(0)
    H, E, K = 2, 4, M + T
    q, k, v = (torch.randn(B, n, H, E, dtype=torch.float64) for n in (T, K, K))
    t = distances(T, K, two_sided=two_sided, device=q.device)
    assert t[0] == K - 1
    assert t[-1] == (1 - T if two_sided else 0)
    r = torch.randn(len(t), H, E, dtype=torch.float64)
    row = {int(d): i for i, d in enumerate(t)}
    u, w = torch.randn(2, H, E, dtype=torch.float64)
    raw = torch.randn(B, H, T, len(t), dtype=torch.float64)
    shifted = rel_shift(raw, K)
    expected = torch.zeros(B, T, H, E, dtype=torch.float64)
    for b, h, i in itertools.product(range(B), range(H), range(T)):
        seen = range(K) if two_sided else range(M + i + 1)
        for j in seen:
            assert shifted[b, h, i, j] == raw[b, h, i, row[M + i - j]]
        scores = torch.stack(
            [((q[b, i, h] + u[h]) @ k[b, j, h] + (q[b, i, h] + w[h]) @ r[row[M + i - j], h]) / 2 for j in seen]
        )
        expected[b, i, h] = scores.softmax(0) @ v[b, : len(seen), h]
    visible = visible_keys(T, K, two_sided=two_sided, device=q.device)
    torch.testing.assert_close(relative_attention(q, k, v, r, u, w, visible), expected, rtol=1e-12, atol=1e-12)


def scatter(x: Tensor, mask: Tensor) -> Tensor:
    """Rows of real tokens, laid out where the mask is True; what lies in between must not matter."""
    padded = torch.full((*mask.shape, x.shape[-1]), float("nan"), dtype=x.dtype)
    padded[mask] = x.flatten(0, 1)
    return padded


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["right", "left", "ragged"])
@pytest.mark.parametrize("mem_len", [0, 3, 8, 20])
def test_padding_changes_neither_outputs_nor_what_is_carried(mode: str, where: str, mem_len: int) -> None:
    backbone = build(mode, mem_len=mem_len)
    before, x, after = tokens(4, seed=3), tokens(5), tokens(6, seed=2)
    mask = torch.zeros(B, 8, dtype=torch.bool)
    spots = {"right": [range(5)] * B, "left": [range(3, 8)] * B, "ragged": [range(5), range(3, 8), range(1, 6)]}
    for b, spot in enumerate(spots[where]):
        mask[b, list(spot)] = True
    state = backbone(before).state
    bare, padded = backbone(x, state=state), backbone(scatter(x, mask), mask=mask, state=state)
    same = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(padded.hidden[mask].view(B, 5, D), bare.hidden, **same)
    assert padded.hidden.isfinite().all()
    assert torch.equal(padded.state["valid"], bare.state["valid"])
    torch.testing.assert_close(padded.state["memory"], bare.state["memory"], **same)
    torch.testing.assert_close(
        backbone(after, state=padded.state).hidden, backbone(after, state=bare.state).hidden, **same
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_segment_of_pads_leaves_the_state_as_it_was(mode: str) -> None:
    backbone = build(mode, mem_len=6)
    state = backbone(tokens(4)).state
    mask = torch.ones(B, 5, dtype=torch.bool)
    mask[1] = False
    out = backbone(tokens(5, seed=2), mask=mask, state=state)
    assert out.hidden.isfinite().all()
    for new, old in zip(out.state["memory"], state["memory"], strict=True):
        assert torch.equal(new[1], old[1])
        assert not torch.equal(new[0], old[0])
    assert torch.equal(out.state["valid"][1], state["valid"][1])
    # nothing real at all, and nothing remembered
    assert backbone(tokens(5), mask=torch.zeros(B, 5, dtype=torch.bool)).hidden.isfinite().all()


def test_causal_outputs_never_see_the_future() -> None:
    backbone = build(mem_len=8)
    state = backbone(tokens(8)).state
    x = tokens(7, seed=2).requires_grad_()
    for t in range(7):
        (gradient,) = torch.autograd.grad(backbone(x, state=state).hidden[:, t].sum(), [x])
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, : t + 1].abs().amin() > 0


def test_bidirectional_outputs_see_the_whole_segment_and_the_memory_but_no_later_segment() -> None:
    backbone = build("bidirectional", mem_len=8)
    first, second = tokens(5).requires_grad_(), tokens(5, seed=2)
    out = backbone(first)
    (gradient,) = torch.autograd.grad(out.hidden[:, 0].sum(), [first])
    assert gradient.abs().amin() > 0
    assert (backbone(second, state=out.state).hidden - backbone(second).hidden).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_rows_do_not_mix(mode: str) -> None:
    backbone = build(mode, mem_len=6)
    x, mask = tokens(7), torch.ones(B, 7, dtype=torch.bool)
    mask[0, 4:] = False
    state = backbone(tokens(4, seed=3)).state
    together = backbone(x, mask=mask, state=state)
    for b in range(B):
        row = torch.tensor([b])
        alone = backbone(x[row], mask=mask[row], state=select_rows(state, row))
        torch.testing.assert_close(alone.hidden, together.hidden[row], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mem_len", [None, 0, 5])
def test_state_size_and_the_fresh_state(mem_len: int | None) -> None:
    backbone = build(mem_len=mem_len, max_len=9)
    fresh = backbone.init_state(B, device="cpu", dtype=torch.float64)
    x = tokens(7)
    out = backbone(x)
    assert elements(fresh) == elements(out.state) == backbone.state_size(7)
    torch.testing.assert_close(backbone(x, state=fresh).hidden, out.hidden, rtol=1e-12, atol=1e-12)
    assert isinstance(backbone, TransformerXLBackbone)
    assert backbone.mem_len == (9 if mem_len is None else mem_len)


def test_a_state_of_another_batch_is_refused() -> None:
    backbone = build(mem_len=4)
    with pytest.raises(ValueError, match=r"batch size 3 .* batch size 2"):
        backbone(tokens(4, batch=2), state=backbone(tokens(4)).state)


def test_bfloat16_autocast_and_dropout() -> None:
    backbone = build(mem_len=6, dropout=0.3, attn_dropout=0.3).float()
    x = tokens(6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = backbone(x)
        assert backbone(x, state=out.state).hidden.isfinite().all()
    backbone.train()
    assert not torch.equal(backbone(x).hidden, backbone(x).hidden)


def test_initialisation_is_the_papers() -> None:
    (arch,) = zoo_architectures()
    torch.manual_seed(0)
    backbone = arch.build(d_model=128, n_layers=1, mode="causal", max_len=8)
    p = dict(backbone.named_parameters())
    assert p["layers.0.attention.W_q.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert p["u"].std().item() == pytest.approx(0.02, rel=0.2)
    assert p["layers.0.ff.linear1.bias"].abs().max() == 0
    assert p["layers.0.norm_ff.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    assert p["layers.0.norm_ff.weight"].mean().item() == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    ("config", "dims", "key"),
    [
        ({"n_heads": 3}, {}, "arch.n_heads"),
        ({"n_heads": 0}, {}, "arch.n_heads"),
        ({"n_heads": 2}, {"d_model": 7}, "arch.n_heads"),
        ({"n_heads": 1}, {"d_model": 7}, "model.d_model"),
        ({"mem_len": -1}, {}, "arch.mem_len"),
        ({"same_length": True, "mem_len": 0}, {}, "arch.same_length"),
        ({"same_length": True}, {"mode": "bidirectional"}, "arch.same_length"),
        ({"clamp_len": 0}, {}, "arch.clamp_len"),
        ({"dropout": 1.0}, {}, "arch.dropout"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], dims: dict[str, Any], key: str) -> None:
    (arch,) = zoo_architectures()
    with pytest.raises(ConfigError) as error:
        arch.build(
            TransformerXLConfig(**config),
            ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "causal", "max_len": 8, **dims}),
        )
    assert error.value.key == key
