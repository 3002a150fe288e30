"""The toys' configuration, in a package whose presets name settings that do not exist."""

from tests.testing.toys.config import ToyConfig as ToyConfig
