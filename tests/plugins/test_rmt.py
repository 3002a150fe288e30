"""The Recurrent Memory Transformer: the mask, what the memory carries, and how far gradients reach through it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.plugins.steps import assert_steps_equal_segments
from zoo import Backbone, ConfigError, ModelDims
from zoo.model.segments import SegmentPlan, drive
from zoo.nn.state import elements, select_rows
from zoo_rmt import zoo_architectures
from zoo_rmt.backbone import RMTBackbone
from zoo_rmt.bodies import BODIES
from zoo_rmt.config import RMTConfig
from zoo_rmt.op import segment_mask

B, D, T = 3, 8, 7
SAME = {"rtol": 1e-10, "atol": 1e-12}
CAUSAL: list[dict[str, Any]] = [
    {"body": "transformer_xl"},
    {"body": "transformer_xl", "mem_len": 5},
    {"body": "transformer_xl", "mem_len": 12, "read_mem_from_cache": True, "pre_lnorm": True, "num_mem_tokens": 1},
    {"body": "transformer"},
    {"body": "transformer", "pre_lnorm": True},
    {"body": "gpt2"},
]
ALL = [*CAUSAL, {"body": "bert"}]


def name(config: dict[str, Any]) -> str:
    return "-".join(str(value) for value in config.values())


def build(n_layers: int = 2, max_len: int = T, **config: Any) -> Backbone:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    mode = "bidirectional" if config.get("body") == "bert" else "causal"
    dims = ModelDims(d_model=D, n_layers=n_layers, mode=mode, max_len=max_len)
    backbone = arch.build(RMTConfig(**{"n_heads": 2, "num_mem_tokens": 3, **config}), dims).double().eval()
    for parameter in backbone.parameters():  # the published 0.02 makes attention nearly uniform: nothing would show
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return backbone


def tokens(length: int, batch: int = B, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(backbone: Backbone, x: Tensor, length: int, **plan: Any) -> Tensor:
    return torch.cat([s.hidden for s in drive(backbone, x, None, None, SegmentPlan(length, **plan))], dim=1)


# -- the mask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [False, True])
def test_the_mask_is_that_of_the_paper(flag: bool) -> None:
    """Every entry, row by row, from the sentences of the paper; rows with 5, 2 and 0 of 5 tokens."""
    n, seg_len, M, real = 2, 5, 3, [5, 2, 0]
    cached = torch.tensor([[False, True, True], [True] * 3, [False] * 3])
    mask = segment_mask(
        n,
        seg_len,
        n_tokens=torch.tensor(real),
        cached=cached,
        read_mem_from_cache=flag,
        device=torch.device("cpu"),
    )
    for b, t in enumerate(real):
        kinds = ["read"] * n + ["token"] * t + ["write"] * n + ["pad"] * (seg_len - t)
        for i, row in enumerate(kinds):
            for j, column in enumerate([*(["cache"] * M), *kinds], start=-M):
                if row == "pad" or column == "pad":
                    sees = i == j
                elif column == "cache":
                    sees = bool(cached[b, j + M]) and (flag or row == "token")
                elif row == "token":
                    sees = column == "read" or (column == "token" and j <= i)
                else:
                    sees = column == "read" or row == "write"
                assert mask[b, i, j + M] == sees, (b, i, j)


@pytest.mark.parametrize("config", CAUSAL, ids=name)
def test_causal_outputs_never_see_the_future_but_all_of_the_past(config: dict[str, Any]) -> None:
    backbone = build(**config)
    state = backbone(tokens(T, seed=3)).state
    x = tokens(T).requires_grad_()
    for t in range(T):
        (gradient,) = torch.autograd.grad(backbone(x, state=state).hidden[:, t].sum(), [x])
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, : t + 1].abs().amin() > 0


@pytest.mark.parametrize("config", ALL, ids=name)
def test_the_memory_reads_the_whole_segment_and_is_read(config: dict[str, Any]) -> None:
    backbone = build(**config)
    x = tokens(T).requires_grad_()
    memory = backbone(x).state["memory"]
    (gradient,) = torch.autograd.grad(memory[:, 0].sum(), [x])
    assert gradient.abs().amin() > 0
    fresh = backbone(x).hidden
    other = backbone(x, state=backbone(tokens(T, seed=2)).state).hidden
    assert (fresh - other).abs().amax((0, 2)).amin() > 1e-3  # every token, the first too


@pytest.mark.parametrize("config", [c for c in CAUSAL if c["body"] != "transformer"], ids=name)
def test_steps_equal_segments(config: dict[str, Any]) -> None:
    assert_steps_equal_segments(build(max_len=4, **config))


def test_steps_of_positions_counted_from_the_end_equal_the_text_so_far() -> None:
    backbone = build(max_len=4, body="transformer")
    x, state = tokens(10), None
    for t in range(10):
        y, state = backbone.step(x[:, t], state)
        torch.testing.assert_close(y, run(backbone, x[:, : t + 1], 4)[:, t], **SAME)


def test_the_encoder_sees_both_ways() -> None:
    backbone = build(body="bert")
    x = tokens(T).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x).hidden[:, 0].sum(), [x])
    assert gradient.abs().amin() > 0


def test_relative_memory_tokens_distinguish_later_from_earlier() -> None:
    """More than one memory token needs two-sided distances: against scores written out pair by pair."""
    backbone = build(n_layers=1, body="transformer_xl", num_mem_tokens=3)
    x = tokens(4)
    out = backbone(x)
    layer = backbone.body.layers[0]
    rows = torch.cat([backbone.memory.expand(B, -1, -1), x, backbone.memory.expand(B, -1, -1)], dim=1)
    R = rows.shape[1]
    f = 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    heads = layer.attention.heads
    q, k, v = (heads(linear(rows)) for linear in (layer.attention.W_q, layer.attention.W_kE, layer.attention.W_v))
    visible = segment_mask(3, 4, device=x.device)[0]
    y = torch.zeros_like(q)
    for i in range(R):
        scores = {}
        for j in range(R):
            if visible[i, j]:
                angle = (i - j) * f
                r = heads(layer.attention.W_kR(torch.cat([angle.sin(), angle.cos()])))
                scores[j] = ((q[:, i] + backbone.body.u) * k[:, j] + (q[:, i] + backbone.body.v) * r).sum(-1) / 2.0
        weight = torch.stack(list(scores.values())).softmax(0)  # (seen, B, H)
        y[:, i] = sum(w[..., None] * v[:, j] for w, j in zip(weight, scores, strict=True))
    a = layer.norm_attn(rows + layer.attention.W_o(y.flatten(-2)))
    expected = layer.norm_ff(a + layer.ff(a))
    torch.testing.assert_close(out.hidden, expected[:, 3:7], **SAME)
    torch.testing.assert_close(out.state["memory"], expected[:, 7:], **SAME)


# -- gradients through segments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ALL, ids=name)
def test_the_gradient_reaches_as_far_as_the_depth(config: dict[str, Any]) -> None:
    """The last segment's loss reaches `tbptt` segments, its own among them, and through the memory only."""
    backbone = build(**config)
    x = tokens(5 * 6).requires_grad_()
    for depth in (None, 1, 2, 3):
        (gradient,) = torch.autograd.grad(run(backbone, x, 6, tbptt=depth)[:, -6:].square().sum(), [x])
        reached = gradient.unflatten(1, (5, 6)).abs().amax((0, 2, 3)) > 0
        assert reached.tolist() == [depth is None or 5 - s <= depth for s in range(5)]


