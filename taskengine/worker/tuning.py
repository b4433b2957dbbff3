"""How much a data worker keeps for its subscribers, and what bounds coroutines and generators."""

from __future__ import annotations

from typing import Final

SUBSCRIPTIONS_KEPT: Final = 2048
"""Subscriptions of all clients at a data worker; what a key, or without keys a connection, has is at most half."""
REPLAY_RATE: Final = 4 * 2**20
"""Bytes of last values in a second that a connection is given when it subscribes, and that all get with others."""
UNTAKEN_BYTES: Final = 16 * 2**20
"""Bytes of publications that subscribers have not taken, from which on the idlest of them are cut off,"""
MOST_UNTAKEN: Final = 64 * 2**20
"""and from which on nothing more is sent to anybody."""
CANCEL_GRACE_S: Final = 1.0
"""How long, in s, a coroutine may take to end once it was cancelled for its timeout; then its worker is killed."""
MOST_LISTED: Final = 10_000
"""Values of a generator that is called, as a list, and not streamed."""
STREAM_LOOK_S: Final = 1.0
"""How long, in s, a generator waits for credit at a time; its worker's log lines are written in between."""
