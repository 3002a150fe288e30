"""Pads: whatever they hold, and however many there are, nothing at real tokens changes."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import select_rows
from zoo.testing.check import SAME, Check, check, has_state, require_finite, require_same
from zoo.testing.subject import Subject, noise_like, positions, ragged

PADDED = ((16, (16, 15, 9, 1)), (33, (33, 7, 16, 32)))


def real_part(backbone: Backbone, out: Output, row: int, seq_len: int, length: int) -> tuple[list[int] | None, Tensor]:
    """(real positions, their hidden vectors) of one row with `length` real tokens; latents come whole."""
    stands_for = positions(backbone, out.hidden.shape[1], seq_len)
    if stands_for is None:
        return None, out.hidden[row]
    real = [i for i, position in enumerate(stands_for) if position < length]
    return [stands_for[i] for i in real], out.hidden[row, real]


def require_same_row(
    backbone: Backbone, padded: Output, row: int, seq_len: int, alone: Output, length: int, message: str
) -> None:
    """One row of a padded batch against the row without pads, at the positions that both have."""
    ours_at, ours = real_part(backbone, padded, row, seq_len, length)
    theirs_at, theirs = real_part(backbone, alone, 0, length, length)
    if ours_at is not None and theirs_at is not None and ours_at != theirs_at:
        common = [p for p in ours_at if p in theirs_at]
        ours = ours[[ours_at.index(p) for p in common]]
        theirs = theirs[[theirs_at.index(p) for p in common]]
    require_same(ours, theirs, SAME, message)


@check()
def padding_changes_nothing(subject: Subject) -> None:
    """Right padding leaves the outputs at real tokens as they are without it."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        for seq_len, lengths in PADDED:
            x, mask = subject.input(backbone, seq_len, batch=4), ragged(seq_len, lengths)
            padded = backbone(x, mask=mask)
            for row, length in enumerate(lengths):
                alone = backbone(x[row : row + 1, :length])
                message = f"{mode}: {length} tokens padded to {seq_len}"
                require_same_row(backbone, padded, row, seq_len, alone, length, message)


@check()
def content_of_pads_is_irrelevant(subject: Subject) -> None:
    """Outputs at real tokens, and their gradients, do not depend on what the pads hold."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        for seq_len, lengths in PADDED:
            x, mask = subject.input(backbone, seq_len, batch=4), ragged(seq_len, lengths)
            other = torch.where(mask.unsqueeze(-1), x, 50 * subject.input(backbone, seq_len, batch=4, seed=8))
            first, second = backbone(x, mask=mask), backbone(other, mask=mask)
            for row, length in enumerate(lengths):
                where = f"{mode}: {length} tokens padded to {seq_len}"
                ours, theirs = (real_part(backbone, o, row, seq_len, length)[1] for o in (second, first))
                require_same(ours, theirs, SAME, f"{where}: outputs change with what the pads hold")
            leaf = x.clone().requires_grad_()
            out = backbone(leaf, mask=mask)
            real = torch.cat([real_part(backbone, out, r, seq_len, n)[1].flatten() for r, n in enumerate(lengths)])
            (gradient,) = torch.autograd.grad((real * noise_like(real)).sum(), leaf)
            leak = gradient[~mask].abs().max().item() / gradient[mask].abs().max().item()
            assert leak < SAME, f"{mode}, length {seq_len}: real outputs have a gradient from pads ({leak:.3g})"


@check()
def mask_of_all_true_is_no_mask(subject: Subject) -> None:
    """A mask without a pad gives what no mask gives."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        x = subject.input(backbone, 33)
        masked = backbone(x, mask=torch.ones(2, 33, dtype=torch.bool)).hidden
        require_same(masked, backbone(x).hidden, SAME, f"{mode}: a mask of all True")


@check()
def fully_masked_row_is_finite(subject: Subject) -> None:
    """A row of pads only gives finite outputs and gradients, and does not disturb its neighbours."""
    for mode in subject.modes:
        backbone = subject.probe(mode)
        for length in (1, 16, 33):
            x = subject.input(backbone, length, batch=3).requires_grad_()
            mask = ragged(length, (length, 0, length))
            out = backbone(x, mask=mask)
            where = f"{mode}, length {length}: a fully masked row"
            require_finite(out.hidden, f"{where}: outputs")
            message = f"{where} changes its neighbour"
            require_same(out.hidden[::2], backbone(x[::2]).hidden, SAME, message)
            # rows of pads enter a loss only weighted by zero; an infinite slope would make that a NaN
            backbone.zero_grad()
            (out.hidden * noise_like(out.hidden) * mask.any(1)[:, None, None]).sum().backward()
            for name, leaf in [("x", x), *backbone.named_parameters()]:
                if leaf.grad is not None:
                    require_finite(leaf.grad, f"{where}: gradient of {name}")


