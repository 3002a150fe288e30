"""Checks of `decode` for encoder-decoders, alone and together with `forward`.

B batch, L source tokens, T target tokens, D d_model. The memory is the output of `forward` for the source; its mask is
the source's where there is one vector per token, and None where there are latents.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import torch
from torch import Tensor

from zoo.nn.backbone import Backbone, Output, State
from zoo.nn.state import batch_size, describe, leaves, select_rows
from zoo.testing import expect
from zoo.testing.architectures.padding import padded_batches
from zoo.testing.architectures.state import CHUNKS
from zoo.testing.architectures.subject import SEQ2SEQ, ArchitectureSubject, positions
from zoo.testing.check import NotDeclared, check
from zoo.testing.tensors import noise_like, relative_size, right_padded, weighted_sum

WIDTHS = (8, 32)
LENGTHS = ((1, 1), (7, 3), (33, 16), (16, 33))
"""Source and target lengths."""


def encode(backbone: Backbone, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The memory of a source x (B, L, D), and the mask that goes with it."""
    memory = backbone(x, mask=mask).hidden
    return memory, None if positions(backbone, memory.shape[1], x.shape[1]) is None else mask


def translate(backbone: Backbone, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Encode the source x (B, L, D) and decode the target y (B, T, D) over it: (B, T, D)."""
    memory, memory_mask = encode(backbone, x, mask)
    return backbone.decode(y, memory=memory, memory_mask=memory_mask).hidden


def random_pair(
    subject: ArchitectureSubject, backbone: Backbone, source: int, target: int, batch: int = 2
) -> tuple[Tensor, Tensor]:
    """Gaussian source (B, source, D) and target (B, target, D)."""
    return (
        subject.random_input(backbone, source, batch=batch),
        subject.random_input(backbone, target, batch=batch, seed=20),
    )


@check(SEQ2SEQ)
def decode_shapes(subject: ArchitectureSubject) -> None:
    """One hidden vector per target token, of the input's shape, dtype and device; other modes have no decoder."""
    for width in WIDTHS:
        backbone = subject.build(d_model=width)
        for (source, target), batch in product(LENGTHS, (1, 3)):
            x, y = random_pair(subject, backbone, source, target, batch)
            where = f"source {tuple(x.shape)}, target {tuple(y.shape)}"
            expect.hidden_like(translate(backbone, x, y), y, target, where)
    for case in subject.in_modes(subject.forward_modes):
        backbone = case.build()
        x, y = random_pair(case, backbone, 7, 3)
        try:
            backbone.decode(y, memory=x)
        except TypeError:
            continue
        raise AssertionError(f"{case.mode} mode has a decoder, but only seq2seq may; expected a TypeError")


@check(SEQ2SEQ)
def decode_is_causal(subject: ArchitectureSubject) -> None:
    """No decoded vector depends on later target tokens."""
    backbone = subject.build_float64()
    for source, target in ((7, 2), (16, 16), (5, 40)):
        x, y = random_pair(subject, backbone, source, target)
        other, cuts = subject.random_input(backbone, target, seed=21), {0, target // 3, target - 2}
        function = partial(translate, backbone, x)
        expect.no_future(function, y, other, range(target), cuts, f"{target} target tokens")


@check(SEQ2SEQ)
def decode_depends_on_source_and_past(subject: ArchitectureSubject) -> None:
    """Every decoded vector depends on the whole source and on all target tokens up to its own."""
    backbone = subject.build_float64()
    x, y = (tensor.requires_grad_() for tensor in random_pair(subject, backbone, 33, 9))
    hidden = translate(backbone, x, y)
    for token in (0, 8):
        from_x, from_y = torch.autograd.grad(weighted_sum(hidden[:, token]), [x, y], retain_graph=True)
        for what, gradient in (("source", from_x), ("target", from_y[:, : token + 1])):
            unused = (gradient.abs().amax((0, 2)) == 0).nonzero().flatten().tolist()
            assert not unused, f"output {token} does not depend on {what} tokens {unused}"


@check(SEQ2SEQ)
def decode_rows_do_not_mix(subject: ArchitectureSubject) -> None:
    """No row's output has a gradient from another row's source or target, and a row alone gives the same."""
    backbone = subject.build_float64()
    x, y = random_pair(subject, backbone, 16, 7, batch=3)
    expect.rows_independent(lambda x, y: translate(backbone, x, y), {"source": x, "target": y})


@check(SEQ2SEQ)
def source_padding_changes_nothing(subject: ArchitectureSubject) -> None:
    """Right padding of the source, whatever the pads hold, leaves the decoded vectors as they are without it."""
    backbone = subject.build_float64()
    for x, mask, loud in padded_batches(subject, backbone):
        seq_len, (_, y) = x.shape[1], random_pair(subject, backbone, 1, 6, batch=4)
        padded = translate(backbone, x, y, mask)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = translate(backbone, x[row : row + 1, :length], y[row : row + 1])[0]
            what = f"outputs for {length} source tokens padded to {seq_len} and without pads"
            expect.close(padded[row], alone, expect.SAME, what)
        expect.close(translate(backbone, loud, y, mask), padded, expect.SAME, "outputs for other source pads")
        unmasked, all_true = translate(backbone, x, y), translate(backbone, x, y, torch.ones_like(mask))
        expect.close(all_true, unmasked, expect.SAME, "outputs with a source mask of all True and with none")


@check(SEQ2SEQ)
def masked_memory_is_not_read(subject: ArchitectureSubject) -> None:
    """Masked memory vectors have no gradient and may hold anything."""
    backbone = subject.build_float64()
    memory, y = random_pair(subject, backbone, 16, 6, batch=3)
    memory, mask = memory.requires_grad_(), right_padded(16, (16, 9, 1))
    hidden = backbone.decode(y, memory=memory, memory_mask=mask).hidden
    (gradient,) = torch.autograd.grad(weighted_sum(hidden), memory)
    leak = relative_size(gradient[~mask], gradient)
    assert leak < expect.SAME, f"decoded vectors have a gradient from masked memory ({leak:.3g}, relative)"
    loud = torch.where(mask.unsqueeze(-1), memory, 1e3 * noise_like(memory))
    changed = backbone.decode(y, memory=loud, memory_mask=mask).hidden
    expect.close(changed, hidden, expect.SAME, "outputs for other masked memory")


@check(SEQ2SEQ)
def fully_masked_source_is_finite(subject: ArchitectureSubject) -> None:
    """A row without real source tokens gives finite outputs and gradients, and does not change the other rows."""
    backbone = subject.build_float64()
    x, y = random_pair(subject, backbone, 16, 5, batch=3)
    x.requires_grad_()
    hidden = translate(backbone, x, y, right_padded(16, (16, 0, 16)))
    expect.finite(hidden, "outputs")
    others = translate(backbone, x[::2], y[::2])
    expect.close(hidden[::2], others, expect.SAME, "outputs of the other rows with and without a fully masked source")
    weighted_sum(hidden).backward()
    expect.finite_gradients(backbone, x, "one source fully masked")


@check(SEQ2SEQ)
def every_parameter_gets_a_gradient_from_decode(subject: ArchitectureSubject) -> None:
    """Every parameter of encoder and decoder gets a finite gradient from `decode` that is not zero everywhere."""
    backbone = subject.build_float64().train()
    hidden = translate(backbone, *random_pair(subject, backbone, 60, 33, batch=3))
    expect.all_parameters_trained(backbone, weighted_sum(hidden))


@check(SEQ2SEQ)
def decode_gradients_match_finite_differences(subject: ArchitectureSubject) -> None:
    """Gradients of source, target and every parameter equal finite differences."""
    backbone = subject.build_float64()
    x, y = (tensor.requires_grad_() for tensor in random_pair(subject, backbone, 17, 9))
    tensors = {"source": x, "target": y, **dict(backbone.named_parameters())}
    expect.gradients_correct(lambda: weighted_sum(translate(backbone, x, y)), tensors)


@check(SEQ2SEQ)
def decode_precision(subject: ArchitectureSubject) -> None:
    """float64 stays float64 with its precision; under bfloat16 autocast outputs are finite and near float32's."""
    double = subject.build(dtype=torch.float64)
    x, y = random_pair(subject, double, 33, 16)
    memory, _ = encode(double, x)
    expect.float64_throughout(lambda y: double.decode(y, memory=memory).hidden, y)
    single = subject.build(d_model=32)
    x, y = random_pair(subject, single, 33, 16)
    hidden = lambda: translate(single, x, y)  # noqa: E731
    expect.close_in_bfloat16(single, x, hidden, lambda: weighted_sum(hidden()))


@check(SEQ2SEQ)
def decode_is_a_pure_function(subject: ArchitectureSubject) -> None:
    """A call modifies no argument, other calls do not change its result, and its tensors are on the input's device."""
    backbone = subject.build()
    x, y = random_pair(subject, backbone, 16, 7)
    memory, memory_mask = encode(backbone, x, right_padded(16, (16, 9)))
    memory = memory.detach()
    earlier = subject.random_input(backbone, 5, seed=22)
    state = backbone.decode(earlier, memory=memory, memory_mask=memory_mask).state

    def decode(net: Backbone) -> Output:
        return net.decode(y, memory=memory, memory_mask=memory_mask, state=state)

    others = random_pair(subject, backbone, 33, 20, batch=3)
    arguments = (y, memory, memory_mask, *leaves(state))
    expect.pure(lambda: decode(backbone), arguments, lambda: translate(backbone, *others))
    uncalled = subject.rebuild(backbone)
    expect.same_without_default_device(lambda: decode(uncalled).hidden, decode(backbone).hidden)


# -- the decoder's state -------------------------------------------------------------------------------------------


def memory_and_state(subject: ArchitectureSubject) -> tuple[Backbone, Tensor, Tensor | None, Tensor, State]:
    """A backbone, a memory of three rows, its mask, a target of 33 tokens, and the state after it."""
    backbone = subject.build_float64()
    x, y = random_pair(subject, backbone, 16, 33, batch=3)
    memory, mask = encode(backbone, x, right_padded(16, (16, 9, 1)))
    state = backbone.decode(y, memory=memory, memory_mask=mask).state
    if not leaves(state):
        raise NotDeclared("decode returns no state")
    return backbone, memory, mask, y, state


@check(SEQ2SEQ)
def decoded_chunks_equal_one_call(subject: ArchitectureSubject) -> None:
    """Chunks of a target with carried state, down to single tokens, equal one call: outputs, state and gradients."""
    backbone, memory, mask, y, _ = memory_and_state(subject)
    expect.chunks_equal_one_call(
        lambda a, b, state: backbone.decode(y[:, a:b], memory=memory, memory_mask=mask, state=state),
        (*CHUNKS, (1,) * 33),
        dict(backbone.named_parameters()),
        state=backbone.init_state(3, device="cpu", dtype=torch.float64),
    )


@check(SEQ2SEQ)
def decoder_state_contract(subject: ArchitectureSubject) -> None:
    """The decoder's state is batch-first, as large as `state_size`, selectable by rows; a foreign one is refused."""
    backbone, memory, mask, y, state = memory_and_state(subject)
    assert batch_size(state) == 3, f"y has 3 rows, the state has leaves {describe(state)}"
    for length in (1, 7, 33):
        after = backbone.decode(y[:, :length], memory=memory, memory_mask=mask).state
        expect.state_size(backbone, length, after)
    y = subject.random_input(backbone, 5, batch=3, seed=23)

    def decode(state: State, rows: Tensor) -> Tensor:
        rows_mask = None if mask is None else mask[rows]
        return backbone.decode(y[rows], memory=memory[rows], memory_mask=rows_mask, state=state).hidden

    every, rows = torch.arange(3), torch.tensor([2, 0])
    expected = decode(state, every)
    assert not torch.equal(expected, decode(None, every)), "outputs do not depend on the state"
    expect.close(decode(select_rows(state, rows), rows), expected[rows], expect.SAME, "outputs of selected rows")
    expect.value_error(lambda: decode(state, rows), "a state of 3 rows for an input of 2")
    foreign = [torch.zeros(2, 4, dtype=torch.float64)]
    expect.value_error(lambda: decode(foreign, rows), "a state of another architecture")


@check(SEQ2SEQ)
def invalid_memory_is_refused(subject: ArchitectureSubject) -> None:
    """A memory of another batch size raises ValueError, and so does a state passed to the encoder."""
    backbone = subject.build()
    x, y = random_pair(subject, backbone, 16, 7, batch=3)
    memory = backbone(x).hidden
    expect.value_error(lambda: backbone.decode(y, memory=memory[:1]), "a memory of 1 row for an input of 3")
    expect.value_error(lambda: backbone.decode(y, memory=memory[:2]), "a memory of 2 rows for an input of 3")
    state = backbone.decode(y, memory=memory).state
    if leaves(state):
        expect.value_error(lambda: backbone(x, state=state), "a decoder's state passed to the encoder")
