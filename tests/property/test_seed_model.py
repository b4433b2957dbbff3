"""Whatever stands in a TASK frame, the compiled reading and running does what `tests.seed_model` does with msgspec."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskengine import _fastpath
from taskengine.broker.legacy_json import TaskFrames
from taskengine.broker.package import encode_head
from taskengine.errors import ProtocolError, TaskEngineError, UnknownTask
from taskengine.protocol import layouts, limits
from taskengine.worker.worker import as_failure
from tests import seed_model
from tests.batches import Failures, join_frames, no_foreign, section_of
from tests.emulation import examples

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


@settings(max_examples=examples(500))
@given(st.lists(any_frame, max_size=3))
@example([b'{"task": "a", "task": "b"}', rb'{"t\u0061sk": "a"}', b'{"task": "a"}{"task": "b"}'])
@example([b'{"task": "echo"}', b'{"task":"echo","pack":' + b"1" * 5000 + b"}", b'{"task":"echo","args":[1e999]}'])
@example([b'{"task": "echo", "x": ' + b"[" * 2000 + b"]" * 2000 + b"}"])
def test_names(frames: list[bytes]) -> None:
    assert outcome(_fastpath.frame_names, *join_frames(frames), seed_model.name_of) == outcome(
        seed_model.frame_names, frames
    )


# ---- the worker


class Text(str):
    """A str that compiled code does not know."""


class Count(int):
    """An int that compiled code does not know."""


def count(a: Any, b: Any) -> Any:
    return (a + b) / 2


def kind(*args: Any) -> Any:
    """A result of each kind in turn."""
    odd = [
        Text("x"),
        Count(3),
        b"\x00\xff",
        "\ud800",
        'a "quote"',
        "\\",
        "\x1f",
        "é\x7f",
        object(),
        {"a": [1, None]},
        (1,),
    ]
    return [*odd, 2**70, -(2**63), 2**30, -1, 0, 0.1, 1e16, -1e-7, float("nan"), float("inf")][len(str(args)) % 21]


def fail(*args: Any) -> Any:
    raise [ValueError, TypeError, KeyboardInterrupt, SystemExit, UnknownTask][len(str(args)) % 5](args)


KEPT: list[Any] = []
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "echo": lambda *args, **kwargs: args[0] if args else kwargs,
    "ech\u00f6": lambda *args, **kwargs: [args, kwargs],
    "count": count,
    "kind": kind,
    "fail": fail,
    "keep": KEPT.append,
    "": divmod,
}


def failure(name: str, error: BaseException | None) -> TaskEngineError:
    return UnknownTask(f"no {name}") if error is None else as_failure(name, error)


Find = Callable[[str], Callable[..., Any] | None]


def run(frames: list[bytes], pack: bytes = b"0", find: Find = FUNCTIONS.get) -> tuple[list[Any], bytes, int]:
    """Return the kept results, the DATA frame and the number of failures, by the compiled code."""
    KEPT.clear()
    section = section_of(join_frames(frames), format=layouts.Format.LEGACY_JSON, head=encode_head("serial", pack))
    batch = _fastpath.pack_batch(1, 0, [section])
    answer = _fastpath.run_batch(batch, lambda head: [], Failures(), no_foreign, TaskFrames(find, failure))
    ((_, _, _, failed, _, body),) = _fastpath.read_answer(answer)
    return list(KEPT), body, failed


def expected(frames: list[bytes], pack: bytes = b"0", find: Find = FUNCTIONS.get) -> tuple[list[Any], bytes, int]:
    """The same from the model."""
    KEPT.clear()
    body, failed = seed_model.run_chunk(pack, frames, find, failure, limits.MAX_BODY)
    return list(KEPT), body, failed


def is_accepted(frame: bytes) -> bool:
    """The router lets the frame through to a worker."""
    try:
        seed_model.name_of(frame, 0)
    except ProtocolError:
        return False
    return True


packs = st.sampled_from([b"1483507553.307392", b"0", b'"x"', rb'"\u00e9"'])


@settings(max_examples=examples(500))
@given(st.lists(ordinary_frames() | any_frame, max_size=5), packs)
def test_a_chunk(sent: list[bytes], pack: bytes) -> None:
    frames = list(filter(is_accepted, [b'{"task": "echo"}', *sent]))
    kept, body, failed = run(frames, pack)
    kept_by_model, *answer = expected(frames, pack)
    assert [body, failed] == answer
    assert repr(kept) == repr(kept_by_model)
    assert len(json.loads(body)["data"]) == len(frames)


short_decimals = st.builds(lambda n, k: n / 10**k, st.integers(-(10**17), 10**17), st.integers(0, 5))


@settings(max_examples=examples(1000))
@given(st.floats() | short_decimals | st.integers(1, 10**6).map(lambda n: 1 / n) | st.integers())
def test_a_number_is_written_as_python_writes_it(value: float) -> None:
    assert run([b'{"task": "x"}'], find=lambda name: lambda: value)[1] == (
        b'{"size":1,"data":["job-: %b"],"pack":0,"errors":[]}' % str(value).encode()
    )


@settings(max_examples=examples(1000))
@given(numbers | short_decimals.map(lambda number: repr(number).encode()))
def test_a_number_is_read_as_msgspec_reads_it(number: bytes) -> None:
    frame = b'{"task": "keep", "args": [%b]}' % number
    if is_accepted(frame):
        assert repr(run([frame])) == repr(expected([frame]))


@given(st.text() | st.text('a\\"\x1f\x7f\ud800é'))
def test_text_is_written_as_msgspec_writes_it(text: str) -> None:
    assert run([b'{"task": "x"}'], find=lambda name: lambda: text) == expected(
        [b'{"task": "x"}'], find=lambda name: lambda: text
    )
