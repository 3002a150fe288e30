"""Writing a plugin package that works before its author has changed a line."""

from zoo.scaffold.write import Written, write

__all__ = ["Written", "write"]
