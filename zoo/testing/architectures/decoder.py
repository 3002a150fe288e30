"""Checks of `decode` for encoder-decoders, alone and together with `forward`.

B batch, L source tokens, T target tokens, D d_model. The memory is the output of `forward` for the source; its mask is
the source's where there is one vector per token, and None where there are latents.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import torch

from zoo.nn.backbone import Backbone
from zoo.nn.state import leaves, select_rows
from zoo.testing import expect
from zoo.testing.architectures import forward, mixing, scopes, state
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject, encode, random_input, random_inputs, run
from zoo.testing.expect import noise_like, relative_size, right_padded, weighted_sum


@check(scopes.SEQ2SEQ)
def decode_shapes(subject: ArchitectureSubject) -> None:
    """One hidden vector per target token, of the input's shape, dtype and device; other modes have no decoder."""
    for width in (8, 32):
        backbone = subject.build(d_model=width)
        for (source, target), batch in product(((1, 1), (7, 3), (33, 16), (16, 33)), (1, 3)):
            x, y = random_inputs(backbone, source, target, batch=batch)
            where = f"source {tuple(x.shape)}, target {tuple(y.shape)}"
            expect.same_form(run(backbone, x, y).hidden, y, where)
    for case in subject.cases():
        if case.mode != "seq2seq":
            backbone = case.build()
            x = random_input(backbone, 7)
            what = f"decode in {case.mode} mode (only seq2seq may have a decoder)"
            expect.refused(partial(backbone.decode, x[:, :3], memory=x), what, TypeError)


@check(scopes.SEQ2SEQ)
def decode_depends_on_source_and_past(subject: ArchitectureSubject) -> None:
    """Every decoded vector depends on the whole source and on all target tokens up to its own."""
    backbone = subject.build_float64()
    x, y = (tensor.requires_grad_() for tensor in random_inputs(backbone, 33, 9))
    hidden = run(backbone, x, y).hidden
    for token in (0, 8):
        from_x, from_y = torch.autograd.grad(weighted_sum(hidden[:, token]), [x, y], retain_graph=True)
        for what, gradient in (("source", from_x), ("target", from_y[:, : token + 1])):
            unused = (gradient.abs().amax((0, 2)) == 0).nonzero().flatten().tolist()
            assert not unused, f"output {token} does not depend on {what} tokens {unused}"


@check(scopes.SEQ2SEQ)
def source_padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """Right padding of the source, whatever the pads hold, leaves the decoded vectors as they are without it."""
    backbone = subject.build_float64()
    for x, mask, loud in mixing.padded_batches(backbone):
        y = random_input(backbone, 6, batch=4, seed=20)
        padded = run(backbone, x, y, mask=mask).hidden
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = run(backbone, x[row : row + 1, :length], y[row : row + 1]).hidden[0]
            what = f"outputs for {length} source tokens padded to {x.shape[1]} and without pads"
            expect.close(padded[row], alone, expect.SAME, what)
        expect.close(run(backbone, loud, y, mask=mask).hidden, padded, expect.SAME, "outputs for other source pads")
        unmasked, all_true = run(backbone, x, y).hidden, run(backbone, x, y, mask=torch.ones_like(mask)).hidden
        expect.close(all_true, unmasked, expect.SAME, "outputs with a source mask of all True and with none")


@check(scopes.SEQ2SEQ)
def masked_memory_is_not_read(subject: ArchitectureSubject) -> None:
    """Masked memory vectors have no gradient and may hold anything."""
    backbone = subject.build_float64()
    memory, y = random_inputs(backbone, 16, 6, batch=3)
    memory, mask = memory.requires_grad_(), right_padded(16, (16, 9, 1))
    hidden = backbone.decode(y, memory=memory, memory_mask=mask).hidden
    (gradient,) = torch.autograd.grad(weighted_sum(hidden), memory)
    leak = relative_size(gradient[~mask], gradient)
    assert leak < expect.SAME, f"decoded vectors have a gradient from masked memory ({leak:.3g}, relative)"
    for what, other in {"numbers": 1e3 * noise_like(memory), "NaN": torch.full_like(memory, torch.nan)}.items():
        loud = torch.where(mask.unsqueeze(-1), memory, other)
        changed = backbone.decode(y, memory=loud, memory_mask=mask).hidden
        expect.close(changed, hidden, expect.SAME, f"outputs for other {what} in masked memory")


