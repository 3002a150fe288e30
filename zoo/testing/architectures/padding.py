"""Checks that pads, whatever they hold and however many there are, change nothing at real tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import select_rows
from zoo.testing import expect
from zoo.testing.architectures.subject import FORWARD, SEGMENT, STATEFUL, ArchitectureSubject, positions
from zoo.testing.check import check
from zoo.testing.tensors import noise_like, relative_size, right_padded

PADDED = ((16, (16, 15, 9, 1)), (33, (33, 7, 16, 32)))
"""Padded lengths, and the number of real tokens of each row."""


def padded_batches(subject: ArchitectureSubject, backbone: Backbone) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches as (x, mask, x with other and larger pads)."""
    for seq_len, lengths in PADDED:
        x, mask = subject.random_input(backbone, seq_len, batch=4), right_padded(seq_len, lengths)
        loud = 50 * subject.random_input(backbone, seq_len, batch=4, seed=8)
        yield x, mask, torch.where(mask.unsqueeze(-1), x, loud)


def real_outputs(backbone: Backbone, out: Output, row: int, seq_len: int, length: int) -> dict[int, Tensor]:
    """Hidden vectors (D,) of one row at its `length` real tokens by position; latents by their index."""
    its_positions = positions(backbone, out.hidden.shape[1], seq_len)
    if its_positions is None:
        return dict(enumerate(out.hidden[row]))
    return {p: hidden for p, hidden in zip(its_positions, out.hidden[row], strict=True) if p < length}


