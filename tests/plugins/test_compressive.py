"""The Compressive Transformer: what leaves the memory, what stays real in it, and whom each loss teaches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.plugins.steps import assert_steps_equal_segments
from zoo import Backbone, ConfigError, ModelDims
from zoo.model.segments import SegmentPlan, drive
from zoo.nn.state import elements, select_rows
from zoo_compressive import zoo_architectures
from zoo_compressive.config import CompressiveConfig
from zoo_compressive.op import Compression, plan_eviction, update_memories
from zoo_transformer_xl import zoo_architectures as transformer_xl

B, D = 3, 8
MODES = ("causal", "bidirectional")
SAME = {"rtol": 1e-10, "atol": 1e-12}


def build(mode: str = "causal", n_layers: int = 2, max_len: int = 8, **config: Any) -> Backbone:
    torch.manual_seed(0)
    (arch,) = zoo_architectures()
    dims = ModelDims(d_model=D, n_layers=n_layers, mode=mode, max_len=max_len)
    settings = {"n_heads": 2, "mem_len": 6, "c_mem_len": 4, "compression_rate": 3, **config}
    backbone = arch.build(CompressiveConfig(**settings), dims).double().eval()
    for parameter in backbone.parameters():  # the paper's 0.02 makes attention nearly uniform: nothing would show
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return backbone


def tokens(length: int, batch: int = B, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(backbone: Backbone, x: Tensor, lengths: list[int]) -> tuple[Tensor, Any, Tensor]:
    """Hidden vectors, last state, sum of the auxiliary losses."""
    state, hidden, aux = None, [], x.new_zeros(())
    for piece in x.split(lengths, dim=1):
        out = backbone(piece, state=state)
        state, aux = out.state, aux + out.aux["reconstruction"]
        hidden.append(out.hidden)
    return torch.cat(hidden, dim=1), state, aux


# -- memories ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["conv", "mean", "max"])
@pytest.mark.parametrize(("M", "C", "c"), [(6, 4, 3), (5, 2, 3), (4, 3, 4), (3, 8, 1), (4, 1, 2)])
def test_memories_against_a_queue_of_rows(kind: str, M: int, C: int, c: int) -> None:
    """Each row of the batch has its own number of new tokens; the rule is written out as a list, row by row."""
    torch.manual_seed(0)
    f_c = Compression(kind, D, c).double()
    lengths = [[5, 5, 5], [0, 7, 2], [4, 4, 0], [1, 1, 7], [7, 0, 3], [2, 6, 7]]
    memory, compressed = torch.zeros(B, 0, D).double(), torch.zeros(B, C, D).double()
    m_real, c_real = torch.zeros(B, 0, dtype=torch.bool), torch.zeros(B, C, dtype=torch.bool)
    queues: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in range(B)]
    for s, n_new in enumerate(lengths):
        h = tokens(7, seed=s)
        plan = plan_eviction(m_real, c_real, torch.tensor(n_new), 7, (M, C, c))
        memory, compressed, _, _ = update_memories(f_c, memory, compressed, h, plan)
        m_real, c_real = plan.real, plan.c_real
        for b, (rows, small) in enumerate(queues):
            rows += list(h[b, : n_new[b]])
            while len(rows) > M:
                group = torch.stack([rows.pop(0) for _ in range(c)])  # (c, D)
                if kind == "conv":
                    assert f_c.conv is not None
                    small.append(torch.einsum("oet,te->o", f_c.conv.weight, group) + f_c.conv.bias)
                else:
                    small.append(group.mean(0) if kind == "mean" else group.max(0).values)
            del small[:-C]
            for ours, real, theirs in ((memory, m_real, rows), (compressed, c_real, small)):
                assert real[b].tolist() == [False] * (len(real[b]) - len(theirs)) + [True] * len(theirs)
                if theirs:
                    torch.testing.assert_close(ours[b, -len(theirs) :], torch.stack(theirs), **SAME)
                assert not ours[b, : len(real[b]) - len(theirs)].any()


def test_without_eviction_it_is_transformer_xl() -> None:
    """Same parameters, and a memory that holds everything: the same outputs and memory."""
    (xl,) = transformer_xl()
    ours = build(mem_len=20)
    theirs = xl.build(xl.load_config()(n_heads=2, mem_len=20), ours.dims).double().eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not missing
    assert all(name.startswith("compress.") for name in unexpected)
    x, state, hidden = tokens(18), None, []
    for piece in x.split([5, 7, 6], dim=1):
        out = theirs(piece, state=state)
        state = out.state
        hidden.append(out.hidden)
    y, mine, _ = run(ours, x, [5, 7, 6])
    torch.testing.assert_close(y, torch.cat(hidden, dim=1), **SAME)
    torch.testing.assert_close(mine["memory"], state["memory"], **SAME)
    assert not mine["compressed_valid"].any()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_distances_skip_the_gap_between_the_memories(positions: str) -> None:
    """A memory that is not full leaves pads behind the compressed rows; they must not count as positions.

    One backbone whose memory is as long as what is in it and one with room to spare, same rows: same outputs.
    """
    (short, long) = (build(mem_len=m, c_mem_len=4, n_layers=1, positions=positions) for m in (4, 7))
    table = {n: p for n, p in short.state_dict().items() if n.endswith((".R", ".S"))}
    weights = long.state_dict() | {n: p for n, p in short.state_dict().items() if n not in table}
    long.load_state_dict(weights)
    with torch.no_grad():
        for name, value in table.items():
            long.get_parameter(name)[: len(value)] = value
    x = tokens(5, seed=4)
    rows, small = tokens(4, seed=5), tokens(2, seed=6)

    def state(backbone: Backbone, mem_len: int) -> Any:
        valid, c_valid = torch.zeros(B, mem_len, dtype=torch.bool), torch.zeros(B, 4, dtype=torch.bool)
        valid[:, -4:], c_valid[:, -2:] = True, True
        return backbone.init_state(B, device="cpu", dtype=torch.float64) | {
            "memory": [F.pad(rows, (0, 0, mem_len - 4, 0))],
            "valid": valid,
            "compressed": [F.pad(small, (0, 0, 2, 0))],
            "compressed_valid": c_valid,
        }

    torch.testing.assert_close(short(x, state=state(short, 4)).hidden, long(x, state=state(long, 7)).hidden, **SAME)


@pytest.mark.parametrize("options", [{"positions": "learned"}, {"pre_lnorm": True, "final_norm": True}])
def test_steps_equal_segments(options: dict[str, Any]) -> None:
    assert_steps_equal_segments(build(max_len=4, **options))


@pytest.mark.parametrize("mode", MODES)
def test_compressed_rows_are_read(mode: str) -> None:
    backbone = build(mode)
    state = run(backbone, tokens(24), [8, 8, 8])[1]
    assert state["compressed_valid"].all()
    other = {**state, "compressed": [c + 1.0 for c in state["compressed"]]}
    x = tokens(8, seed=2)
    assert (backbone(x, state=state).hidden - backbone(x, state=other).hidden).abs().max() > 1e-3


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"pre_lnorm": True, "final_norm": True}, {"positions": "learned"}])
def test_each_loss_teaches_its_own(mode: str, options: dict[str, Any]) -> None:
    """The task never reaches f_c, and the reconstruction loss reaches nothing else, the input neither."""
    backbone = build(mode, **options)
    x = tokens(40).requires_grad_()
    y, _, aux = run(backbone, x, [8] * 5)
    named = dict(backbone.named_parameters())
    mine = [n for n in named if n.startswith("compress.")]
    rest = [n for n in named if n not in mine]
    task = torch.autograd.grad(
        y.square().sum(), [named[n] for n in named], allow_unused=True, retain_graph=True, materialize_grads=True
    )
    for name, gradient in zip(named, task, strict=True):
        assert bool(gradient.any()) == (name in rest), name
    loss = torch.autograd.grad(aux, [*named.values(), x], allow_unused=True, materialize_grads=True)
    for name, gradient in zip([*named, "x"], loss, strict=True):
        assert bool(gradient.any()) == (name in mine), name


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_pooling_has_a_loss_without_a_gradient(kind: str) -> None:
    backbone = build(compression=kind)
    _, _, aux = run(backbone, tokens(24), [8] * 3)
    assert aux > 0
    assert not aux.requires_grad


def test_reconstruction_learns() -> None:
    """Under its own loss the convolution becomes a better compression than it was."""
    backbone = build()
    optimiser = torch.optim.Adam(backbone.compress.parameters(), lr=1e-2)  # type: ignore[union-attr]
    losses = []
    for _ in range(40):
        aux = run(backbone, tokens(24), [8] * 3)[2]
        optimiser.zero_grad()
        aux.backward()
        optimiser.step()
        losses.append(aux.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_weight_of_the_loss() -> None:
    x = tokens(24)
    one, half, none = (run(build(reconstruction_weight=w), x, [8] * 3)[2] for w in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, 0.5 * one)
    assert none == 0.0
    assert one > 0.0


def test_reconstruction_ignores_pads_and_batch_mates() -> None:
    """The loss of a batch is the mean of its rows' losses, and pads change none of them."""
    backbone = build()
    lengths = (8, 5, 0)
    before = run(backbone, tokens(16, seed=3), [8, 8])[1]
    x = tokens(8)
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    together = backbone(x.masked_fill(~mask[..., None], torch.nan), mask=mask, state=before).aux["reconstruction"]
    alone = [
        backbone(x[b : b + 1, :n], state=select_rows(before, torch.tensor([b]))).aux["reconstruction"]
        for b, n in enumerate(lengths)
        if n
    ]
    torch.testing.assert_close(together, sum(alone) / B, **SAME)


