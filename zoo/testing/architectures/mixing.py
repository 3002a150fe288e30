"""Checks that no information passes between batch rows, from later inputs to earlier outputs, or out of pads."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, State
from zoo.nn.state import leaves, map_state, reset_rows, select_rows
from zoo.testing import expect
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, has_positions, random_input, random_inputs, run
from zoo.testing.expect import relative_size, right_padded, weighted_sum

NO_GRADIENT = 1e-12
"""Relative float64 gradient that counts as none: rounding in an FFT, nothing else."""


@check(scopes.FORWARD)
@check(scopes.SEQ2SEQ, "decode_rows_do_not_mix")
def rows_do_not_mix(subject: ArchitectureSubject) -> None:
    """No row's output has a gradient from another row's input, and a row alone gives what it gives in a batch."""
    backbone = subject.build_float64()
    for length in (7, 33):
        inputs = [x.requires_grad_() for x in random_inputs(backbone, length, batch=3)]
        hidden = run(backbone, *inputs).hidden
        for row in range(3):
            where, others = f"length {length}, row {row}", [r for r in range(3) if r != row]
            gradients = torch.autograd.grad(weighted_sum(hidden[row]), inputs, retain_graph=True)
            for name, gradient in zip("xy", gradients, strict=False):
                leak = relative_size(gradient[others], gradient)
                assert leak == 0, f"{where}: a gradient from {name} of other rows ({leak:.3g}, relative)"
            alone = run(backbone, *(x[row : row + 1] for x in inputs)).hidden[0]
            expect.close(alone, hidden[row], expect.SAME, f"{where}: outputs alone and in the batch")


@check(scopes.STATEFUL)
def rows_of_the_state_do_not_mix(subject: ArchitectureSubject) -> None:
    """Rows can be reordered and selected together with their state: outputs and new state follow."""
    backbone = subject.build_float64()
    state = backbone(random_input(backbone, 33, batch=3)).state
    x = random_input(backbone, 16, batch=3, seed=1)
    out = backbone(x, state=state)
    for what, index in (("reordered", torch.tensor([2, 0, 1])), ("selected", torch.tensor([2]))):
        moved = backbone(x[index], state=select_rows(state, index))
        expect.close(moved.hidden, out.hidden[index], expect.SAME, f"outputs of {what} rows")
        expect.states_close(moved.state, select_rows(out.state, index), expect.SAME, f"states of {what} rows")
    trainable = map_state(lambda t: t.detach().requires_grad_(t.is_floating_point() or t.is_complex()), state)
    hidden = backbone(x, state=trainable).hidden
    inputs = [leaf for leaf in leaves(trainable) if leaf.requires_grad]
    for gradient in torch.autograd.grad(hidden[0].sum(), inputs, materialize_grads=True):
        assert not gradient[1:].any(), "row 0 has a gradient from the state of another row"


@check(scopes.CAUSAL)
@check(scopes.DECODER, "decode_is_causal")
def causal(subject: ArchitectureSubject) -> None:
    """In causal mode no output depends on later inputs."""
    backbone = subject.build_float64(max_len=130)
    for length in (2, 16, 33, 130):  # 130: longer than the usual block or chunk of 64 or 128
        assert_causal(backbone, length, None, f"length {length}")


@check(scopes.CAUSAL_STATEFUL)
def causal_with_state(subject: ArchitectureSubject) -> None:
    """In causal mode no output depends on later inputs when a state is carried in."""
    backbone = subject.build_float64(max_len=130)
    for before, length in ((1, 2), (7, 16), (33, 33), (20, 130)):
        state = backbone(random_input(backbone, before, seed=5)).state
        assert_causal(backbone, length, state, f"length {length} after {before}")


def assert_causal(backbone: Backbone, length: int, state: State, where: str) -> None:
    """Assert that outputs depend neither by gradient nor by value on inputs after their position."""
    x, other = (random_input(backbone, length, seed=seed) for seed in (3, 4))
    hidden = backbone(x.requires_grad_(), state=state).hidden
    for cut in sorted({1, 2, length // 3 + 1, length // 2 + 1, 64, 65, length - 1}):
        past = slice(0, max(cut - length + hidden.shape[1], 0))  # there may be outputs for the last positions only
        if cut >= length or not past.stop:
            continue
        what = f"{where}: outputs for the first {cut} positions"
        changed = backbone(torch.cat([x[:, :cut], other[:, cut:]], dim=1), state=state).hidden
        expect.close(changed[:, past], hidden[:, past], NO_GRADIENT, f"{what} for different later inputs")
        (gradient,) = torch.autograd.grad(weighted_sum(hidden[:, past]), x, retain_graph=True)
        leak = relative_size(gradient[:, cut:], gradient)
        assert leak < NO_GRADIENT, f"{what} have a gradient from later inputs ({leak:.3g}, relative)"


@check(scopes.BIDIRECTIONAL)
def bidirectional_sees_both_ways(subject: ArchitectureSubject) -> None:
    """In bidirectional mode outputs depend on earlier and on later inputs."""
    backbone = subject.build_float64()
    x = random_input(backbone, 33).requires_grad_()
    hidden = backbone(x).hidden
    (gradient,) = torch.autograd.grad(weighted_sum(hidden[:, hidden.shape[1] // 2]), x)
    assert gradient[:, :16].any(), "the middle output does not depend on earlier inputs"
    assert gradient[:, 17:].any(), "the middle output does not depend on later inputs"


# -- pads ----------------------------------------------------------------------------------------------------------


def padded_batches(backbone: Backbone) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches as (x, mask, x with other and larger pads)."""
    for seq_len, lengths in ((16, (16, 15, 9, 1)), (33, (33, 7, 16, 32))):
        x, mask = random_input(backbone, seq_len, batch=4), right_padded(seq_len, lengths)
        loud = 50 * random_input(backbone, seq_len, batch=4, seed=8)
        yield x, mask, torch.where(mask.unsqueeze(-1), x, loud)