@pytest.mark.parametrize("config", ALL, ids=name)
def test_the_first_memory_is_learned(config: dict[str, Any]) -> None:
    backbone = build(**config)
    x = tokens(18)
    y = run(backbone, x, 6)[:, -6:]
    gradient = torch.autograd.grad(y.square().sum(), [backbone.memory])[0]  # type: ignore[list-item]
    assert gradient.abs().amin() > 0


@pytest.mark.parametrize("replay", ["checkpoint"])
@pytest.mark.parametrize("config", ALL, ids=name)
def test_replay_equals_back_propagation_through_time(config: dict[str, Any], replay: Any) -> None:
    backbone = build(dropout=0.2, attn_dropout=0.1, **config).train()
    x, mask = tokens(20).requires_grad_(), torch.arange(20) < torch.tensor([20, 4, 13])[:, None]
    results = []
    for kind in ("none", replay):
        torch.manual_seed(1)
        segments = list(drive(backbone, x, mask, None, SegmentPlan(5, activation_checkpointing=kind)))
        loss = sum((s.hidden * s.mask[..., None]).square().sum() for s in segments)
        results.append(torch.autograd.grad(loss, [x, *backbone.parameters()]))
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain, **SAME)


def test_the_cache_has_no_gradient_and_the_memory_has() -> None:
    backbone = build(body="transformer_xl", mem_len=5)
    x = tokens(T).requires_grad_()
    state = backbone(x).state
    assert state["memory"].requires_grad
    assert not any(leaf.requires_grad for leaf in state["cache"])
    other = {**state, "cache": [leaf + 1.0 for leaf in state["cache"]]}
    assert (backbone(x, state=state).hidden - backbone(x, state=other).hidden).abs().max() > 1e-3


def test_only_the_cache_reaches_memory_rows_when_they_may_read_it() -> None:
    x = tokens(T)
    for flag in (False, True):
        backbone = build(body="transformer_xl", mem_len=5, read_mem_from_cache=flag, n_layers=1)
        state = backbone(tokens(T, seed=2)).state
        other = {**state, "cache": [leaf + 1.0 for leaf in state["cache"]]}
        change = backbone(x, state=state).state["memory"] - backbone(x, state=other).state["memory"]
        assert bool(change.abs().max() > 1e-6) == flag


