"""The segment driver: splitting, alignment, pads, truncation, replay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.run import toys
from zoo import Backbone, ConfigError, Output, registry
from zoo.model.segments import Segment, SegmentPlan, drive
from zoo.nn.state import return_state
from zoo.ops.memory import real_last


def make(kind: type[Backbone], seed: int = 0, mode: str = "causal", **options: float) -> Backbone:
    torch.manual_seed(seed)
    return kind(None, toys.dims(mode=mode), **options).double()


def batch(length: int, rows: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(rows, length, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(length: int, *lengths: int) -> Tensor:
    return torch.arange(length) < torch.tensor(lengths)[:, None]


def hidden(segments: list[Segment]) -> Tensor:
    return torch.cat([s.hidden for s in segments], dim=1)


@pytest.mark.parametrize("length", [1, 3, 4, 16, 17, 40])
@pytest.mark.parametrize("align", ["left", "right"])
def test_segments_with_state_equal_one_call(length: int, align: str) -> None:
    backbone, x = make(toys.Recurrent), batch(17)
    whole = backbone(x)
    segments = list(drive(backbone, x, None, None, SegmentPlan(length, align)))
    torch.testing.assert_close(hidden(segments), whole.hidden, rtol=0, atol=0)
    torch.testing.assert_close(segments[-1].state["h"], whole.state["h"], rtol=0, atol=0)
    sizes = [s.hidden.shape[1] for s in segments]
    assert sum(sizes) == 17
    assert [s.start for s in segments] == [sum(sizes[:i]) for i in range(len(sizes))]
    if length == 4:
        assert sizes == ([4, 4, 4, 4, 1] if align == "left" else [1, 4, 4, 4, 4])


def test_no_length_is_one_call() -> None:
    backbone = make(toys.Recurrent)
    (segment,) = drive(backbone, batch(9), None, None, SegmentPlan())
    assert backbone.calls == [9]
    assert segment.start == 0
    assert set(segment.aux) == {"size"}


def test_the_state_goes_in_and_comes_out() -> None:
    backbone, x = make(toys.Recurrent), batch(12)
    first = list(drive(backbone, x[:, :5], None, None, SegmentPlan(2)))
    second = list(drive(backbone, x[:, 5:], None, first[-1].state, SegmentPlan(3)))
    torch.testing.assert_close(hidden(first + second), backbone(x).hidden, rtol=0, atol=0)


def test_whether_gradient_flows_into_an_earlier_input_is_the_callers_decision() -> None:
    state = {"h": torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)}
    first, *_ = drive(make(toys.Recurrent), batch(8), None, state, SegmentPlan(2, tbptt=1))
    (gradient,) = torch.autograd.grad(first.hidden.sum(), state["h"])
    assert gradient.any()


@pytest.mark.parametrize("kind", [toys.Recurrent, toys.SlotMemory, toys.GrowingMemory])
@pytest.mark.parametrize("align", ["left", "right"])
def test_a_ragged_batch_equals_its_rows_one_by_one(kind: type[Backbone], align: str) -> None:
    """Rows of 13, 4, 1 and 9 tokens in one batch of length 13, segments of 4: pads never enter, nor do they count."""
    backbone, x, mask = make(kind), batch(13, rows=4), ragged(13, 13, 4, 1, 9)
    plan = SegmentPlan(4, align)
    together = list(drive(backbone, x, mask, None, plan))
    after = backbone(x[:, :3], state=together[-1].state).hidden
    for row, length in enumerate([13, 4, 1, 9]):
        alone = list(drive(backbone, x[row : row + 1, :length], None, None, plan))
        masks = torch.cat([s.mask for s in together], dim=1)
        ours = hidden(together)[row][masks[row]]
        torch.testing.assert_close(ours, hidden(alone)[0], rtol=1e-12, atol=1e-14)
        alone_after = backbone(x[row : row + 1, :3], state=alone[-1].state).hidden
        torch.testing.assert_close(after[row : row + 1], alone_after, rtol=1e-12, atol=1e-14)


def test_rows_that_are_all_pad_keep_their_state_even_when_the_backbone_forgets() -> None:
    class Forgetful(toys.Recurrent):
        def forward(self, x, *, mask=None, state=None):
            return super().forward(x, mask=None, state=state)

    backbone, x, mask = make(Forgetful), batch(8, rows=2), ragged(8, 8, 4)
    segments = list(drive(backbone, x, mask, None, SegmentPlan(4)))
    torch.testing.assert_close(segments[1].state["h"][1], segments[0].state["h"][1], rtol=0, atol=0)
    assert not torch.equal(segments[1].state["h"][0], segments[0].state["h"][0])
    right = list(drive(backbone, x, mask, None, SegmentPlan(4, "right")))
    assert not right[0].state["h"][1].any()


def test_real_last_shifts_targets_like_the_input() -> None:
    mask = ragged(6, 6, 2, 0)
    ids = torch.arange(6).expand(3, 6)
    assert ids.gather(1, real_last(mask)).tolist() == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5, 0, 1], [0, 1, 2, 3, 4, 5]]
    x = batch(6)
    segments = list(drive(make(toys.Recurrent), x, mask, None, SegmentPlan(3, "right")))
    assert torch.cat([s.mask for s in segments], dim=1).tolist()[1] == [False] * 4 + [True] * 2


def test_content_of_pads_is_irrelevant() -> None:
    backbone, mask = make(toys.SlotMemory), ragged(10, 10, 3, 7)
    x = batch(10)
    noise = torch.where(mask.unsqueeze(-1), x, 1e6 * batch(10, seed=9))
    for align in ("left", "right"):
        a = list(drive(backbone, x, mask, None, SegmentPlan(4, align)))
        b = list(drive(backbone, noise, mask, None, SegmentPlan(4, align)))
        torch.testing.assert_close(a[-1].state[0], b[-1].state[0], rtol=0, atol=0)


def test_mask_of_latents() -> None:
    backbone = make(toys.Latents, mode="bidirectional")
    segments = list(drive(backbone, batch(8, rows=2), ragged(8, 8, 3), None, SegmentPlan(4)))
    assert [s.mask.tolist() for s in segments] == [
        [[True] * 3, [True] * 3],
        [[True] * 3, [False] * 3],
    ]


def test_mask_of_outputs_for_the_last_positions_only() -> None:
    class LastThree(Backbone):
        def forward(self, x, *, mask=None, state=None):
            return Output(x[:, -3:])

    backbone, mask = make(LastThree), ragged(10, 10, 3)
    segments = list(drive(backbone, batch(10, rows=2), mask, None, SegmentPlan(4)))
    assert [s.mask.tolist() for s in segments] == [
        mask[:, start:stop].tolist() for start, stop in ((1, 4), (5, 8), (8, 10))
    ]


@pytest.mark.parametrize("wrong", [lambda x: x[:, 0], lambda x: x[:1], lambda x: x[..., :3]])
def test_hidden_vectors_of_another_shape_are_refused(wrong: Callable[[Tensor], Tensor]) -> None:
    class Flat(Backbone):
        def forward(self, x, *, mask=None, state=None):
            return Output(wrong(x))

    with pytest.raises(ValueError, match=r"Flat returned hidden vectors of shape .* shape \(3, 4, 4\)"):
        list(drive(make(Flat), batch(9), None, None, SegmentPlan(4)))


@pytest.mark.parametrize("replay", ["none", "checkpoint"])
@pytest.mark.parametrize(("bptt", "reach"), [(None, 5), (1, 1), (2, 2), (3, 3), (4, 4), (9, 5)])
def test_depth_of_truncation(replay: str, bptt: int | None, reach: int) -> None:
    """The last segment's gradient reaches exactly `tbptt` segments, itself included."""
    backbone, x = make(toys.SlotMemory), batch(15).requires_grad_()
    plan = SegmentPlan(3, tbptt=bptt, activation_checkpointing=replay)
    *_, last = drive(backbone, x, None, None, plan)
    (gradient,) = torch.autograd.grad(last.hidden.sum(), x)
    touched = [bool(gradient[:, 3 * s : 3 * s + 3].any()) for s in range(5)]
    assert touched == [s >= 5 - reach for s in range(5)]
    *_, whole = drive(backbone, x, None, None, SegmentPlan(3))
    assert torch.equal(last.hidden, whole.hidden)  # the state itself is carried all the way