@check(scopes.PADDED)
def padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """Right padding leaves the outputs at real tokens as they are without it."""
    backbone = subject.build_float64()
    for x, mask, _ in padded_batches(backbone):
        padded, seq_len = backbone(x, mask=mask).hidden, x.shape[1]
        for row, length in enumerate(mask.sum(1).tolist()):
            ours, theirs = padded[row], backbone(x[row : row + 1, :length]).hidden[0]
            if has_positions(backbone, padded.shape[1], seq_len):
                # compare the last real tokens: a backbone may have outputs for the last positions only
                ours = ours[: max(len(ours) - (seq_len - length), 0)]
                common = min(len(ours), len(theirs))
                ours, theirs = ours[len(ours) - common :], theirs[len(theirs) - common :]
            what = f"outputs of {length} tokens, padded to {seq_len} and without padding,"
            expect.close(ours, theirs, expect.SAME, what)


@check(scopes.PADDED)
def content_of_pads_is_irrelevant(subject: ArchitectureSubject) -> None:
    """Outputs at real tokens, and their gradients, do not depend on the contents of pads."""
    backbone = subject.build_float64()
    for x, mask, loud in padded_batches(backbone):
        hidden, for_other_pads = backbone(x.requires_grad_(), mask=mask).hidden, backbone(loud, mask=mask).hidden
        out_len = hidden.shape[1]
        by_token = has_positions(backbone, out_len, x.shape[1])
        real = mask[:, -out_len:] if by_token else torch.ones(hidden.shape[:2], dtype=torch.bool)
        where = f"rows of {mask.sum(1).tolist()} tokens padded to {x.shape[1]}"
        ours, theirs = (torch.where(real[..., None], h, 0) for h in (for_other_pads, hidden))
        expect.close(ours, theirs, expect.SAME, f"{where}: outputs for other pads")
        (gradient,) = torch.autograd.grad(weighted_sum(hidden[real]), x)
        leak = relative_size(gradient[~mask], gradient[mask])
        assert leak < expect.SAME, f"{where}: real outputs have a gradient from pads ({leak:.3g}, relative)"


