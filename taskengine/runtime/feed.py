"""Carries the publications of tasks from each worker to each data worker, past the router.

A feed is a pair of sockets that the supervisor makes before it forks, so that it outlives the processes at both ends.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskengine import _fastpath
from taskengine.broker.topics import NO_DATA_WORKERS, owner
from taskengine.errors import BadArguments, Overloaded, ProtocolError
from taskengine.protocol.layouts import ENGINE_TOPICS, OWNED_TOPICS
from taskengine.protocol.limits import FEED_BYTES, MAX_TOPIC


class PublicationPipe(NamedTuple):
    """A feed: the end of the workers, and the end of the data worker."""

    write_end: socket.socket
    read_end: socket.socket


class _Feeds:
    """The feeds of this process: one for each data worker."""

    write_ends: Sequence[socket.socket] = ()
    owned: str | None = None
    """Tasks may not publish on topics with this prefix; None: on all topics they may."""


def new_feed() -> PublicationPipe:
    """Return a feed; neither of its ends blocks."""
    write_end, read_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (write_end, read_end):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, FEED_BYTES)
    return PublicationPipe(write_end, read_end)


def attach(feeds: Sequence[PublicationPipe], *, has_machine: bool = False) -> None:
    """Set the feeds by which tasks of this process publish. With `has_machine` the hardware's topics are not theirs."""
    _Feeds.write_ends = [feed.write_end for feed in feeds]
    _Feeds.owned = OWNED_TOPICS if has_machine else None


def publish(topic: str, value: Any) -> None:
    """Publish a value on a topic, in a task; clients use `Client.publish`. It does not wait.

    Raises Overloaded where the data worker takes no more just now, or the engine has none, and BadArguments for a value
    that cannot be sent.
    """
    if not (isinstance(topic, str) and 0 < len(topic.encode(errors="replace")) <= MAX_TOPIC):
        raise BadArguments(f"a topic is text of 1 to {MAX_TOPIC} bytes, not {topic!r:.100}")
    if topic.startswith(ENGINE_TOPICS):
        raise BadArguments(f"topics that begin with {ENGINE_TOPICS} are the engine's own: no task publishes there")
    if _Feeds.owned is not None and topic.startswith(_Feeds.owned):
        raise BadArguments(f"topics that begin with {_Feeds.owned} are the engine's own: no task publishes there")
    publish_owned(topic, value)


def publish_owned(topic: str, value: Any) -> None:
    """Do as `publish`, also on the engine's own topics. Only `taskengine_hardware` and the engine call it."""
    made = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if not _Feeds.write_ends:
        raise Overloaded(NO_DATA_WORKERS, retry_after=None)
    try:
        _Feeds.write_ends[owner(topic, len(_Feeds.write_ends))].send(_fastpath.encode([topic, value, made]))
    except BlockingIOError:
        raise Overloaded("the data worker has not taken what was published before", retry_after=None) from None
    except OSError as error:
        if error.errno != errno.EMSGSIZE:  # such as for want of buffers
            raise Overloaded(f"the system takes no publication: {error.strerror}", retry_after=None) from None
        raise BadArguments(f"a value that a task publishes has at most about {FEED_BYTES} bytes") from None


def receive(read_end: socket.socket) -> tuple[str, Any, int] | None:
    """Return the next publication: topic, value, and time by the engine's clock in ns. None where there is none.

    Raises ProtocolError for bytes that are no publication.
    """
    try:
        message = read_end.recv(2 * FEED_BYTES)
    except BlockingIOError:
        return None
    parts = _fastpath.unpack(message, 1, bytes)[0]
    if not (isinstance(parts, list) and len(parts) == 3 and isinstance(parts[2], int)):
        raise ProtocolError("a publication is a topic, a value, and when it was made")
    return parts[0], parts[1], parts[2]
