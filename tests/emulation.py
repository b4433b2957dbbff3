"""How many examples Hypothesis tries, and what QEMU (`make test-arm`), which emulates a processor, leaves out."""

from __future__ import annotations

import os

EMULATED = bool(os.environ.get("EMULATED_BY_QEMU"))
"""Whether this is an emulated root. A test that fails there alone has `pytest.mark.xfail(EMULATED, reason=...)`."""
SLOWER = 20
THOROUGH = bool(os.environ.get("ALL_EXAMPLES"))
"""Whether all examples are tried, as `make test-fuzz` has it; otherwise a third of them, and no fewer than LEAST."""
LEAST = 50


def examples(number: int) -> int:
    """Return how many of so many examples Hypothesis is to try: as many fewer as the emulator is slower."""
    if EMULATED:
        return max(number // SLOWER, 1)
    return number if THOROUGH else max(number // 3, min(number, LEAST))
