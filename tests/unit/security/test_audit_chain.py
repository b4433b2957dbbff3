"""Sealed lines: whatever is done to them but for cutting off the end is found."""

from __future__ import annotations

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from taskengine.security.audit_chain import seal_of, sealed, verify


def chain(texts: list[str], after: str = "") -> list[bytes]:
    lines, seal = [], after
    for place, text in enumerate(texts):
        fields = {"text": text} | ({} if place else {"after": after})
        lines.append(sealed(msgspec.json.encode(fields), seal))
        seal = seal_of(lines[-1]) or ""
    return lines


LINES = st.lists(st.text(max_size=20), min_size=1, max_size=8)


@given(LINES, st.sampled_from(["", "ab" * 32]))
def test_what_was_written_is_right(texts: list[str], after: str) -> None:
    lines = chain(texts, after)
    found = verify(lines)
    assert (found.sealed, found.wrong, found.begun) == (len(texts), [], after)
    assert found.last == seal_of(lines[-1])
    assert [msgspec.json.decode(line)["text"] for line in lines] == texts


@given(LINES, st.data())
def test_a_change_is_found(texts: list[str], data: st.DataObject) -> None:
    lines = chain(texts)
    place = data.draw(st.integers(0, len(lines) - 1))
    changed = bytearray(lines[place])
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    found = verify([*lines[:place], bytes(changed), *lines[place + 1 :]])
    assert found.wrong or (len(lines), found.unsealed) == (1, 1), "the only line may lose its seal"


@given(LINES, st.data())
def test_a_line_that_is_taken_out_added_or_moved_is_found(texts: list[str], data: st.DataObject) -> None:
    lines = chain([*texts, "end"])
    place = data.draw(st.integers(0, len(lines) - 2))
    assert verify(lines[:place] + lines[place + 1 :]).wrong
    assert verify([*lines[:place], lines[-1], *lines[place:]]).wrong
    swapped = [*lines]
    swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
    assert verify(swapped).wrong


@given(LINES, st.binary(max_size=40))
def test_lines_of_before_may_have_no_seal_but_none_in_between(texts: list[str], line: bytes) -> None:
    assume(b'"chain"' not in line)
    lines = chain(texts)
    found = verify([line, *lines])
    assert (found.wrong, found.unsealed) == ([], 1)
    assert verify([*lines, line]).wrong == [(len(lines) + 1, "the line has no seal")]
    assert verify([]) == (0, "", [], "", 0)


def test_a_first_line_that_says_nothing_of_what_it_came_after() -> None:
    for body in (b"no JSON}", b"[1]}", b'{"after":7}'):
        assert verify([sealed(body, "")]).begun == ""
