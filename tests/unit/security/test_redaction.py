"""Redaction of errors: which paths are shortened, and that the rest stays as it is."""

from __future__ import annotations

import time

import msgspec
import pytest

from taskengine.broker import legacy_json
from taskengine.config.settings import Settings
from taskengine.errors import BadArguments, TaskEngineError, TaskFailed, UnknownTask
from taskengine.registry.registry import Registry
from taskengine.security.redaction import discreet, without_folders
from taskengine.worker.worker import BatchRunner, as_failure
from tests.engine import deadline


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[Errno 2] No such file or directory: '/home/pi/robot/map.png'", "No such file or directory: 'map.png'"),
        ("'/home/pi/my robot/map of home.png' is gone", "'map of home.png' is gone"),
        ('"/home/pi/robot/" is a folder', '"robot/" is a folder'),
        ("cannot read /etc/taskengine/keys, sorry", "cannot read keys, sorry"),
        ("(/usr/lib/x.py:12)", "(x.py:12)"),
        ("path=/srv/robot/a.toml", "path=a.toml"),
        ("see file:///home/pi/index.html", "see file://index.html"),
        ("/srv//robot///x", "x"),
        ("/a/b /c/d\n/e/f", "b d\nf"),
        ("PosixPath('/srv/robot/x')", "PosixPath('x')"),
        ("from '/srv/a/x' to '/srv/b/y'", "from 'x' to 'y'"),
        ("no //srv/secret/x", "no x"),
        ("gcc -I/usr/secret/x -L/home/pi/y", "gcc -Ix -Ly"),
        ("-I/home/pi/x", "-Ix"),
        ("--keys=/home/pi/x", "--keys=x"),
        ("--/home/pi/x", "--x"),
        ("~pi/secret/x and ~pi/x and ~/secret/x", "x and x and x"),
        ("'~pi/my secret/x'", "'x'"),
        ("../../home/pi/x", "x"),
        ("file:/home/pi/x file://localhost/home/pi/x file:///x", "file:x file://localhostx file://x"),
        ("pi@robot:/home/pi/x", "pi@robot:x"),
        ("/usr/bin:/home/pi/x", "x"),
        ("/home/o'brien/x", "x"),
        ('"/home/o\'brien/my robot/x"', '"x"'),
        ("`/home/my robot/x`", "`x`"),
        ("b'/home/pi/x'", "b'x'"),
        (r"C:\Users\pi\x", "x"),
        (r"'C:\\Users\\pi\\x' D:/home/x", "'x' x"),
        (r"\\server\secret\x", "x"),
    ],
)
def test_of_a_path_its_end_is_left(text: str, told: str) -> None:
    assert without_folders(text).endswith(told)
    assert not [word for word in ("/home", "secret", "pi/", "Users") if word in without_folders(text)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "boom",
        "3/4 of 1/2",
        "12 m/s",
        "/",
        "a / b / c",
        "tcp://127.0.0.1:9000",
        "http://robot.local/status/now",
        "robot/arm.py",
        "./robot/arm.py and ../arm.py and ~/arm.py",
        "/dev",
        "don't divide by a/b",
        "1/2/3 and/or/else",
        "https://robot.local//status/now",
        "a: b\\nc",
        "\\d+\\w+",
    ],
)
def test_what_is_no_path_of_the_machine_stays(text: str) -> None:
    assert without_folders(text) == text


def test_a_long_text_takes_no_long_time() -> None:
    began = time.process_time()
    pieces = (
        "(/",
        "/a",
        "'/",
        "/ ",
        "//",
        "/x(//",
        "'/\"/`/",
        "~a/",
        "../",
        "C:/",
        "\\\\a",
        "file:/",
        "-I/",
        "'/ a",
        "a'/",
    )
    for piece in pieces:
        without_folders(piece * 100_000)
    for start in ("'/", "~a/", "../", "C:\\", "\\\\", "file:///"):
        without_folders(start + "a" * 400_000)
    assert time.process_time() - began < deadline(10)


def test_a_discreet_error_is_of_the_same_kind() -> None:
    failed = discreet(TaskFailed("OSError: /srv/a/b", type="OSError", traceback="/srv/a/b.py"))
    assert isinstance(failed, TaskFailed)
    assert failed.message == "OSError: b"
    assert failed.fields == {"type": "OSError", "traceback": ""}
    unknown = discreet(UnknownTask("no /srv/a/b", name="/srv/a/b", nearest=["x"]))
    assert (type(unknown), unknown.fields) == (UnknownTask, {"name": "b", "nearest": ["x"]})


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("tells_all", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "/srv/secret/x"),
        TypeError("/srv/secret/x"),
        TaskFailed("/srv/secret/x", traceback="/srv/secret/x"),
        BadArguments("/srv/secret/x"),
        KeyError("/srv/secret/x" + 5000 * "/x"),
    ],
)
def test_an_exception_of_a_task_tells_folders_only_where_all_is_told(error: BaseException, *, tells_all: bool) -> None:
    failure = as_failure("name", raised(error), tells_all=tells_all)
    assert ("secret" in str(failure)) == tells_all
    assert ("secret" in repr(failure.fields)) <= tells_all
    if isinstance(failure, TaskFailed):
        assert bool(failure.traceback) == tells_all


@pytest.mark.parametrize("tells_all", [True, False])
def test_so_does_a_task_of_wire_01(*, tells_all: bool) -> None:
    def failure(name: str, error: BaseException | None) -> TaskEngineError:
        assert error is not None
        return as_failure(name, error, tells_all=tells_all)

    def fail() -> None:
        raise OSError("/srv/secret/x")

    frames = legacy_json.TaskFrames({"fail": fail}.get, failure)
    entry, failed = frames.run(b'{"task": "fail", "pack": "p"}', 1000)
    assert failed
    assert msgspec.json.decode(entry) == f"job-p: ERROR: OSError: {'/srv/secret/x' if tells_all else 'x'}"


def test_a_worker_tells_what_the_settings_say() -> None:
    turn = BatchRunner(Registry(), tells_all=False)
    error = raised(OSError("/srv/secret/x"))
    assert str(turn._failure("name", error)) == "OSError: x"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(), True),
        (Settings(host="::1"), True),
        (Settings(host="0.0.0.0"), False),
        (Settings(host="0.0.0.0", curve="off", insecure=True), False),
        (Settings(curve="on"), False),
        (Settings(curve="on", tracebacks="on"), True),
        (Settings(host="0.0.0.0", tracebacks="on"), True),
        (Settings(tracebacks="off"), False),
    ],
)
def test_when_tracebacks_are_sent(settings: Settings, *, told: bool) -> None:
    assert settings.has_tracebacks == told
