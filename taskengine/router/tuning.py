"""How much the router keeps for clients that do not read."""

from __future__ import annotations

from typing import Final

UNREAD_BYTES: Final = 16 * 2**20
"""Bytes of replies that the router keeps for a client that does not read them; one reply may be larger."""
UNREAD_KEY_BYTES: Final = 4 * UNREAD_BYTES
"""And for all connections of one key,"""
UNREAD_ALL_BYTES: Final = 2**28
"""and for all clients, of which each leaves half of what is free to others,"""
UNREAD_LEAST_BYTES: Final = 2**16
"""but for so many bytes."""
UNREAD_SMALL_BYTES: Final = 2**25
"""Bytes of small replies, for one key: a client that leaves more unread is cut off."""
UNREAD_MESSAGES: Final = 16384
"""Replies that it keeps, whatever their size."""
UNREAD_REQUESTS: Final = 16
"""Requests of a connection that ZeroMQ reads before the router takes them; others wait in TCP, and at the client. No
quota counts these, so that their bytes times the connections is memory that one key can take. A higher number makes
very small requests cheaper that a client sends without waiting for replies: 100 by some 15 %."""
RUN_S: Final = 1e-5
"""Time of the router, in s, that each change of lane in a package takes after it is accepted; its client is charged."""
UNREAD_PARTS: Final = 1024
"""Partial replies that it sends to a client before that has read them; later entries are joined meanwhile."""
UNREAD_REPORTS: Final = 64
"""Reports of progress that it sends to a client before that has read them; later ones replace each other meanwhile."""
LATE_S: Final = 0.0015
"""The shortest time, in s, between two checks whether such a client has read."""
PART_S: Final = 0.0007
"""How long, in s, an entry waits for others of its package before a partial reply is sent."""
