"""What a Pi installs: from PyPI where it has a wheel, built here with its licence, or named as lacking."""

from __future__ import annotations

from pathlib import Path

import pytest

from release import debian, recipes, wheelhouse
from release.archive import read_wheel
from release.sources import Source
from release.targets import BuildError, Target, chosen

DATE = 1_700_000_000


@pytest.fixture
def pi() -> Target:
    [target] = chosen(["cp313-armv7l"])
    return target


@pytest.fixture
def msgspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source that looks like msgspec's; nothing is compiled, and auditwheel is not asked."""
    source = tmp_path / "msgspec-9.1"
    package = source / "src" / "msgspec"
    package.mkdir(parents=True)
    (source / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: msgspec\nVersion: 9.1\n\nVersion: of a text\n")
    (source / "LICENSE").write_text("do what you like")
    (package / "__init__.py").write_text("")
    (package / "_core.c").write_text("int main;")
    monkeypatch.setattr(Source, "unpacked", lambda self: source)
    monkeypatch.setattr(recipes, "compile_module", lambda target, sources, built: b"\x7fELF")
    monkeypatch.setattr(recipes, "judge", lambda wheel: "as it should be")
    return source


def test_a_library_keeps_its_metadata_and_licence_and_leaves_its_source_behind(
    msgspec: Path, pi: Target, tmp_path: Path
) -> None:
    wheel = recipes.msgspec_wheel(pi, tmp_path, tmp_path, DATE)
    assert wheel.name == "msgspec-9.1-cp313-cp313-manylinux_2_34_armv7l.whl"
    files, info = read_wheel(wheel)
    assert set(files) == {
        "msgspec/__init__.py",
        "msgspec/py.typed",
        "msgspec/_core.cpython-313-arm-linux-gnueabihf.so",
    }
    assert info["licenses/LICENSE"] == b"do what you like"
    assert info["METADATA"].startswith(b"Metadata-Version")


def test_a_library_without_a_licence_is_not_built(msgspec: Path, pi: Target, tmp_path: Path) -> None:
    (msgspec / "LICENSE").unlink()
    with pytest.raises(BuildError, match="licence"):
        recipes.msgspec_wheel(pi, tmp_path, tmp_path, DATE)


def test_what_pypi_lacks_is_built_or_said_to_be_lacking(
    pi: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = {"pyzmq", "lgpio", "msgspec"}
    built: list[str] = []
    monkeypatch.setattr(wheelhouse, "build", lambda names, house: built.append(*names))
    monkeypatch.setattr(wheelhouse, "_download", lambda target, needed, house: needed.partition(">")[0] not in lacks)
    monkeypatch.setattr(
        wheelhouse, "RECIPES", {name: lambda *args, name=name: built.append(name) for name in ("lgpio", "msgspec")}
    )
    told = list(wheelhouse.fill(pi, tmp_path / "house", tmp_path))
    assert built[0] == "cp313-armv7l"
    assert set(built[1:]) == {"lgpio", "msgspec"}
    assert len(told) == 1
    assert told[0].startswith("cp313-armv7l: pyzmq>=25,<28 has no wheel on PyPI; from piwheels.org")


def test_what_a_pi_needs_is_what_the_project_says() -> None:
    names = {needed.partition(">")[0] for needed in wheelhouse.requirements()}
    assert {"pyzmq", "msgspec", "click", "rich", "gpiozero", "lgpio", "spake2", "cronsim"} <= names
    assert not [needed for needed in wheelhouse.requirements() if ";" in needed]


def test_what_is_fetched_is_what_was_expected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no https"):
        debian.fetch("http://example.org/x")
    file = tmp_path / "x"
    file.write_bytes(b"other")
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: file.open("rb"))
    with pytest.raises(BuildError, match="has the SHA-256 d9298a10"):
        debian.fetch("https://example.org/x", "0" * 64)