# -- pads and rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ALL, ids=name)
def test_padding_changes_neither_outputs_nor_what_is_carried(config: dict[str, Any]) -> None:
    """Pads in front, behind and between, with NaN in them; rows without a token keep their state."""
    backbone = build(**config)
    masks = [torch.arange(T) < torch.tensor(n)[:, None] for n in ((7, 3, 5), (2, 7, 0), (6, 1, 4))]
    masks[1] = masks[1].flip(1)
    masks[2] = masks[2].roll(1, dims=1)
    state = None
    alone: list[Any] = [None] * B
    for s, mask in enumerate(masks):
        x = tokens(T, seed=s).masked_fill(~mask[..., None], torch.nan)
        out = backbone(x, mask=mask, state=state)
        state = out.state
        assert out.hidden.isfinite().all()
        for b in range(B):
            if mask[b].any():
                own = backbone(x[b : b + 1, mask[b]], state=alone[b])
                torch.testing.assert_close(out.hidden[b, mask[b]], own.hidden[0], **SAME)
                alone[b] = own.state
            torch.testing.assert_close(select_rows(state, torch.tensor([b])), alone[b], **SAME)


@pytest.mark.parametrize("config", ALL, ids=name)
def test_nothing_real_and_nothing_remembered(config: dict[str, Any]) -> None:
    backbone = build(**config)
    out = backbone(tokens(T), mask=torch.zeros(B, T, dtype=torch.bool))
    fresh = backbone.init_state(B, device="cpu", dtype=torch.float64)
    assert out.hidden.isfinite().all()
    torch.testing.assert_close(out.state, fresh, rtol=0, atol=0)


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", ALL, ids=name)
def test_state_size_and_the_fresh_state(config: dict[str, Any]) -> None:
    backbone = build(**config)
    fresh = backbone.init_state(B, device="cpu", dtype=torch.float64)
    x = tokens(T)
    out = backbone(x)
    assert elements(fresh) == elements(out.state) == backbone.state_size(T)
    again = backbone(x, state=fresh)
    torch.testing.assert_close(again.hidden, out.hidden, **SAME)
    torch.testing.assert_close(again.state, out.state, **SAME)


def test_other_states_are_refused_by_name() -> None:
    backbone = build()
    state = backbone(tokens(4)).state
    with pytest.raises(ValueError, match=r"batch size 3 .* batch size 2"):
        backbone(tokens(4, batch=2), state=state)
    with pytest.raises(ValueError, match=r"\(3, 4, 8\).*\(3, 3, 8\)"):
        backbone(tokens(4), state=build(num_mem_tokens=4)(tokens(4)).state)
    cached = build(body="transformer_xl", mem_len=5)
    shallow = build(body="transformer_xl", mem_len=5, n_layers=1)
    for reader, writer in ((cached, backbone), (backbone, cached), (cached, shallow)):
        with pytest.raises(ValueError, match="another architecture or configuration"):
            reader(tokens(4), state=writer(tokens(4)).state)


@pytest.mark.parametrize("config", ALL, ids=name)
def test_a_segment_longer_than_built_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"segment of 8 tokens .* segments of 7"):
        build(**config)(tokens(8))


def test_bodies_follow_the_mode() -> None:
    (arch,) = zoo_architectures()
    for mode, body in (("causal", "transformer_xl"), ("bidirectional", "bert")):
        backbone = arch.build(d_model=8, n_layers=1, mode=mode, max_len=4)
        assert isinstance(backbone, RMTBackbone)
        assert type(backbone.body) is BODIES[body]


@pytest.mark.parametrize("config", ALL, ids=name)
def test_bfloat16_autocast_and_dropout(config: dict[str, Any]) -> None:
    backbone = build(dropout=0.3, attn_dropout=0.3, **config).float()
    x = tokens(T).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert backbone(x, state=backbone(x).state).hidden.isfinite().all()
    backbone.train()
    assert not torch.equal(backbone(x).hidden, backbone(x).hidden)


@pytest.mark.parametrize(
    ("config", "dims", "key"),
    [
        ({"body": "bert"}, {}, "arch.body"),
        ({"body": "gpt2"}, {"mode": "bidirectional"}, "arch.body"),
        ({"body": "llama"}, {}, "arch.body"),
        ({"num_mem_tokens": 0}, {}, "arch.num_mem_tokens"),
        ({"n_heads": 3}, {}, "arch.n_heads"),
        ({"n_heads": 1}, {"d_model": 7}, "model.d_model"),
        ({"mem_len": -1}, {}, "arch.mem_len"),
        ({"mem_len": 4, "body": "gpt2"}, {}, "arch.mem_len"),
        ({"mem_len": 4}, {"mode": "bidirectional"}, "arch.mem_len"),
        ({"read_mem_from_cache": True}, {}, "arch.read_mem_from_cache"),
        ({"pre_lnorm": True, "body": "gpt2"}, {}, "arch.pre_lnorm"),
        ({"d_ff": 0}, {}, "arch.d_ff"),
        ({"attn_dropout": 1.0}, {}, "arch.attn_dropout"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], dims: dict[str, Any], key: str) -> None:
    (arch,) = zoo_architectures()
    with pytest.raises(ConfigError) as error:
        arch.build(
            RMTConfig(**config),
            ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "causal", "max_len": 8, **dims}),
        )
    assert error.value.key == key
