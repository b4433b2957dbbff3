"""What a process reports to the supervisor, read out of the bytes of its pipe: any bytes in, reports or an error. Pure.

A report stands as a `multiprocessing.connection.Connection` sends it: its length in 4 bytes, then MessagePack.
"""

from __future__ import annotations

import msgspec

from taskengine.errors import ProtocolError

Report = tuple[str, str | bool]
"""What is reported, and a text, or a flag, that belongs to it."""
REPORT_BYTES = 2**16
"""The most bytes of a report."""
COMMON = frozenset({"online", "failed"})
"""What every process may report."""
LOADERS = COMMON | {"loading", "lacks"}
"""What those may report that load task modules."""
_LENGTH = 4
_decode = msgspec.msgpack.Decoder(Report).decode


class Reports:
    """The reports of one process, which may make those in `known`; it keeps no more than one that is incomplete."""

    def __init__(self, known: frozenset[str] = COMMON) -> None:
        self._known = known
        self._bytes = bytearray()

    def take(self, data: bytes) -> list[Report]:
        """The reports that are complete now. Raises ProtocolError for what is none; nothing behind it can be read."""
        self._bytes += data
        reports = []
        while len(self._bytes) >= _LENGTH:
            size = int.from_bytes(self._bytes[:_LENGTH])
            if size > REPORT_BYTES:
                raise ProtocolError(f"a report has at most {REPORT_BYTES} bytes, not {size}")
            if len(self._bytes) < _LENGTH + size:
                break
            reports.append(self._read(bytes(self._bytes[_LENGTH : _LENGTH + size])))
            del self._bytes[: _LENGTH + size]
        return reports

    def _read(self, body: bytes) -> Report:
        try:
            report = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(f"a report that cannot be read: {error}") from None
        if report[0] not in self._known:
            raise ProtocolError(f"a report that is not for this process to make: {report[0][:32]!r}")
        return report