@check(FORWARD)
def padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """Right padding leaves the outputs at real tokens as they are without it."""
    backbone = subject.build_float64()
    for x, mask, _ in padded_batches(subject, backbone):
        seq_len, padded = x.shape[1], backbone(x, mask=mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            ours = real_outputs(backbone, padded, row, seq_len, length)
            theirs = real_outputs(backbone, backbone(x[row : row + 1, :length]), 0, length, length)
            where = f"{length} tokens padded to {seq_len}"
            if positions(backbone, padded.hidden.shape[1], seq_len) is None:
                assert len(ours) == len(theirs), f"{where}: {len(ours)} latents, {len(theirs)} without padding"
            common = sorted(ours.keys() & theirs.keys())
            assert common or not ours, f"{where}: no position has an output with and without padding"
            if common:
                a, b = (torch.stack([outputs[p] for p in common]) for outputs in (ours, theirs))
                expect.close(a, b, expect.SAME, f"{where}: outputs with and without padding")


@check(FORWARD)
def content_of_pads_is_irrelevant(subject: ArchitectureSubject) -> None:
    """Outputs at real tokens, and their gradients, do not depend on the contents of pads."""
    backbone = subject.build_float64()
    for x, mask, loud in padded_batches(subject, backbone):
        seq_len, lengths = x.shape[1], mask.sum(1).tolist()

        def at_real_tokens(x: Tensor, mask: Tensor = mask, lengths: list[int] = lengths) -> Tensor:
            out = backbone(x, mask=mask)
            rows = [real_outputs(backbone, out, r, x.shape[1], n).values() for r, n in enumerate(lengths)]
            return torch.stack([hidden for row in rows for hidden in row])

        where = f"rows of {lengths} tokens padded to {seq_len}"
        expect.close(at_real_tokens(loud), at_real_tokens(x), expect.SAME, f"{where}: outputs for other pads")
        leaf = x.clone().requires_grad_()
        real = at_real_tokens(leaf)
        (gradient,) = torch.autograd.grad((real.flatten() * noise_like(real.flatten())).sum(), leaf)
        leak = relative_size(gradient[~mask], gradient[mask])
        assert leak < expect.SAME, f"{where}: real outputs have a gradient from pads ({leak:.3g}, relative)"


@check(FORWARD)
def all_true_mask_equals_no_mask(subject: ArchitectureSubject) -> None:
    """A mask without pads gives the outputs that no mask gives."""
    backbone = subject.build_float64()
    x = subject.random_input(backbone, 33)
    masked = backbone(x, mask=torch.ones(2, 33, dtype=torch.bool)).hidden
    expect.close(masked, backbone(x).hidden, expect.SAME, "outputs with a mask of all True and with none")


@check(FORWARD)
def fully_masked_row_is_finite(subject: ArchitectureSubject) -> None:
    """A row of pads only gives finite outputs and gradients, and does not change the other rows."""
    backbone = subject.build_float64()
    for length in (1, 16, 33):
        x = subject.random_input(backbone, length, batch=3).requires_grad_()
        mask = right_padded(length, (length, 0, length))
        hidden = backbone(x, mask=mask).hidden
        where = f"length {length}, one row fully masked"
        expect.finite(hidden, f"{where}: outputs")
        expect.close(hidden[::2], backbone(x[::2]).hidden, expect.SAME, f"{where}: the outputs of the other rows")
        # rows of pads enter a loss with weight zero, which an infinite slope would turn into NaN
        backbone.zero_grad()
        (hidden * noise_like(hidden) * mask.any(1)[:, None, None]).sum().backward()
        expect.finite_gradients(backbone, x, where)


def next_outputs(
    subject: ArchitectureSubject, backbone: Backbone, state: State, rows: slice = slice(4), chunks: int = 2
) -> Tensor:
    """Hidden vectors of the next one or two chunks from `state`: what a state does, whatever it holds."""
    hidden = []
    for length, seed in ((9, 6), (16, 7))[:chunks]:
        out = backbone(subject.random_input(backbone, length, batch=4, seed=seed)[rows], state=state)
        hidden.append(out.hidden)
        state = out.state
    return torch.cat(hidden, dim=1)


def start_states(subject: ArchitectureSubject, backbone: Backbone) -> dict[str, State]:
    """A fresh and a carried state of four rows."""
    return {"fresh": None, "carried": backbone(subject.random_input(backbone, 20, batch=4, seed=9)).state}


@check(STATEFUL)
def pads_do_not_enter_the_state(subject: ArchitectureSubject) -> None:
    """After padded rows the next chunks give what they give after the same rows without pads."""
    backbone = subject.build_float64()
    for which, start in start_states(subject, backbone).items():
        for x, mask, loud in padded_batches(subject, backbone):
            padded = next_outputs(subject, backbone, backbone(loud, mask=mask, state=start).state)
            for row, length in enumerate(mask.sum(1).tolist()):
                own = None if start is None else select_rows(start, torch.tensor([row]))
                state = backbone(x[row : row + 1, :length], state=own).state
                alone = next_outputs(subject, backbone, state, slice(row, row + 1))
                where = f"{which} state, then {length} tokens padded to {x.shape[1]}"
                expect.close(padded[row], alone[0], expect.SAME, f"{where}: outputs of the next chunks")


@check(STATEFUL)
def fully_masked_row_keeps_its_state(subject: ArchitectureSubject) -> None:
    """A row of pads only keeps its state, as the outputs of the next chunks show."""
    backbone = subject.build_float64()
    for which, start in start_states(subject, backbone).items():
        mask = right_padded(16, (16, 0, 5, 0))
        after = backbone(subject.random_input(backbone, 16, batch=4), mask=mask, state=start).state
        ours, theirs = next_outputs(subject, backbone, after), next_outputs(subject, backbone, start)
        message = f"{which} state: outputs with and without a chunk of pads before"
        expect.close(ours[1::2], theirs[1::2], expect.SAME, message)


@check(SEGMENT)
def left_padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """A first segment with its pads in front (`align="right"`) gives what its real tokens give alone."""
    backbone = subject.build_float64()
    seq_len, lengths = 16, (16, 15, 9, 1)
    x, mask = subject.random_input(backbone, seq_len, batch=4), right_padded(seq_len, lengths).flip(1)
    out = backbone(x, mask=mask)
    after = next_outputs(subject, backbone, out.state)
    for row, length in enumerate(lengths):
        alone = backbone(x[row : row + 1, seq_len - length :])
        where = f"{length} tokens behind {seq_len - length} pads"
        expect.close(out.hidden[row, seq_len - length :], alone.hidden[0], expect.SAME, f"{where}: outputs")
        expected = next_outputs(subject, backbone, alone.state, slice(row, row + 1), chunks=1)[0]
        expect.close(after[row, :9], expected, expect.SAME, f"{where}: outputs of the next segment")