def test_no_gradient_crosses_a_segments_edge() -> None:
    backbone = build()
    first, second = tokens(8).requires_grad_(), tokens(8, seed=2).requires_grad_()
    state = backbone(first).state
    out = backbone(second, state=state)
    total = out.hidden.square().sum() + out.aux["reconstruction"]
    assert not any(leaf.requires_grad for leaf in [*out.state["memory"], *out.state["compressed"]])
    g_first, g_second = torch.autograd.grad(total, [first, second], allow_unused=True)
    assert g_first is None
    assert g_second.abs().max() > 0


# -- pads, rows, causality ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"mem_len": 5, "c_mem_len": 2, "positions": "learned"}, {"mem_len": 20}])
def test_padding_changes_neither_outputs_nor_what_is_carried(mode: str, options: dict[str, Any]) -> None:
    """Rows of different length, twice in a row, so that their memories are of different age."""
    backbone = build(mode, **options)
    masks = [torch.arange(8) < torch.tensor(n)[:, None] for n in ((8, 3, 6), (2, 8, 0), (7, 7, 1))]
    masks[1] = masks[1].flip(1)
    state = None
    alone: list[Any] = [None] * B
    for s, mask in enumerate(masks):
        x = tokens(8, seed=s).masked_fill(~mask[..., None], torch.nan)
        out = backbone(x, mask=mask, state=state)
        state = out.state
        assert out.hidden.isfinite().all()
        for b in range(B):
            if mask[b].any():
                own = backbone(x[b : b + 1, mask[b]], state=alone[b])
                torch.testing.assert_close(out.hidden[b, mask[b]], own.hidden[0], **SAME)
                alone[b] = own.state
            torch.testing.assert_close(select_rows(state, torch.tensor([b])), alone[b], **SAME)


