"""Templates of plugin packages for `zoo new`."""

from zoo.scaffold.write import Package, write

__all__ = ["Package", "write"]
