"""The same files make the same wheel and sdist, and for another processor a compiler is all that it takes."""

from __future__ import annotations

import csv
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from release.archive import EARLIEST, epoch, read_wheel, rewrite_sdist, write_wheel
from release.compiling import judge
from release.contents import ROOT
from release.targets import TARGETS, BuildError, chosen
from release.wheels import build

DATE = 1_700_000_000
TAG = "cp313-cp313-manylinux_2_34_aarch64"
FILES = {"one/b.py": b"b = 1\n", "one/a.so": b"\x7fELF", "one/a.py": b""}
INFO = {"METADATA": b"Name: one\n", "licenses/LICENSE": b"free\n"}


def wheel_of(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir()
    return write_wheel(folder, "one-two", "1.0", TAG, files, INFO, DATE)


def test_the_order_of_files_does_not_change_a_wheel(tmp_path: Path) -> None:
    backwards = dict(reversed(FILES.items()))
    assert wheel_of(tmp_path / "a").read_bytes() == wheel_of(tmp_path / "b", backwards).read_bytes()


def test_a_wheel_is_named_dated_and_recorded_as_pip_wants_it(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path / "a")
    assert wheel.name == f"one_two-1.0-{TAG}.whl"
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
        assert {entry.date_time for entry in entries} == {(2023, 11, 14, 22, 13, 20)}
        rows = list(csv.reader(io.StringIO(archive.read("one_two-1.0.dist-info/RECORD").decode())))
        assert "Root-Is-Purelib: false" in archive.read("one_two-1.0.dist-info/WHEEL").decode()
    assert {row[0] for row in rows} == {entry.filename for entry in entries}
    assert read_wheel(wheel) == (FILES, INFO)


def test_an_sdist_forgets_who_made_it_and_when(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with tarfile.open(folder / "one.tar.gz", "w:gz") as archive:
            for name in ("b", "a")[:: 3 - 2 * number]:
                entry = tarfile.TarInfo(f"one/{name}")
                entry.mtime, entry.uid, entry.size = DATE + number, number, 3
                archive.addfile(entry, io.BytesIO(b"abc"))
        (folder / "out").mkdir()
        made.append(rewrite_sdist(folder / "one.tar.gz", folder / "out", DATE).read_bytes())
    assert made[0] == made[1]


def test_the_date_is_the_one_that_is_told_or_the_last_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert epoch(ROOT) == EARLIEST
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(DATE))
    assert epoch(ROOT) == DATE
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert epoch(ROOT) > DATE


def test_targets_by_their_names() -> None:
    assert chosen([]) == TARGETS
    assert len(TARGETS) == 6
    [pi] = chosen(["cp311-armv7l"])
    assert (pi.tag, pi.suffix) == ("cp311-cp311-manylinux_2_34_armv7l", ".cpython-311-arm-linux-gnueabihf.so")
    with pytest.raises(BuildError, match=r"cp27-vax; there are cp311-x86_64"):
        chosen(["cp27-vax"])


def test_a_wheel_without_a_compiled_module_for_its_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="auditwheel"):
        judge(wheel_of(tmp_path / "a", {"one/a.py": b""}))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel for a Pi with the 64-bit Raspberry Pi OS of 2025; the headers of its Python are fetched once."""
    [made] = build(["cp313-aarch64"], tmp_path_factory.mktemp("dist"))
    return made


@pytest.mark.long
def test_a_wheel_for_a_pi_holds_its_modules_and_nothing_to_compile_or_test_with(wheel: Path) -> None:
    files, info = read_wheel(wheel)
    built = {path: data for path, data in files.items() if path.endswith(".so")}
    assert set(built) == {
        f"taskengine/{name}.cpython-313-aarch64-linux-gnu.so" for name in ("_fastpath", "_socket", "_descendants")
    }
    assert all(data[18:20] == b"\xb7\x00" for data in built.values()), "not for aarch64"
    assert not [path for path in files if path.endswith((".c", ".h", ".pyx", ".pxi"))]
    assert not [path for path in files if Path(path).match("test_*.py") or "tests" in Path(path).parts]
    assert {path.split("/")[0] for path in files} == {"taskengine", "taskengine_hardware"}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= info.keys()
    here = os.fsencode(str(ROOT))
    assert not [path for path, data in files.items() if here in data]