def test_causal_outputs_never_see_the_future() -> None:
    backbone = build()
    state = run(backbone, tokens(24), [8] * 3)[1]
    x = tokens(7, seed=2).requires_grad_()
    for t in range(7):
        (gradient,) = torch.autograd.grad(backbone(x, state=state).hidden[:, t].sum(), [x])
        assert gradient[:, t + 1 :].abs().sum() == 0
        assert gradient[:, : t + 1].abs().amin() > 0


def test_bidirectional_outputs_see_the_whole_segment() -> None:
    backbone = build("bidirectional")
    x = tokens(7).requires_grad_()
    (gradient,) = torch.autograd.grad(backbone(x).hidden[:, 0].sum(), [x])
    assert gradient.abs().amin() > 0


@pytest.mark.parametrize("replay", ["checkpoint"])
def test_replay_gives_the_same_losses_and_gradients_when_rows_leave_the_memory(replay: str) -> None:
    backbone = build().train()
    x, mask = tokens(40), torch.arange(40) < torch.tensor([40, 13, 26])[:, None]
    results = []
    for kind in ("none", replay):
        segments = list(drive(backbone, x, mask, None, SegmentPlan(8, activation_checkpointing=kind)))
        loss = sum((s.hidden * s.mask[..., None]).square().sum() + s.aux["reconstruction"] for s in segments)
        results.append(torch.autograd.grad(loss, list(backbone.parameters()), allow_unused=True))
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain, **SAME)


