from __future__ import annotations

import pytest

from taskengine_hardware.lane_notes import NOTE_BYTES, WORDS, LaneNote, LaneNotes


@pytest.fixture
def words() -> memoryview:
    return memoryview(bytearray(8 * WORDS * 2)).cast("q")


@pytest.fixture
def notes(words: memoryview) -> LaneNotes:
    return LaneNotes(["hardware", "legs"], words, memoryview(bytearray(NOTE_BYTES * 2)))


NOTE = LaneNote({"near": "near: nose < 0.5"}, ["estop: the stop input is open"])


def test_a_note_is_read_as_it_was_written(notes: LaneNotes) -> None:
    assert notes.read("hardware") == LaneNote() == notes.all()
    assert notes.write("hardware", NOTE)
    assert not notes.write("hardware", NOTE)
    assert notes.read("hardware") == NOTE
    assert notes.read("legs") == LaneNote()
    assert notes.write("legs", LaneNote({"far": "far: it is"}, NOTE.reasons))
    assert notes.all() == LaneNote({**NOTE.rules, "far": "far: it is"}, NOTE.reasons)
    assert notes.write("hardware", LaneNote())
    assert notes.read("hardware") == LaneNote()


def test_a_note_whose_writer_has_died_speaks_against_an_arm_until_the_next_one(
    notes: LaneNotes, words: memoryview
) -> None:
    notes.write("hardware", NOTE)
    words[0] |= 1
    assert notes.read("hardware").reasons == ["nobody knows the rules of lane hardware, whose owner has died"]
    assert notes.write("hardware", NOTE)
    assert notes.read("hardware") == NOTE


def test_a_note_that_is_torn_is_not_believed(notes: LaneNotes, words: memoryview) -> None:
    notes.write("hardware", NOTE)
    words[1] -= 3
    assert "nobody knows" in notes.read("hardware").reasons[0]


def test_of_too_many_reasons_one_is_kept_at_least(notes: LaneNotes) -> None:
    many = [f"{number} {'x' * 500}" for number in range(20)]
    notes.write("hardware", LaneNote({reason: reason for reason in many}, many))
    assert 1 <= len(notes.read("hardware").reasons) < 20
    notes.write("hardware", LaneNote({}, ["x" * 10_000]))
    (reason,) = notes.read("hardware").reasons
    assert reason.startswith("xxx")
