"""The limits of what a data worker keeps for its subscribers, and of cancelled coroutines and generators."""

from __future__ import annotations

from typing import Final

MAX_SUBSCRIPTIONS: Final = 2048
"""The most subscriptions at a data worker. A key, or without keys a connection, may have half of them."""
REPLAY_RATE: Final = 4 * 2**20
"""Bytes of last values a second: each owner of connections gets so many alone, and all get so many together."""
SOFT_UNTAKEN_BYTES: Final = 16 * 2**20
"""From so many bytes on that subscribers have not taken, those that read least are cut off."""
MAX_UNTAKEN_BYTES: Final = 64 * 2**20
"""From so many bytes on that subscribers have not taken, nothing more is sent."""
CANCEL_GRACE_S: Final = 1.0
"""How long, in s, a coroutine may take to end once it was cancelled for its timeout; then its worker is killed."""
MOST_LISTED: Final = 10_000
"""Values of a generator that is called, as a list, and not streamed."""
STREAM_LOOK_S: Final = 1.0
"""How long, in s, a generator waits for credit at a time; its worker's log lines are written in between."""
