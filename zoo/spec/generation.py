"""What generating a token costs by the length of the context before it (`zoo cost --generation`). No torch.

GENERATION/PROTOCOL/TASK/ARCHITECTURE/SHAPE.json, one for each shape; a new measurement replaces it. GENERATION lies
beside the results.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from zoo.spec.cost import ShortHash, TimingInfo
from zoo.spec.record import Amount, ArchitectureInfo, Count, JsonObject, Positive, RecordPart, Text, Time
from zoo.spec.store import BesideRecord

GENERATION_SCHEMA: Final = 1
"""The schema version that this zoo writes."""


class GenerationAt(RecordPart):
    """One more token after `context` tokens of one text.

    state_bytes  that are carried of it, the same on every machine: a state, keys and values, an encoded source; 0: the
                 text is read again
    latency      seconds that the token takes, without the head; None: not measured
    """

    context: Positive
    state_bytes: Count
    latency: TimingInfo | None = None


class GenerationCost(RecordPart, BesideRecord):
    """What generation costs an architecture, at the size that it has on a task.

    shape    hash of what decides the cost, as of a cost record
    machine  where latencies were measured, and `others` how many cores other processes kept busy; empty without
    """

    folder = "generation"

    schema_version: Annotated[int, Field(ge=1)] = GENERATION_SCHEMA
    architecture: ArchitectureInfo
    task: Text
    protocol: Text
    config: JsonObject
    shape: ShortHash
    parameters: Count
    points: tuple[GenerationAt, ...]
    machine: str = ""
    others: Amount = 0.0
    versions: dict[str, str]
    measured: Time

    @property
    def id(self) -> str:
        return f"{self.protocol}/{self.task}/{self.architecture.name}/{self.shape}"
