"""The conformance checks of architectures, in the order in which they run."""

from zoo.testing.architectures import decoder, forward, growth, mixing, padding, state, training
from zoo.testing.check import checks_in

ARCHITECTURE_CHECKS = checks_in(forward, mixing, padding, state, decoder, growth, training)
