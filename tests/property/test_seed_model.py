"""Whatever stands in a TASK frame, the compiled reading and running does what `tests.seed_model` does with msgspec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.errors import ProtocolError
from tests import seed_model
from tests.batches import join_frames

# ---- what goes in: JSON as no sane program writes it

spaces = st.sampled_from([b""] * 12 + [b" ", b"\n", b"\t \r", b"\x0b", b"\xa0", b"\0", b"/**/"])
escapes = st.sampled_from(
    [rb"\"", rb"\\", rb"\/", rb"\b", rb"\f", rb"\n", rb"\r", rb"\t", rb"\u0000", rb"\u0061", rb"\u00e9", rb"\uFFFF"]
) | st.sampled_from(
    [rb"\ud83d\ude00", rb"\ud800", rb"\ude00", rb"\uD7ff", rb"\ue000", rb"\u12", rb"\u00g0", rb"\x41", b"\\", rb"\'"]
)
pieces = (
    st.text(max_size=12).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="surrogatepass"))
    | st.sampled_from(
        [b"a", b"eight by", b"0123456789abcdef0123456789abcdef", "é日😀".encode(), b"\x7f", b"\x1f", b'"']
    )
    | st.sampled_from(
        [b"\x80", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]
    )
    | st.sampled_from(
        [b"\xc2\x80", b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xff"]
    )
    | escapes
)
plain_texts = st.text("abc é", max_size=10).map(lambda text: b'"' + text.encode() + b'"')
texts = st.lists(pieces, max_size=4).map(lambda parts: b'"' + b"".join(parts) + b'"')
digits = st.text("0123456789", min_size=1, max_size=45) | st.sampled_from(["0", "1", "9" * 18, "9" * 19, "1" * 400])
odd_numbers = st.tuples(
    st.sampled_from(["", "", "", "-", "+"]),
    digits | st.just(""),
    st.just("") | digits.map(lambda text: "." + text) | st.just("."),
    st.just("") | st.from_regex(r"[eE][+-]?[0-9]{0,4}", fullmatch=True),
).map(lambda parts: "".join(parts).encode())
numbers = (
    st.integers().map(lambda number: str(number).encode())
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda number: repr(number).encode())
    | st.decimals(-(10**6), 10**6, places=3).map(lambda number: str(number).encode())
    | odd_numbers
)
words = st.sampled_from([b"true", b"false", b"null"] * 3 + [b"NaN", b"-Infinity", b"True", b"tru", b"nul", b""])
leaves = plain_texts | numbers | words | texts


def listed(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.tuples(spaces, inner, spaces).map(b"".join), max_size=4).map(
        lambda parts: b"[" + b",".join(parts) + b"]"
    )


def mapped(keys: st.SearchStrategy[bytes], inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    members = st.tuples(spaces, keys, spaces, st.just(b":"), spaces, inner, spaces).map(b"".join)
    return st.lists(members, max_size=4).map(lambda parts: b"{" + b",".join(parts) + b"}")


json_texts = st.recursive(
    leaves, lambda inner: listed(inner) | mapped(plain_texts | texts, inner), max_leaves=6
) | st.integers(25, 40).map(lambda depth: b"[" * depth + b"]" * depth)

NAMES = ["echo", "count", "kind", "fail", "keep", "none", "ech\u00f6", ""]
names = st.sampled_from(NAMES).map(lambda name: json.dumps(name, ensure_ascii=False).encode())
plain_values = (
    st.sampled_from([b"2", b"-7", b"2.5", b"1e3", b"-0", b"-0.0", b"1E5", b'"text"', b"true", b"null"]) | numbers
)
FIELDS: dict[bytes, st.SearchStrategy[bytes]] = {
    b'"task"': names | names | names | json_texts,
    b'"args"': listed(plain_values) | listed(plain_values) | listed(json_texts) | json_texts,
    b'"kwargs"': st.just(b"{}") | st.just(b"{ }") | mapped(st.sampled_from([b'"a"', b'"b"']), json_texts) | json_texts,
    b'"pack"': plain_texts | numbers | texts | json_texts,
    b'"more"': json_texts,
    rb'"t\u0061sk"': names,
    rb'"arg\u0073"': listed(leaves),
}


@st.composite
def whole_frames(draw: st.DrawFn) -> bytes:
    """A TASK frame with any of its members, in any order, now and then one twice."""
    usual = [b'"task"', b'"args"', b'"kwargs"', b'"pack"']
    keys = draw(
        st.just(usual) | st.permutations(usual) | st.lists(st.sampled_from(sorted(FIELDS)), max_size=6).map(list)
    )
    members = [
        b"".join([draw(spaces), key, draw(spaces), b":", draw(spaces), draw(FIELDS[key]), draw(spaces)]) for key in keys
    ]
    return draw(spaces) + b"{" + b",".join(members) + b"}" + draw(spaces)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with some changed, lost or added, but never none."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(data)))
        lost = draw(st.integers(0, 3))
        data[at : at + lost] = draw(
            st.binary(max_size=2) | st.sampled_from([b",", b"{", b"}", b'"', b"\\", b"0", b" "])
        )
    return bytes(data) or b"{"


@st.composite
def ordinary_frames(draw: st.DrawFn) -> bytes:
    """A TASK frame as a client's JSON library writes it."""
    value = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=9) | st.booleans() | st.none()
    task = {
        "task": draw(st.sampled_from(NAMES)),
        "args": draw(st.lists(value | st.lists(value, max_size=3), max_size=4)),
        "kwargs": draw(st.just({}) | st.dictionaries(st.sampled_from("ab"), value, max_size=2)),
        "pack": draw(st.text(max_size=9) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    }
    return json.dumps(task, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")


any_frame = ordinary_frames() | whole_frames() | whole_frames().flatmap(damaged) | ordinary_frames().flatmap(damaged)


# ---- the router


def outcome(function: Callable[..., Any], *args: Any) -> object:
    try:
        return function(*args)
    except ProtocolError as error:
        return str(error)


@settings(max_examples=500)
@given(st.lists(any_frame, max_size=3))
@example([b'{"task": "a", "task": "b"}', rb'{"t\u0061sk": "a"}', b'{"task": "a"}{"task": "b"}'])
@example([b'{"task": "echo"}', b'{"task":"echo","pack":' + b"1" * 5000 + b"}", b'{"task":"echo","args":[1e999]}'])
@example([b'{"task": "echo", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}"])
def test_names(frames: list[bytes]) -> None:
    assert outcome(_fastpath.frame_names, *join_frames(frames), seed_model.name_of) == outcome(
        seed_model.frame_names, frames
    )
