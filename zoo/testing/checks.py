"""Every check there is, in the order in which they run: from what is said to what is built, computed and learned."""

from __future__ import annotations

from zoo.testing import (
    checks_build,
    checks_decode,
    checks_decode_state,
    checks_growth,
    checks_learning,
    checks_mixing,
    checks_padding,
    checks_state,
)
from zoo.testing.check import Check

CHECKS: tuple[Check, ...] = (
    *checks_build.CHECKS,
    *checks_mixing.CHECKS,
    *checks_padding.CHECKS,
    *checks_state.CHECKS,
    *checks_decode.CHECKS,
    *checks_decode_state.CHECKS,
    *checks_growth.CHECKS,
    *checks_learning.CHECKS,
)