def gradients(backbone: Backbone, x: Tensor, mask: Tensor | None, plan: SegmentPlan) -> list[Tensor]:
    torch.manual_seed(5)
    x = x.clone().requires_grad_()
    weights = batch(x.shape[1], rows=x.shape[0], seed=3)
    loss = torch.zeros((), dtype=torch.float64)
    for s in drive(backbone, x, mask, None, plan):
        loss = loss + (s.hidden * weights[:, s.start : s.start + s.hidden.shape[1]]).sum()
        loss = loss + sum(s.aux.values()) + s.state[0 if isinstance(s.state, list) else "h"].sum()
    gradients = torch.autograd.grad(loss, [x, *backbone.parameters()])
    return [loss.detach(), *gradients]


@pytest.mark.parametrize("replay", ["checkpoint"])
@pytest.mark.parametrize("ragged_rows", [False, True])
def test_replay_equals_plain_bit_for_bit_with_dropout(replay: str, ragged_rows: bool) -> None:
    backbone = make(toys.SlotMemory, dropout=0.3).train()
    x, mask = batch(15), ragged(15, 15, 3, 8) if ragged_rows else None
    plain = gradients(backbone, x, mask, SegmentPlan(4))
    again = gradients(backbone, x, mask, SegmentPlan(4, activation_checkpointing=replay))
    for ours, theirs in zip(again, plain, strict=True):
        assert torch.equal(ours, theirs)
    quiet = gradients(backbone.eval(), x, mask, SegmentPlan(4))
    assert not torch.equal(quiet[0], plain[0])  # dropout was on


