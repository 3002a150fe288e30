"""What the checks of architectures apply to: the architecture as a whole, or some of its declared modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zoo.nn.state import leaves
from zoo.testing.architectures.subject import ArchitectureSubject, random_input
from zoo.testing.check import Checks, NotDeclared, Scope

ARCHITECTURE_CHECKS = Checks()
check = ARCHITECTURE_CHECKS.add


def modes(applies: Callable[[ArchitectureSubject], bool], reason: str) -> Scope:
    """A scope with one case for each declared mode where `applies(case)`; NotDeclared(reason) where there is none."""

    def scope(subject: ArchitectureSubject) -> list[ArchitectureSubject]:
        cases = [case for case in subject.cases() if applies(case)]
        if not cases:
            raise NotDeclared(reason)
        return cases

    return scope


def declaration(subject: ArchitectureSubject) -> list[ArchitectureSubject]:
    """The architecture as a whole."""
    return [subject]


FORWARD = modes(lambda case: case.mode != "seq2seq", "neither causal nor bidirectional")
CAUSAL = modes(lambda case: case.mode == "causal", "no causal mode")
BIDIRECTIONAL = modes(lambda case: case.mode == "bidirectional", "no bidirectional mode")
SEQ2SEQ = modes(lambda case: case.mode == "seq2seq", "no seq2seq mode")
STATEFUL = modes(lambda case: case.stateful, "no state")
STATELESS = modes(lambda case: case.mode != "seq2seq" and not case.stateful, "every mode carries a state")
CAUSAL_STATEFUL = modes(lambda case: case.stateful and case.mode == "causal", "no causal mode with a state")
CHUNK_EXACT = modes(lambda case: case.stateful and case.capabilities.chunk_exact, "chunk_exact is not declared")
STEP = modes(lambda case: case.stateful and case.capabilities.step, "step is not declared")
SEGMENT = modes(lambda case: case.stateful and case.capabilities.segment, "not fed by segments")


def DECODER(subject: ArchitectureSubject) -> list[ArchitectureSubject]:
    """The decoder of an encoder-decoder, as a causal backbone over the target."""
    return [replace(case, decoder=True) for case in SEQ2SEQ(subject)]


def STATEFUL_DECODER(subject: ArchitectureSubject) -> list[ArchitectureSubject]:
    """The decoder of an encoder-decoder, where it returns a state."""
    (case,) = DECODER(subject)
    backbone = case.build()
    if not leaves(backbone(random_input(backbone, 3)).state):
        raise NotDeclared("decode returns no state")
    return [case]