@check(scopes.PADDED)
def all_true_mask_equals_no_mask(subject: ArchitectureSubject) -> None:
    """A mask without pads gives the outputs that no mask gives."""
    backbone = subject.build_float64()
    x = random_input(backbone, 33)
    masked = backbone(x, mask=torch.ones(2, 33, dtype=torch.bool)).hidden
    expect.close(masked, backbone(x).hidden, expect.SAME, "outputs with a mask of all True and with none")


@check(scopes.PADDED)
@check(scopes.SEQ2SEQ, "fully_masked_source_is_finite")
def fully_masked_row_is_finite(subject: ArchitectureSubject) -> None:
    """A row of pads only gives finite outputs and gradients, and does not change the other rows."""
    backbone = subject.build_float64()
    for length in (1, 16, 33):
        x, *y = (tensor.requires_grad_() for tensor in random_inputs(backbone, length, batch=3))
        hidden = run(backbone, x, *y, mask=right_padded(length, (length, 0, length))).hidden
        where = f"length {length}, one row fully masked"
        expect.finite(hidden, f"{where}: outputs")
        others = run(backbone, x[::2], *(tensor[::2] for tensor in y)).hidden
        expect.close(hidden[::2], others, expect.SAME, f"{where}: the outputs of the other rows")
        backbone.zero_grad()
        weighted_sum(hidden).backward()
        expect.finite_gradients(backbone, x, where)


def next_outputs(backbone: Backbone, state: State, rows: slice = slice(4), chunks: int = 2) -> Tensor:
    """Hidden vectors of the next one or two chunks from `state`: what a state does, whatever it holds."""
    hidden = []
    for length, seed in ((9, 6), (16, 7))[:chunks]:
        out = backbone(random_input(backbone, length, batch=4, seed=seed)[rows], state=state)
        hidden.append(out.hidden)
        state = out.state
    return torch.cat(hidden, dim=1)


def start_states(backbone: Backbone) -> dict[str, State]:
    """A fresh and a carried state of four rows."""
    return {"fresh": None, "carried": backbone(random_input(backbone, 20, batch=4, seed=9)).state}


@check(scopes.STATEFUL)
def pads_do_not_enter_the_state(subject: ArchitectureSubject) -> None:
    """After padded rows the next chunks give what they give after the same rows without pads."""
    backbone = subject.build_float64()
    for which, start in start_states(backbone).items():
        for x, mask, loud in padded_batches(backbone):
            padded = next_outputs(backbone, backbone(loud, mask=mask, state=start).state)
            for row, length in enumerate(mask.sum(1).tolist()):
                own = None if start is None else select_rows(start, torch.tensor([row]))
                state = backbone(x[row : row + 1, :length], state=own).state
                alone = next_outputs(backbone, state, slice(row, row + 1))
                where = f"{which} state, then {length} tokens padded to {x.shape[1]}"
                expect.close(padded[row], alone[0], expect.SAME, f"{where}: outputs of the next chunks")


@check(scopes.STATEFUL)
def fully_masked_row_keeps_its_state(subject: ArchitectureSubject) -> None:
    """A row of pads only keeps its state, as the outputs of the next chunks show."""
    backbone = subject.build_float64()
    for which, start in start_states(backbone).items():
        mask = right_padded(16, (16, 0, 5, 0))
        after = backbone(random_input(backbone, 16, batch=4), mask=mask, state=start).state
        ours, theirs = next_outputs(backbone, after), next_outputs(backbone, start)
        message = f"{which} state: outputs with and without a chunk of pads before"
        expect.close(ours[1::2], theirs[1::2], expect.SAME, message)


