"""These tests boot a systemd of their own, as root, by `make test-systemd`; `make test` leaves them to it."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("BOOTS_SYSTEMD") else ["test_*.py"]
