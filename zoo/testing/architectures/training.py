"""Checks of a backbone in zoo's models: it learns, is restored from a file, and trains under DDP."""

from __future__ import annotations

import io
import sys
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from zoo.data.batch import Batch
from zoo.model.models import LMHeadModel, SequenceClassifier
from zoo.model.spec import ModelSpec
from zoo.testing.architectures import scopes
from zoo.testing.architectures.scopes import check
from zoo.testing.architectures.subject import ArchitectureSubject
from zoo.testing.expect import right_padded

LENGTH, EXAMPLES, STEPS = 16, 8, 300


def model_spec(subject: ArchitectureSubject, **fields: Any) -> ModelSpec:
    """A small model around the backbone, for sequences of LENGTH tokens."""
    return ModelSpec(
        architecture=subject.architecture,
        arch_config=subject.config(),
        dims=subject.dims(d_model=32),
        seq_len=LENGTH,
        max_len=LENGTH,
        positions="sinusoidal" if subject.capabilities.positions == "external" else "",
        segment_plan=subject.segment_plan(LENGTH // 2),
        **fields,
    )


def build_classifier(subject: ArchitectureSubject, seed: int = 0) -> SequenceClassifier:
    """A classifier for `permuted_sequences`."""
    torch.manual_seed(seed)
    return SequenceClassifier(model_spec(subject, vocab_size=4, n_classes=2))


def permuted_sequences() -> Batch:
    """Eight orders of the same sixteen tokens with arbitrary labels: counts do not predict them."""
    generator = torch.Generator().manual_seed(11)
    tokens = torch.arange(LENGTH) % 4
    ids = torch.stack([tokens[torch.randperm(LENGTH, generator=generator)] for _ in range(EXAMPLES)])
    return Batch(ids, None, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]))


def losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross entropy, and the sum of the auxiliary losses."""
    out = model(batch)
    return functional.cross_entropy(out.logits, out.labels), sum(out.aux.values(), out.logits.new_zeros(()))


def overfit(model: nn.Module, batch: Batch) -> float:
    """Train with Adam on one batch until the loss is below 0.05; the last loss."""
    optimizer = torch.optim.Adam(model.train().parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss, aux = losses(model, batch)
        if loss.item() < 0.05:
            break
        optimizer.zero_grad()
        (loss + aux).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.item()


@check(scopes.FORWARD)
def overfits_and_restores(subject: ArchitectureSubject) -> None:
    """Overfits eight examples that differ only in order; saved and loaded, the model gives the same logits."""
    model, batch = build_classifier(subject), permuted_sequences()
    loss = overfit(model, batch)
    assert loss < 0.1, f"loss {loss:.3f} after {STEPS} steps on {EXAMPLES} examples (guessing: 0.693)"
    with torch.no_grad():
        before = model.eval()(batch).logits
        correct = int((before.argmax(-1) == batch.labels).sum())
        assert correct == EXAMPLES, f"{correct} of {EXAMPLES} right in evaluation mode, loss {loss:.3f} in training"
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        restored = build_classifier(subject, seed=1).eval()
        restored.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(restored(batch).logits, before), "the restored model gives other logits"


@check(scopes.SEQ2SEQ)
def overfits_translation(subject: ArchitectureSubject) -> None:
    """Overfits eight pairs whose targets can be predicted from the source only."""
    generator = torch.Generator().manual_seed(12)
    source = torch.randint(16, (EXAMPLES, 12), generator=generator)
    target = torch.randint(16, (EXAMPLES, 4), generator=generator)
    start = torch.full((EXAMPLES, 1), 16)
    batch = Batch(source, None, target, torch.cat([start, target[:, :-1]], dim=1))
    model = LMHeadModel(model_spec(subject, vocab_size=17, objective="seq2seq"))
    loss = overfit(model, batch)
    out = model.eval()(batch)
    correct = (out.logits.argmax(-1) == out.labels).sum().item()
    assert correct == target.numel(), f"{correct} of {target.numel()} tokens right, loss {loss:.3f}"


@check(scopes.PADDED)
def gradients_of_micro_batches_add_up(subject: ArchitectureSubject) -> None:
    """The gradient of a batch with rows of several lengths is the mean of its rows' own, auxiliary losses included.

    In evaluation mode: statistics of a batch (batch norm in training) are no function of its rows alone.
    """
    lengths = (LENGTH, 5, 11, 7)
    ids, mask = permuted_sequences().inputs[: len(lengths)], right_padded(LENGTH, lengths)
    batch = Batch(ids * mask, mask, torch.tensor([0, 1, 1, 0]))
    rows = [Batch(batch.inputs[i : i + 1, :length], None, batch.labels[i : i + 1]) for i, length in enumerate(lengths)]
    model = build_classifier(subject).double().eval()
    gradients: list[dict[str, Tensor]] = []
    for parts in ([batch], rows):
        model.zero_grad()
        for part in parts:
            (torch.stack(losses(model, part)).sum() / len(parts)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    whole, added = gradients
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    for name, gradient in whole.items():
        error = float((added[name] - gradient).abs().max()) / scale
        assert error < 1e-6, f"the gradient of {name} depends on which rows share a batch: off by {error:.1e}"


FINISHED_GROUPS: list[object] = []
"""Process groups kept until the process ends: a group's destructor joins gloo's threads without giving up the GIL,
and a thread that drops its last piece of work then needs it, so that both would wait forever."""


@check(scopes.FORWARD)
def trains_under_ddp(subject: ArchitectureSubject) -> None:
    """Gradients under DistributedDataParallel (one process, gloo) equal those without, and no parameter is unused."""
    assert not distributed.is_initialized(), "a process group exists already; run this check in a process of its own"
    batch = permuted_sequences()
    hook = sys.excepthook  # init_process_group sets one that marks every later traceback with a rank
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        plain = build_classifier(subject)
        model = nn.parallel.DistributedDataParallel(build_classifier(subject), find_unused_parameters=False)
        for step in range(2):
            for net in (plain, model):
                net.zero_grad()
                torch.stack(losses(net, batch)).sum().backward()  # DDP reports unused parameters in the second forward
            for (name, ours), theirs in zip(model.module.named_parameters(), plain.parameters(), strict=True):
                assert ours.grad is not None, f"{name} has no gradient under DDP"
                assert theirs.grad is not None, f"{name} has a gradient only under DDP"
                same = torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
                assert same, f"step {step}: the gradient of {name} differs under DDP"
    finally:
        FINISHED_GROUPS.append(distributed.group.WORLD)
        distributed.destroy_process_group()
        sys.excepthook = hook
