"""Checkpoints of others: read, checked tensor by tensor, written back."""

from zoo.convert.checkpoint import convert, load
from zoo.convert.model import Converted

__all__ = ["Converted", "convert", "load"]
