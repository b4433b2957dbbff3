"""Where QEMU emulates the processor (`make test-arm`): of what tests do less there, and what fails for its sake."""

from __future__ import annotations

import os

EMULATED = bool(os.environ.get("EMULATED_BY_QEMU"))
"""Whether this is an emulated root. A test that fails there alone has `pytest.mark.xfail(EMULATED, reason=...)`."""
SLOWER = 20


def examples(number: int) -> int:
    """Return how many examples Hypothesis is to try, as many fewer as the emulator is slower."""
    return max(number // SLOWER, 1) if EMULATED else number