@pytest.mark.parametrize("replay", ["checkpoint"])
@pytest.mark.parametrize("bptt", [None, 2])
def test_replay_of_parameters_that_are_used_many_times(replay: str, bptt: int | None) -> None:
    """Sums in another order: equal but for rounding."""
    backbone = make(toys.Recurrent, dropout=0.2).train()
    plain = gradients(backbone, batch(13), None, SegmentPlan(4, tbptt=bptt))
    again = gradients(backbone, batch(13), None, SegmentPlan(4, tbptt=bptt, activation_checkpointing=replay))
    assert torch.equal(plain[0], again[0])
    for ours, theirs in zip(again, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)


def test_replay_leaves_the_random_state_as_plain_does() -> None:
    after = []
    for replay in ("none", "checkpoint"):
        gradients(make(toys.SlotMemory, dropout=0.3), batch(8), None, SegmentPlan(4, activation_checkpointing=replay))
        after.append(torch.rand(3))
    assert torch.equal(after[0], after[1])


def test_replay_repeats_autocast() -> None:
    # without the cache of cast weights, through which plain sums the segments' gradients in bfloat16
    torch.manual_seed(0)
    backbone = toys.SlotMemory(None, toys.dims())
    gradients = []
    for replay in ("none", "checkpoint"):
        x = batch(12).float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            loss = sum(
                s.hidden.float().sum()
                for s in drive(backbone, x, None, None, SegmentPlan(4, activation_checkpointing=replay))
            )
        gradients.append(torch.autograd.grad(loss, [x, *backbone.parameters()]))  # outside of autocast
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_replay_of_a_memory_without_gradient() -> None:
    backbone, x = make(toys.GrowingMemory), batch(14)
    gradients = []
    for replay in ("none", "checkpoint"):
        leaf = x.clone().requires_grad_()
        loss = sum(
            s.hidden.square().sum()
            for s in drive(backbone, leaf, None, None, SegmentPlan(4, activation_checkpointing=replay))
        )
        gradients.append(torch.autograd.grad(loss, [leaf, *backbone.parameters()]))
    for other in gradients[1:]:
        for ours, theirs in zip(other, gradients[0], strict=True):
            assert torch.equal(ours, theirs)


def saved_bytes(replay: str, length: int, d_model: int = 16) -> int:
    """Bytes that autograd keeps between forward and backward, besides parameters and the input."""

    class Deep(toys.SlotMemory):
        def __init__(self, config: object, shape: object) -> None:
            super().__init__(config, shape)
            self.body = nn.Sequential(*(nn.Sequential(nn.Linear(d_model, d_model), nn.Tanh()) for _ in range(8)))

        def forward(self, x, *, mask=None, state=None):
            return super().forward(self.body(x), mask=mask, state=state)

    torch.manual_seed(0)
    backbone = Deep(None, toys.dims(d_model=d_model))
    x = torch.randn(2, length, d_model)
    known = {p.untyped_storage().data_ptr() for p in [*backbone.parameters(), x]}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    loss = torch.zeros(())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        for s in drive(backbone, x, None, None, SegmentPlan(8, activation_checkpointing=replay)):
            loss = loss + s.hidden.sum()
    loss.backward()
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def test_checkpointing_keeps_no_activations() -> None:
    """Per further segment: the state (2 slots) and its mask, where plain keeps nine layers of activations."""
    per_segment = {r: (saved_bytes(r, 80) - saved_bytes(r, 40)) / 5 for r in ("none", "checkpoint")}
    state = 2 * 2 * 16 * 4 + 2 * 2
    assert per_segment["checkpoint"] <= state + 2 * 2
    assert per_segment["none"] > 9 * 2 * 8 * 16 * 4


def test_no_graph_when_none_is_wanted() -> None:
    backbone = make(toys.SlotMemory)
    with torch.no_grad():
        for replay in ("none", "checkpoint"):
            for s in drive(backbone, batch(8), None, None, SegmentPlan(4, activation_checkpointing=replay)):
                assert not s.hidden.requires_grad


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"length": 0}, "segments.length"),
        ({"length": 4, "tbptt": 0}, "segments.tbptt"),
        ({"align": "centre"}, "segments.align"),
        ({"activation_checkpointing": "tape"}, "segments.activation_checkpointing"),
    ],
)
def test_impossible_plans(wrong: dict, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SegmentPlan(**wrong)
    assert caught.value.key == key


@pytest.mark.parametrize("architecture", ["h3", "mega", "retnet", "s4"])
def test_a_state_that_nobody_wants_is_not_computed(architecture: str) -> None:
    """It is work of its own in these architectures; the outputs alone are less."""
    backbone = registry().architecture(architecture).record.build(d_model=8, n_layers=1, mode="causal", max_len=64)
    x, flops = torch.randn(2, 64, 8), {}
    for wanted in (True, False):
        with return_state(wanted), FlopCounterMode(display=False) as counter:
            *_, last = drive(backbone, x, None, None, SegmentPlan())
        assert (last.state is not None) is wanted
        flops[wanted] = counter.get_total_flops()
    assert flops[False] < flops[True]