# -- the contract ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mem_len", "c_mem_len", "rows"), [(None, None, (9, 9)), (5, None, (5, 5)), (None, 2, (9, 2)), (7, 3, (7, 3))]
)
def test_state_size_and_the_fresh_state(mem_len: int | None, c_mem_len: int | None, rows: tuple[int, int]) -> None:
    backbone = build(mem_len=mem_len, c_mem_len=c_mem_len, max_len=9)
    fresh = backbone.init_state(B, device="cpu", dtype=torch.float64)
    x = tokens(9)
    out = backbone(x)
    assert elements(fresh) == elements(out.state) == backbone.state_size(9) == 2 * sum(rows) * D
    again = backbone(x, state=fresh)
    torch.testing.assert_close(again.hidden, out.hidden, **SAME)
    torch.testing.assert_close(again.state, out.state, **SAME)


def test_other_states_are_refused_by_name() -> None:
    backbone = build()
    x, state = tokens(4, batch=2), backbone(tokens(4)).state
    with pytest.raises(ValueError, match=r"batch size 3 .* batch size 2"):
        backbone(x, state=state)
    for other in (build(n_layers=1)(tokens(4)).state, [tokens(4)]):
        with pytest.raises(ValueError, match="another architecture or configuration"):
            backbone(tokens(4), state=other)
    with pytest.raises(ValueError, match=r"\(3, 5, 8\).*\(3, 6, 8\)"):
        backbone(tokens(4), state=build(mem_len=5)(tokens(4)).state)


def test_learned_distances_run_out_by_name() -> None:
    backbone = build(positions="learned")
    assert backbone(tokens(8)).hidden.isfinite().all()
    with pytest.raises(ValueError, match=r"segment of 9 tokens, .* segments of 8"):
        backbone(tokens(9))


def test_bfloat16_autocast_and_dropout() -> None:
    backbone = build(dropout=0.3, attn_dropout=0.3).float()
    x = tokens(8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        state = backbone(x, state=backbone(x).state).state
        out = backbone(x, state=state)
    assert out.hidden.isfinite().all()
    assert out.aux["reconstruction"].isfinite()
    backbone.train()
    assert not torch.equal(backbone(x).hidden, backbone(x).hidden)


@pytest.mark.parametrize(
    ("config", "dims", "key"),
    [
        ({"n_heads": 3}, {}, "arch.n_heads"),
        ({"n_heads": 0}, {}, "arch.n_heads"),
        ({"n_heads": 1}, {"d_model": 7}, "model.d_model"),
        ({"mem_len": 3}, {}, "arch.mem_len"),
        ({"c_mem_len": 0}, {}, "arch.c_mem_len"),
        ({"compression_rate": 0}, {}, "arch.compression_rate"),
        ({"compression": "median"}, {}, "arch.compression"),
        ({"positions": "rope"}, {}, "arch.positions"),
        ({"positions": "learned", "clamp_len": 5}, {}, "arch.clamp_len"),
        ({"reconstruction_weight": -1.0}, {}, "arch.reconstruction_weight"),
        ({"dropout": 1.0}, {}, "arch.dropout"),
    ],
)
def test_impossible_configurations_are_named(config: dict[str, Any], dims: dict[str, Any], key: str) -> None:
    (arch,) = zoo_architectures()
    with pytest.raises(ConfigError) as error:
        arch.build(
            CompressiveConfig(**config),
            ModelDims(**{"d_model": 8, "n_layers": 1, "mode": "causal", "max_len": 8, **dims}),
        )
    assert error.value.key == key
