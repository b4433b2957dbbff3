from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import taskengine
from taskengine.protocol.layouts import MAGIC
from taskengine.protocol.release import check_build, foreign_reply, foreign_request, lacks, release

HERE = release()
ADDRESS = "tcp://robot:9000"


def test_the_release_is_one_in_all_places() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == taskengine.__version__ == HERE


def test_a_module_that_was_compiled_for_another_release_does_not_load() -> None:
    check_build("taskengine._fastpath", HERE)
    check_build("taskengine._fastpath", "")
    with pytest.raises(ImportError, match=rf"_fastpath was compiled for taskengine 9\.9.*are of {HERE}: install") as no:
        check_build("taskengine._fastpath", "9.9")
    assert no.value.name == "taskengine._fastpath"


@pytest.mark.parametrize("head", [b"", b"T", b"TE", MAGIC, MAGIC + b"\x90", b"\x90", b'["TE"]', b"te\x03"])
def test_what_is_of_our_wire_or_of_none_is_no_misfit(head: bytes) -> None:
    assert foreign_request(head) is None
    assert foreign_reply(head, ADDRESS) is None


@pytest.mark.parametrize("head", [b"TE\x03", b"TE\x01\x90", b"TE\xff" + b"x" * 100])
def test_another_wire_is_named_with_ours_and_the_remedy(head: bytes) -> None:
    for error in (foreign_request(head), foreign_reply(head, ADDRESS)):
        assert error is not None
        for part in (
            f"wire 0.{head[2]}",
            "wire 0.2",
            f"taskengine {HERE}",
            "install the same release on both",
        ):
            assert part in error.message


@pytest.mark.parametrize("told", [b'{"error":"no such wire"}', b'{"error":null}', b"{}", b"{nonsense", b'{"error":1}'])
def test_a_reply_of_wire_01_comes_from_an_engine_that_knows_no_other(told: bytes) -> None:
    error = foreign_reply(told, ADDRESS)
    assert error is not None
    assert f"the engine at {ADDRESS} does not know wire 0.2" in error.message
    assert ("no such wire" in error.message) is (b"no such" in told)


@pytest.mark.parametrize("told", [b'{"error":' + b"[" * 4000, b'{"error":"no such wire' + b" " * 4096 + b'"}'])
def test_what_is_too_deep_or_too_large_is_not_read(told: bytes) -> None:
    error = foreign_reply(told, ADDRESS)
    assert error is not None
    assert "does not know wire 0.2, and this client" in error.message


def test_what_an_engine_lacks_names_both_releases() -> None:
    assert lacks("0.7.1", "has no streams") == (
        f"the engine is taskengine 0.7.1, which has no streams; this client is {HERE}: install its release on the robot"
    )
    assert "a taskengine before 0.2" in lacks("", "has no streams")