@check(scopes.DECODER)
def decode_precision(subject: ArchitectureSubject) -> None:
    """float64 stays float64 with its precision; under bfloat16 autocast outputs are finite and near float32's."""
    forward.float64_stays_float64(subject)
    forward.finite_in_bf16(subject)


@check(scopes.DECODER)
def decode_is_a_pure_function(subject: ArchitectureSubject) -> None:
    """A call modifies no argument, other calls do not change its result, and its tensors are on the input's device."""
    forward.pure_function(subject)
    forward.follows_the_device_of_its_input(subject)
    backbone = replace(subject, decoder=False).build()
    x, y = random_inputs(backbone, 16, 7)
    memory, memory_mask = encode(backbone, x, right_padded(16, (16, 9)))
    arguments = [memory] if memory_mask is None else [memory, memory_mask]
    before = [tensor.detach().clone() for tensor in arguments]
    backbone.decode(y, memory=memory, memory_mask=memory_mask)
    for what, a, b in zip(("memory", "mask of the memory"), before, arguments, strict=False):
        assert torch.equal(a, b), f"the {what} is modified in place"


@check(scopes.STATEFUL_DECODER)
def decoder_state_contract(subject: ArchitectureSubject) -> None:
    """The decoder's state is batch-first, as large as `state_size`, selectable by rows; a foreign one is refused."""
    state.state_is_batch_first(subject)
    state.init_state_equals_none(subject)
    state.state_changes_outputs(subject)
    state.state_size_is_correct(subject)
    mixing.rows_of_the_state_do_not_mix(subject)
    state.state_of_another_batch_is_refused(subject)
    state.state_of_another_architecture_is_refused(subject)
    _rows_of_the_state_keep_their_source(replace(subject, decoder=False).build_float64())


def _rows_of_the_state_keep_their_source(backbone: Backbone) -> None:
    """Rows that are selected from the state go on as before, each with its own source, also in chunks."""
    x, y = random_inputs(backbone, 16, 12, batch=3)
    memory, mask = encode(backbone, x, right_padded(16, (16, 9, 1)))
    whole = backbone.decode(y, memory=memory, memory_mask=mask).hidden
    first = backbone.decode(y[:, :7], memory=memory, memory_mask=mask)
    rows = torch.tensor([2, 0])
    rest = backbone.decode(
        y[rows, 7:],
        memory=memory[rows],
        memory_mask=None if mask is None else mask[rows],
        state=select_rows(first.state, rows),
    ).hidden
    expect.close(first.hidden, whole[:, :7], expect.EQUIVALENT, "outputs of the first chunk and of one call")
    expect.close(rest, whole[rows, 7:], expect.EQUIVALENT, "outputs of selected rows with sources of their own")


@check(scopes.SEQ2SEQ)
def invalid_memory_is_refused(subject: ArchitectureSubject) -> None:
    """A memory of another batch size raises ValueError, and so does a state passed to the encoder."""
    backbone = subject.build()
    x, y = random_inputs(backbone, 16, 7, batch=3)
    memory = backbone(x).hidden
    expect.refused(lambda: backbone.decode(y, memory=memory[:1]), "a memory of 1 row for an input of 3")
    expect.refused(lambda: backbone.decode(y, memory=memory[:2]), "a memory of 2 rows for an input of 3")
    carried = backbone.decode(y, memory=memory).state
    if leaves(carried):
        expect.refused(lambda: backbone(x, state=carried), "a decoder's state passed to the encoder")
