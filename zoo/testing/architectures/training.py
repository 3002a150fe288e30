"""Checks of a backbone in use: it learns, is restored from a file, and trains under DDP."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from zoo.model.segments import SegmentPlan, drive
from zoo.nn.backbone import Backbone
from zoo.ops.positions import sinusoidal
from zoo.testing.architectures.decoder import translate
from zoo.testing.architectures.subject import FORWARD, SEQ2SEQ, ArchitectureSubject
from zoo.testing.check import check

LENGTH, EXAMPLES, STEPS = 16, 8, 300
D_MODEL = 32


class Classifier(nn.Module):
    """Embedding, positions where the architecture needs them, backbone, mean of the hidden vectors, linear head."""

    def __init__(self, subject: ArchitectureSubject, seed: int = 0) -> None:
        super().__init__()
        self.backbone = subject.build(d_model=D_MODEL, seed=seed)
        d_model = self.backbone.dims.d_model
        self.embedding = nn.Embedding(4, d_model)
        external = subject.capabilities.positions == "external"
        self.register_buffer(
            "positions", sinusoidal(torch.arange(LENGTH), d_model).float() if external else torch.zeros(LENGTH, d_model)
        )
        self.head = nn.Linear(d_model, 2)
        self.plan = SegmentPlan(LENGTH // 2 if subject.capabilities.segment else None)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L) -> logits (B, 2), sum of the auxiliary losses."""
        x = self.embedding(ids) + self.positions
        segments = list(drive(self.backbone, x, None, None, self.plan))
        aux = sum((loss for s in segments for loss in s.aux.values()), x.new_zeros(()))
        return self.head(torch.cat([s.hidden for s in segments], dim=1).mean(dim=1)), aux


class Translator(nn.Module):
    """Embeddings of source and target, encoder-decoder backbone, linear head."""

    def __init__(self, backbone: Backbone, vocab_size: int) -> None:
        super().__init__()
        d_model = backbone.dims.d_model
        self.source, self.target = nn.Embedding(vocab_size, d_model), nn.Embedding(vocab_size + 1, d_model)
        self.backbone, self.head = backbone, nn.Linear(d_model, vocab_size)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """source (B, L), target (B, T) -> logits (B, T, vocab_size), each from the target tokens before it."""
        start = torch.full_like(target[:, :1], self.head.out_features)
        y = self.target(torch.cat([start, target[:, :-1]], dim=1))
        return self.head(translate(self.backbone, self.source(source), y))


def permuted_sequences() -> tuple[Tensor, Tensor]:
    """Eight orders of the same sixteen tokens, ids (8, L), with arbitrary labels (8,): counts do not predict them."""
    generator = torch.Generator().manual_seed(11)
    tokens = torch.arange(LENGTH) % 4
    ids = torch.stack([tokens[torch.randperm(LENGTH, generator=generator)] for _ in range(EXAMPLES)])
    return ids, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def overfit(model: nn.Module, losses: Callable[[], tuple[Tensor, Tensor]]) -> float:
    """Train with Adam on `losses()` = (loss, auxiliary losses) until the loss is below 0.05; the last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss, aux = losses()
        if loss.item() < 0.05:
            break
        optimizer.zero_grad()
        (loss + aux).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.item()


@check(FORWARD)
def overfits_and_restores(subject: ArchitectureSubject) -> None:
    """Overfits eight examples that differ only in order; saved and loaded, the model gives the same logits."""
    model = Classifier(subject).train()
    ids, labels = permuted_sequences()

    def losses() -> tuple[Tensor, Tensor]:
        logits, aux = model(ids)
        return functional.cross_entropy(logits, labels), aux

    loss = overfit(model, losses)
    assert loss < 0.1, f"loss {loss:.3f} after {STEPS} steps on {EXAMPLES} examples (guessing: 0.693)"
    with torch.no_grad():
        before, _ = model.eval()(ids)
        correct = int((before.argmax(-1) == labels).sum())
        assert correct == EXAMPLES, f"{correct} of {EXAMPLES} right in evaluation mode, loss {loss:.3f} in training"
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        restored = Classifier(subject, seed=1).eval()
        restored.load_state_dict(torch.load(file, weights_only=True))
        after, _ = restored(ids)
    assert torch.equal(after, before), "the restored model gives other logits"


@check(SEQ2SEQ)
def overfits_translation(subject: ArchitectureSubject) -> None:
    """Overfits eight pairs whose targets can be predicted from the source only."""
    generator = torch.Generator().manual_seed(12)
    source = torch.randint(16, (8, 12), generator=generator)
    target = torch.randint(16, (8, 4), generator=generator)
    model = Translator(subject.build(d_model=D_MODEL), 16).train()

    def losses() -> tuple[Tensor, Tensor]:
        loss = functional.cross_entropy(model(source, target).flatten(0, 1), target.flatten())
        return loss, loss.new_zeros(())

    loss = overfit(model, losses)
    correct = (model.eval()(source, target).argmax(-1) == target).sum().item()
    assert correct == target.numel(), f"{correct} of {target.numel()} tokens right, loss {loss:.3f}"


FINISHED_GROUPS: list[object] = []
"""Process groups kept until the process ends: a group's destructor joins gloo's threads without giving up the GIL,
and a thread that drops its last piece of work then needs it, so that both would wait forever."""


@check(FORWARD)
def trains_under_ddp(subject: ArchitectureSubject) -> None:
    """Gradients under DistributedDataParallel (one process, gloo) equal those without, and no parameter is unused."""
    assert not distributed.is_initialized(), "a process group exists already; run this check in a process of its own"
    ids, labels = permuted_sequences()
    hook = sys.excepthook  # init_process_group sets one that marks every later traceback with a rank
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        plain = Classifier(subject)
        model = nn.parallel.DistributedDataParallel(Classifier(subject), find_unused_parameters=False)
        for step in range(2):
            for net in (plain, model):
                net.zero_grad()
                logits, aux = net(ids)  # DDP reports unused parameters in the second forward
                (functional.cross_entropy(logits, labels) + aux).backward()
            for (name, ours), theirs in zip(model.module.named_parameters(), plain.parameters(), strict=True):
                assert ours.grad is not None, f"{name} has no gradient under DDP"
                assert theirs.grad is not None, f"{name} has a gradient only under DDP"
                same = torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
                assert same, f"step {step}: the gradient of {name} differs under DDP"
    finally:
        FINISHED_GROUPS.append(distributed.group.WORLD)
        distributed.destroy_process_group()
        sys.excepthook = hook
