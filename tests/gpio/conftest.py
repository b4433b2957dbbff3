"""These tests need a gpiochip of gpio-sim, which `make test-gpio` gives them; `make test` leaves them to it."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("GPIO_SIM") else ["test_*.py"]
