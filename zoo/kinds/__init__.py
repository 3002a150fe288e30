"""Kinds of tasks: each decides how examples become batches, which model answers them, and how answers are scored."""

from zoo.kinds.base import TaskKind, load_kind

__all__ = ["TaskKind", "load_kind"]
