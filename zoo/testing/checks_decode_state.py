"""Encoder-decoders: what `decode` carries from call to call, and what it refuses. Names as in `checks_decode`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import batch_size, describe, elements, leaves, select_rows
from zoo.testing.check import AGREE, SAME, Check, NotDeclared, require_same, require_same_state
from zoo.testing.checks_decode import examples, memory_of, seq2seq
from zoo.testing.checks_state import PIECES, require_refused
from zoo.testing.subject import Subject, noise_like, ragged


def stateful(subject: Subject, batch: int = 3) -> tuple[Backbone, Tensor, Tensor | None, Tensor, Output]:
    """A decoder that carries a state: backbone, memory, its mask, a target, and the target decoded at once."""
    backbone = subject.probe("seq2seq")
    x, y = examples(subject, backbone, 16, 33, batch)
    memory, mask = memory_of(backbone, x, ragged(16, (16, 9, 1)[:batch]))
    out = backbone.decode(y, memory=memory, memory_mask=mask)
    if not leaves(out.state):
        raise NotDeclared("decode returns no state")
    return backbone, memory, mask, y, out


def decode_by(
    backbone: Backbone, pieces: tuple[int, ...], memory: Tensor, mask: Tensor | None, y: Tensor, state: State
) -> Iterator[Output]:
    start = 0
    for piece in pieces:
        out = backbone.decode(y[:, start : start + piece], memory=memory, memory_mask=mask, state=state)
        yield out
        state, start = out.state, start + piece


@seq2seq
def decoded_pieces_equal_the_whole(subject: Subject) -> None:
    """Pieces of a target with carried state, down to single tokens, equal one call: outputs, state and gradients."""
    backbone, memory, mask, y, whole = stateful(subject)
    fresh = backbone.init_state(3, device="cpu", dtype=torch.float64)
    names, parameters = zip(*backbone.named_parameters(), strict=True)
    weights = noise_like(whole.hidden)
    told = torch.autograd.grad((whole.hidden * weights).sum(), parameters, retain_graph=True)
    for pieces in (*PIECES, (1,) * 33):
        outputs = list(decode_by(backbone, pieces, memory, mask, y, fresh))
        where = f"pieces {pieces if len(pieces) < 33 else 'of one token'}"
        together = torch.cat([out.hidden for out in outputs], dim=1)
        require_same(together, whole.hidden, AGREE, f"{where}: outputs")
        require_same_state(outputs[-1].state, whole.state, AGREE, f"{where}: state")
        found = torch.autograd.grad((together * weights).sum(), parameters, retain_graph=True)
        for name, ours, theirs in zip(names, found, told, strict=True):
            gap = (ours - theirs).abs().max().item() / max(g.abs().max().item() for g in told)
            assert gap <= AGREE, f"{where}: gradient of {name} is {gap:.3g} off (relative)"


@seq2seq
def decoder_state_is_sound(subject: Subject) -> None:
    """The decoder's state is batch-first, of the told size, selectable by rows; a foreign one is a ValueError."""
    backbone, memory, mask, y, out = stateful(subject)
    assert batch_size(out.state) == 3, f"3 rows in, state {describe(out.state)}"
    for length in (1, 7, 33):
        state = backbone.decode(y[:, :length], memory=memory, memory_mask=mask).state
        says, carries = backbone.state_size(length), elements(state)
        assert says == carries, (
            f"state_size({length}) says {says}, carried are {carries} per sample in {describe(state)}"
        )
    after = subject.input(backbone, 5, batch=3, seed=23)
    together = backbone.decode(after, memory=memory, memory_mask=mask, state=out.state).hidden
    without = backbone.decode(after, memory=memory, memory_mask=mask).hidden
    assert not torch.equal(together, without), "decoded vectors do not depend on the state"
    order = torch.tensor([2, 0])

    def two_rows(state: State) -> Tensor:
        rows_mask = None if mask is None else mask[order]
        return backbone.decode(after[order], memory=memory[order], memory_mask=rows_mask, state=state).hidden

    require_same(two_rows(select_rows(out.state, order)), together[order], SAME, "selected rows")
    require_refused(lambda: two_rows(out.state), "3 rows of state for 2 of input")
    require_refused(lambda: two_rows([torch.zeros(2, 4, dtype=torch.float64)]), "a state of another architecture")


@seq2seq
def wrong_memory_is_refused(subject: Subject) -> None:
    """A memory of another batch size is a ValueError, and so is any state given to the encoder."""
    backbone = subject.build("seq2seq")
    x, y = examples(subject, backbone, 16, 7, batch=3)
    memory = backbone(x).hidden
    for rows in (1, 2):
        require_refused(lambda n=rows: backbone.decode(y, memory=memory[:n]), f"{rows} rows of memory for 3 of input")
    state = backbone.decode(y, memory=memory).state
    if leaves(state):
        require_refused(lambda: backbone(x, state=state), "the decoder's state given to the encoder")


CHECKS: tuple[Check, ...] = (decoded_pieces_equal_the_whole, decoder_state_is_sound, wrong_memory_is_refused)
