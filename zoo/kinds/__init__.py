"""Kinds of tasks: each decides how examples become batches, which model answers them, and how answers are scored."""

from zoo.kinds.base import TaskKind

__all__ = ["TaskKind"]