def next_outputs(subject: Subject, backbone: Backbone, state: State, rows: int) -> Tensor:
    """What a state does: the outputs of the next chunk, and of the one after it."""
    first = backbone(subject.input(backbone, 9, batch=4, seed=6)[:rows], state=state)
    second = backbone(subject.input(backbone, 16, batch=4, seed=7)[:rows], state=first.state)
    return torch.cat([first.hidden, second.hidden], dim=1)


@check(has_state, "no state")
def pads_do_not_enter_the_state(subject: Subject) -> None:
    """The state after padded rows does to the next chunks what the state after the same rows without pads does."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        earlier = backbone(subject.input(backbone, 20, batch=4, seed=9)).state
        for seq_len, lengths in PADDED:
            for before, start in (("fresh", None), ("carried", earlier)):
                x = subject.input(backbone, seq_len, batch=4)
                mask = ragged(seq_len, lengths)
                other = torch.where(mask.unsqueeze(-1), x, 50 * subject.input(backbone, seq_len, batch=4, seed=8))
                padded = next_outputs(subject, backbone, backbone(other, mask=mask, state=start).state, 4)
                for row, length in enumerate(lengths):
                    own = None if start is None else select_rows(start, torch.tensor([row]))
                    state = backbone(x[row : row + 1, :length], state=own).state
                    reference = [
                        subject.input(backbone, n, batch=4, seed=seed)[row : row + 1] for n, seed in ((9, 6), (16, 7))
                    ]
                    first = backbone(reference[0], state=state)
                    second = backbone(reference[1], state=first.state)
                    alone = torch.cat([first.hidden, second.hidden], dim=1)[0]
                    message = f"{mode}, {before} state: next chunks after {length} tokens padded to {seq_len}"
                    require_same(padded[row], alone, SAME, message)


@check(has_state, "no state")
def fully_masked_row_keeps_its_state(subject: Subject) -> None:
    """A row of pads only leaves its state as it was, by what it does to the next chunks; a fresh one stays fresh."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        carried = backbone(subject.input(backbone, 20, batch=4, seed=9)).state
        for before, start in (("fresh", None), ("carried", carried)):
            mask = ragged(16, (16, 0, 5, 0))
            after = backbone(subject.input(backbone, 16, batch=4), mask=mask, state=start).state
            ours = next_outputs(subject, backbone, after, 4)
            theirs = next_outputs(subject, backbone, start, 4)
            for row in (1, 3):
                message = f"{mode}: a {before} state after a segment of pads only"
                require_same(ours[row], theirs[row], SAME, message)


@check(lambda c: c.segment, "not fed by segments")
def left_padding_changes_nothing(subject: Subject) -> None:
    """A first segment whose pads come first (`align="right"`) gives at its real tokens what they give alone."""
    for mode in subject.state_modes:
        backbone = subject.probe(mode)
        seq_len, lengths = 16, (16, 15, 9, 1)
        x, mask = subject.input(backbone, seq_len, batch=4), ragged(seq_len, lengths).flip(1)
        out = backbone(x, mask=mask)
        after = next_outputs(subject, backbone, out.state, 4)
        for row, length in enumerate(lengths):
            alone = backbone(x[row : row + 1, seq_len - length :])
            message = f"{mode}: {length} tokens behind {seq_len - length} pads"
            require_same(out.hidden[row, seq_len - length :], alone.hidden[0], SAME, message)
            first = backbone(subject.input(backbone, 9, batch=4, seed=6)[row : row + 1], state=alone.state)
            require_same(after[row, :9], first.hidden[0], SAME, f"{message}: the next segment")


CHECKS: tuple[Check, ...] = (
    padding_changes_nothing,
    content_of_pads_is_irrelevant,
    mask_of_all_true_is_no_mask,
    fully_masked_row_is_finite,
    pads_do_not_enter_the_state,
    fully_masked_row_keeps_its_state,
    left_padding_changes_nothing,
)
