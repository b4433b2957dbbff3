"""The layouts, byte by byte, and the constants that stand in two places."""

from __future__ import annotations

import msgspec

from taskengine import _fastpath
from taskengine.config.settings import Settings
from taskengine.protocol import layouts, limits
from taskengine.protocol.messages import Priority, ReplyMode


def test_layouts_have_no_padding() -> None:
    assert [layout.size for layout in (layouts.COUNT, layouts.BATCH, layouts.SECTION, layouts.ENTRY)] == [4, 20, 54, 32]
    assert layouts.BATCH.pack(1, 2, 3).hex(" ", 4) == "01000000 00000000 02000000 03000000 00000000"
    assert layouts.ENTRY.pack(1, 2, 3, 4, 5, 6)[:20] == layouts.ENTRY.pack(1, 2, 3, 4, 9, 9)[:20]


def test_a_first_frame_tells_the_wire() -> None:
    assert layouts.MAGIC == b"TE\x02"
    assert layouts.MAGIC[-1] == layouts.VERSION
    assert not msgspec.json.encode({}).startswith(layouts.MAGIC[:1])


def test_limits_fit_into_their_fields() -> None:
    assert limits.MAX_MESSAGE < 2**32
    assert limits.MAX_BODY < limits.MAX_MESSAGE
    assert 4 * limits.MAX_TASKS <= limits.MAX_MESSAGE
    assert limits.MAX_TASKS <= layouts.NO_NAME


def test_reserved_extension_is_an_application_code() -> None:
    assert 0 <= layouts.ERROR_EXT <= 127


def test_defaults_before_the_engine_has_told_its_own() -> None:
    settings = Settings()
    assert settings.frontend == limits.DEFAULT_ADDRESS
    assert settings.response_time == limits.DEFAULT_RESPONSE_TIME
    assert settings.chunking_size * settings.task_workers == limits.DEFAULT_FULL_LOAD


def test_enumerations_match() -> None:
    assert len(Priority) == limits.PRIORITIES
    assert sorted(layouts.Format) == [0, 1, 2, 3]
    assert sorted(ReplyMode) == [0, 1, 2, 3, 4, 5]


def test_golden_package() -> None:
    calls = [("task_count", (2, 3), {}), ("arm.wave", [], {"times": 2}), ("task_count", (1.5, None), {})]
    names: dict[str, int] = {}
    index, body = _fastpath.pack_calls(calls, names)
    assert list(names) == ["task_count", "arm.wave"]
    assert index.hex(" ", 4) == "05000000 10000000 1d000000"
    tasks = ["92 00 92 02 03", "93 01 90 81 a5 74 69 6d 65 73 02", "92 00 92 cb 3f f8 00 00 00 00 00 00 c0"]
    assert body == bytes.fromhex(" ".join(tasks))


def test_golden_batch_and_answer() -> None:
    package = _fastpath.pack_map([[1, 2, 3]])
    section = (7, layouts.Format.PACKED, ReplyMode.ALL, 0, b"head", *package, 2, 1, 3, 1, 0, 1)
    batch = _fastpath.pack_batch(1, 5, [section])
    parts = [
        "0100000000000000 01000000 0500000000000000",
        "0700000000000000 0000000000000000",
        "02000000 01000000 02000000 01000000 00000000 01000000 04000000 08000000 04000000 00 00",
        b"head".hex(),
        "08000000 0c000000",
        "92 00 91 02 92 00 91 03",
    ]
    assert batch == bytes.fromhex(" ".join(parts))

    unhurried = _fastpath.pack_batch(1, 0, [section])
    answer = _fastpath.run_batch(unhurried, lambda head: [lambda a: a * 2], lambda *_: b"", lambda *_: (b"", 0))
    assert answer[:24] == bytes.fromhex("01000000 0700000000000000 01000000 02000000 00000000")
    assert answer[32:] == bytes.fromhex("02000000 04 06")
