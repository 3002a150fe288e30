"""What a backbone does in use: it learns, comes back from a file as it was, and trains under DDP."""

from __future__ import annotations

import io
import math
import sys

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from zoo.model.segments import SegmentPlan, drive
from zoo.nn.backbone import Backbone
from zoo.testing.check import Check, check, require_same
from zoo.testing.subject import Subject, ragged

LENGTH, EXAMPLES, STEPS = 16, 8, 300
D_MODEL = 32


class Classifier(nn.Module):
    """Embedding, positions where the architecture wants them, backbone, mean of the hidden vectors, linear head."""

    def __init__(self, subject: Subject, backbone: Backbone) -> None:
        super().__init__()
        d_model = backbone.dims.d_model
        self.embedding = nn.Embedding(4, d_model)
        external = subject.capabilities.positions == "external"
        self.register_buffer("positions", sinusoids(LENGTH, d_model) if external else torch.zeros(LENGTH, d_model))
        self.backbone = backbone
        self.head = nn.Linear(d_model, 2)
        self.plan = SegmentPlan(LENGTH // 2 if subject.capabilities.segment else None)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, L) -> logits (B, 2), sum of the auxiliary losses."""
        x = self.embedding(ids) + self.positions
        segments = list(drive(self.backbone, x, None, None, self.plan))
        aux = sum((loss for s in segments for loss in s.aux.values()), x.new_zeros(()))
        return self.head(torch.cat([s.hidden for s in segments], dim=1).mean(dim=1)), aux


def sinusoids(length: int, d_model: int) -> Tensor:
    """(L, D), as in Vaswani et al. 2017, section 3.5."""
    angle = torch.arange(length)[:, None] * torch.exp(-math.log(1e4) * torch.arange(0, d_model, 2) / d_model)
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :d_model]


def examples() -> tuple[Tensor, Tensor]:
    """Eight orders of the same sixteen tokens, ids (8, L), with arbitrary labels (8,): counting tells nothing."""
    generator = torch.Generator().manual_seed(11)
    bag = torch.arange(LENGTH) % 4
    ids = torch.stack([bag[torch.randperm(LENGTH, generator=generator)] for _ in range(EXAMPLES)])
    return ids, torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def classifier(subject: Subject, mode: str, seed: int = 0) -> Classifier:
    backbone = subject.build(mode, d_model=D_MODEL, seed=seed)  # type: ignore[arg-type]
    return Classifier(subject, backbone)


def fit(model: nn.Module, steps: int) -> tuple[float, int]:
    """Adam on the eight examples until they are learned; (loss, steps)."""
    ids, labels = examples()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    value = math.inf
    for step in range(1, steps + 1):
        logits, aux = model(ids)
        loss = functional.cross_entropy(logits, labels)
        value = loss.item()
        if value < 0.05:
            return value, step
        optimiser.zero_grad()
        (loss + aux).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return value, steps


@check()
def learns_and_comes_back(subject: Subject) -> None:
    """Overfits eight examples that differ only in order; saved and loaded, it scores what it scored."""
    for mode in subject.modes:
        model = classifier(subject, mode).train()
        loss, steps = fit(model, STEPS)
        assert loss < 0.1, f"{mode}: loss {loss:.3f} after {steps} steps on {EXAMPLES} examples (guessing: 0.693)"
        ids, labels = examples()
        model.eval()
        with torch.no_grad():
            before, _ = model(ids)
            correct = int((before.argmax(-1) == labels).sum())
            assert correct == EXAMPLES, (
                f"{mode}: {correct} of {EXAMPLES} right in evaluation, loss {loss:.3f} in training"
            )
            file = io.BytesIO()
            torch.save(model.state_dict(), file)
            file.seek(0)
            other = classifier(subject, mode, seed=1).eval()
            other.load_state_dict(torch.load(file, weights_only=True))
            after, _ = other(ids)
        assert torch.equal(after, before), f"{mode}: the loaded model gives other logits"


ENDED: list[object] = []
"""Process groups that are done with, kept until the process ends: a group's destructor joins gloo's threads without
giving up the GIL, and a thread that drops its last piece of work then needs it, so that both would wait for ever."""


