"""These tests need network namespaces, which `make test-network` gives them as root; `make test` leaves them to it."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("NETWORK_NAMESPACES") else ["test_*.py"]
