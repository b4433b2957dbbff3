"""The errors for releases of taskengine that do not fit together: each names both, and what to do about it."""

from __future__ import annotations

import sys

import msgspec

from taskengine.errors import ProtocolError
from taskengine.protocol.layouts import MAGIC, VERSION

_NAME = MAGIC[:2]
"""How the messages of each wire since 0.2 begin; the byte after it is the wire's."""
_TOLD_CHARS = 200
_TOLD_BYTES = 4096
"""The largest reply of wire 0.1 whose error is read."""


def release() -> str:
    """Return this release, such as "0.2.0"; "" while the package is still being imported."""
    return str(getattr(sys.modules["taskengine"], "__version__", ""))


def check_build(module: str, built_for: str) -> None:
    """Check that a compiled module is of the release that the Python files beside it are of; "" fits all.

    Raises ImportError.
    """
    if built_for and release() not in ("", built_for):
        raise ImportError(
            f"{module} was compiled for taskengine {built_for}, and the Python files beside it are of {release()}: "
            "install one of the two whole (`pip install --force-reinstall WHEEL`; in a clone `make run`)",
            name=module,
        )


def foreign_request(head: bytes) -> ProtocolError | None:
    """Return the error for a client whose wire this engine does not know; None if it is no such client."""
    if not head.startswith(_NAME) or head.startswith(MAGIC) or len(head) < len(MAGIC):
        return None
    return ProtocolError(
        f"the client speaks wire 0.{head[2]}, and this engine, taskengine {release()}, wire 0.{VERSION} at most: "
        "install the same release on both machines"
    )


def foreign_reply(head: bytes, address: str) -> ProtocolError | None:
    """Return the error for an engine whose wire this client does not know; None if the reply is of ours."""
    ours = f"this client, taskengine {release()}, wire 0.{VERSION}: install the same release on both machines"
    if head.startswith(_NAME) and len(head) >= len(MAGIC) and not head.startswith(MAGIC):
        return ProtocolError(f"the engine at {address} speaks wire 0.{head[2]}, and {ours}")
    if head.startswith(b"{"):
        told = _told(head) if len(head) <= _TOLD_BYTES else ""
        said = f" (it said: {told[:_TOLD_CHARS]})" if told else ""
        return ProtocolError(f"the engine at {address} does not know wire 0.{VERSION}{said}, and {ours}")
    return None


def _told(head: bytes) -> str:
    """Return the error of a reply of wire 0.1, "" where it tells none."""
    try:
        return str(msgspec.json.decode(head).get("error") or "")
    except (msgspec.MsgspecError, ValueError, AttributeError, RecursionError):
        return ""


def lacks(engine_release: str, what: str) -> str:
    """Return the message for an engine, of a release that is "" where it does not say so, that cannot do something."""
    theirs = f"taskengine {engine_release}" if engine_release else "a taskengine before 0.2"
    return f"the engine is {theirs}, which {what}; this client is {release()}: install its release on the robot"