@check()
def trains_under_ddp(subject: Subject) -> None:
    """DistributedDataParallel (one process, gloo) finds no parameter that the loss does not use."""
    assert not distributed.is_initialized(), "a process group exists already; run this check in a process of its own"
    ids, labels = examples()
    hook = sys.excepthook  # init_process_group sets one that marks every later traceback with a rank
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        for mode in subject.modes:
            plain = classifier(subject, mode)
            model = nn.parallel.DistributedDataParallel(classifier(subject, mode), find_unused_parameters=False)
            for step in range(2):
                for net in (plain, model):
                    net.zero_grad()
                    logits, aux = net(ids)  # the second forward is where DDP tells of unused parameters
                    (functional.cross_entropy(logits, labels) + aux).backward()
                for (name, ours), theirs in zip(model.module.named_parameters(), plain.parameters(), strict=True):
                    assert ours.grad is not None, f"{mode}: {name} has no gradient under DDP"
                    assert theirs.grad is not None, f"{mode}: {name} has a gradient only under DDP"
                    same = torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
                    assert same, f"{mode}, step {step}: the gradient of {name} differs under DDP"
    finally:
        ENDED.append(distributed.group.WORLD)
        distributed.destroy_process_group()
        sys.excepthook = hook


@check()
def on_step_depends_on_the_step_only(subject: Subject) -> None:
    """`on_step(7)` leaves the same whatever was called before: a resumed run goes on as an unbroken one."""
    for mode in subject.modes:
        straight = subject.build(mode)
        resumed = subject.copy(straight)
        for step in range(8):
            straight.on_step(step)
        resumed.on_step(7)
        x = subject.input(straight, LENGTH)
        same = torch.equal(straight(x).hidden, resumed(x).hidden)
        assert same, f"{mode}: after on_step(7) the outputs depend on the steps before"


@check()
def follows_the_device_of_its_input(subject: Subject) -> None:
    """Every tensor that a call makes is made on the input's device.

    Found without an accelerator: while the default device is "meta", a tensor made without `device=` cannot be mixed
    with the input. (A table that belongs on the host says device="cpu".) Where there is a GPU it is tried too.
    """
    for mode in subject.modes:
        backbone = subject.build(mode)
        x, mask = subject.input(backbone, 33), ragged(33, (33, 20))
        uncalled = subject.copy(backbone)
        expected = use_all(subject, backbone, x, mask)
        try:
            with torch.device("meta"):
                found = use_all(subject, uncalled, x, mask)
        except Exception as error:
            why = " ".join(str(error).split())[:200]
            raise AssertionError(
                f"{mode}: a tensor is made without device= (device=x.device, or device='cpu' for a table of the host): "
                f"{type(error).__name__}: {why}"
            ) from error
        assert found.device == x.device, f"{mode}: {x.device} in, {found.device} out"
        require_same(found, expected, 0.0, f"{mode}: results with another default device")
        if torch.cuda.is_available():
            there = use_all(subject, subject.copy(backbone).cuda(), x.cuda(), mask.cuda())
            assert there.is_cuda, f"{mode}: cuda in, {there.device} out"
            require_same(there.cpu(), expected, 1e-3, f"{mode}: on the GPU and on the CPU")


def use_all(subject: Subject, backbone: Backbone, x: Tensor, mask: Tensor) -> Tensor:
    """Every form that the backbone has: masked and plain calls, carried state, steps; hidden vectors side by side."""
    first = backbone(x, mask=mask)
    hidden = [first.hidden[0], backbone(x).hidden[0]]
    if backbone.dims.mode in subject.state_modes:
        hidden.append(backbone(x, mask=mask, state=first.state).hidden[0])
        fresh = backbone.init_state(2, device=x.device, dtype=x.dtype)
        hidden.append(backbone(x, state=fresh).hidden[0])
        if subject.capabilities.step:
            y_t, _ = backbone.step(x[:, 0], fresh)
            hidden.append(y_t)
    return torch.cat(hidden).detach()


CHECKS: tuple[Check, ...] = (
    learns_and_comes_back,
    trains_under_ddp,
    on_step_depends_on_the_step_only,
    follows_the_device_of_its_input,
)
