"""The conformance checks of architectures, in the order in which they run."""

from zoo.testing.architectures import forward, mixing, state, decoder, growth, training, tracing  # noqa: F401, I001
from zoo.testing.architectures.scopes import ARCHITECTURE_CHECKS as ARCHITECTURE_CHECKS