@check(scopes.PADDED)
def left_padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """Pads in front of a row or between its tokens change neither its outputs nor its state."""
    backbone = subject.build_float64()
    x, right = random_input(backbone, 16, batch=4), right_padded(16, (16, 15, 9, 1))
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(0), device="cpu")
    for where, mask in {"in front": right.flip(1), "between tokens": right[:, shuffled]}.items():
        out = backbone(x, mask=mask)
        after = next_outputs(backbone, out.state) if subject.stateful else None
        for row, real in enumerate(mask):
            alone, ours = backbone(x[row : row + 1, real]), out.hidden[row]
            theirs, what = alone.hidden[0], f"a row of {int(real.sum())} tokens with pads {where}"
            if has_positions(backbone, len(ours), 16):  # there may be outputs for the last positions only
                ours = ours[real[16 - len(ours) :]]
                theirs = theirs[len(theirs) - len(ours) :]
            expect.close(ours, theirs, expect.SAME, f"{what}: outputs")
            if after is not None:
                expected = next_outputs(backbone, alone.state, slice(row, row + 1))[0]
                expect.close(after[row], expected, expect.SAME, f"{what}: outputs of the next chunks")


@check(scopes.PADDED)
@check(scopes.SEQ2SEQ, "nan_in_pads_of_the_source_reaches_nothing")
def nan_in_pads_reaches_nothing(subject: ArchitectureSubject) -> None:
    """NaN and inf at pads give the outputs, state and gradients, in training too, that zeros at pads give."""
    backbone = subject.build_float64().train()
    x, *y = random_inputs(backbone, 16, batch=4)
    for mask in (right_padded(16, (16, 15, 9, 1)), right_padded(16, (16, 15, 9, 0)).flip(1)):
        expected: dict[str, Tensor] = {}
        for value in (0.0, torch.nan, torch.inf):
            inputs = [x.masked_fill(~mask[..., None], value), *(tensor.clone() for tensor in y)]
            tensors = {"x": inputs[0].requires_grad_(), **dict(backbone.named_parameters())}
            torch.manual_seed(0)
            out = run(backbone, *inputs, mask=mask)
            hidden, positions = out.hidden, not y and has_positions(backbone, out.hidden.shape[1], 16)
            outputs = hidden[mask[:, -hidden.shape[1] :]] if positions else hidden
            if subject.stateful:
                outputs = torch.cat([outputs.flatten(0, -2), next_outputs(backbone, out.state).flatten(0, 1)])
            loss = weighted_sum(outputs) + sum(out.aux.values())
            trainable = {name: tensor for name, tensor in tensors.items() if tensor.requires_grad}
            gradients = torch.autograd.grad(loss, list(trainable.values()), materialize_grads=True)
            ours = {
                "outputs": outputs,
                **{f"gradient of {name}": g for name, g in zip(trainable, gradients, strict=True)},
            }
            expected = expected or ours
            for what, tensor in ours.items():
                expect.close(tensor, expected[what], expect.SAME, f"{value} at pads: {what}")


@check(scopes.STATEFUL)
@check(scopes.STATEFUL_DECODER, "reset_rows_of_the_decoder_begin_anew")
def reset_rows_begin_anew(subject: ArchitectureSubject) -> None:
    """Rows of a carried state that `reset_rows` resets go on as from the beginning, and the others as they would."""
    backbone = subject.build_float64()
    fresh = backbone.init_state(4, device="cpu", dtype=torch.float64)
    rows = torch.tensor([True, False, True, False])
    carried = backbone(random_input(backbone, 20, batch=4, seed=9), mask=right_padded(20, (20, 13, 5, 20))).state
    ours = next_outputs(backbone, reset_rows(carried, rows, fresh))
    for which, state, chosen in (("reset", None, rows), ("other", carried, ~rows)):
        theirs = next_outputs(backbone, state)
        expect.close(ours[chosen], theirs[chosen], expect.EQUIVALENT, f"{which} rows: outputs of the next chunks")
