"""What the checks of architectures apply to: the architecture as a whole, or some of its declared modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from zoo.nn.state import leaves
from zoo.testing.architectures.subject import ArchitectureSubject, random_input
from zoo.testing.check import Checks, NotDeclared

ARCHITECTURE_CHECKS = Checks()
check = ARCHITECTURE_CHECKS.add


@dataclass(frozen=True)
class Modes:
    """A scope with one case for each declared mode where `applies(case)`.

    capability  what the checks of this scope test, for reports
    reason      of NotDeclared, where no mode applies
    decoder     the case is the decoder of an encoder-decoder, as a causal backbone over the target
    """

    capability: str
    applies: Callable[[ArchitectureSubject], bool]
    reason: str
    decoder: bool = False

    def __call__(self, subject: ArchitectureSubject) -> list[ArchitectureSubject]:
        cases = [case for case in subject.cases() if self.applies(case)]
        if not cases:
            raise NotDeclared(self.reason)
        return [replace(case, decoder=self.decoder) for case in cases]


def declaration(subject: ArchitectureSubject) -> list[ArchitectureSubject]:
    """The architecture as a whole."""
    return [subject]


def is_forward(case: ArchitectureSubject) -> bool:
    """Whether the case is called by `forward` alone."""
    return case.mode != "seq2seq"


def is_seq2seq(case: ArchitectureSubject) -> bool:
    """Whether the case is an encoder-decoder."""
    return case.mode == "seq2seq"


def decoder_has_state(case: ArchitectureSubject) -> bool:
    """Whether the case is an encoder-decoder whose `decode` returns a state."""
    if not is_seq2seq(case):
        return False
    backbone = replace(case, decoder=True).build()
    return bool(leaves(backbone(random_input(backbone, 3)).state))


NEITHER = "neither causal nor bidirectional"
FORWARD = Modes("", is_forward, NEITHER)
EVERY_MODE = Modes("", lambda case: True, "no mode")
PADDED = Modes("padding", is_forward, NEITHER)
CAUSAL = Modes("mode causal", lambda case: case.mode == "causal", "no causal mode")
BIDIRECTIONAL = Modes("mode bidirectional", lambda case: case.mode == "bidirectional", "no bidirectional mode")
SEQ2SEQ = Modes("mode seq2seq", is_seq2seq, "no seq2seq mode")
STATEFUL = Modes("state", lambda case: case.stateful, "no state")
STATELESS = Modes("state none", lambda case: is_forward(case) and not case.stateful, "every mode carries a state")
CAUSAL_STATEFUL = Modes(
    "mode causal", lambda case: case.stateful and case.mode == "causal", "no causal mode with a state"
)
CHUNK_EXACT = Modes(
    "chunk_exact", lambda case: case.stateful and case.capabilities.chunk_exact, "chunk_exact is not declared"
)
STEP = Modes("step", lambda case: case.steps, "step is not declared")
SEGMENT = Modes("segment", lambda case: case.stateful and case.capabilities.segment, "not fed by segments")
DECODER = Modes("mode seq2seq", is_seq2seq, "no seq2seq mode", decoder=True)
STATEFUL_DECODER = Modes("mode seq2seq", decoder_has_state, "no decode that returns a state", decoder=True)
