"""These tests need Node, which `make test-clients` installs; `make test` leaves them to it."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("OTHER_CLIENTS") else ["test_*.py"]
