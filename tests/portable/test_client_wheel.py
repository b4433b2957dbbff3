"""The client's wheel calls a real engine from a Python without compiled modules and without what only Unix has."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from release.archive import read_wheel
from release.client import KEPT, LEFT_OUT
from release.wheels import build
from tests.engine import Engine, deadline

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [made] = build(["client"], tmp_path_factory.mktemp("dist"))
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(cwd=HERE, tasks="robot.py", pins="mock") as engine:
        yield engine


def elsewhere(folder: Path, *arguments: str, home: Path, code: int = 0) -> str:
    """Run a program, or the command behind -m, with the client's wheel on such a system; return what it says."""
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "elsewhere.py", folder, *arguments],
        cwd=home,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=deadline(60),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_wheel_is_for_any_python_and_has_nothing_compiled_and_no_engine(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    files, info = read_wheel(wheel)
    assert not [path for path in files if path.endswith((".so", ".c", ".pyx", ".pxi", ".h"))]
    assert {path for path in files if path.startswith(LEFT_OUT)} == set(KEPT)
    assert {"taskengine/client/blocking.py", "taskengine/aio.py", "taskengine/cli/main.py"} <= files.keys()
    assert "entry_points.txt" in info


def test_a_program_calls_maps_submits_subscribes_and_stops_from_elsewhere(
    installed: Path, engine: Engine, tmp_path: Path
) -> None:
    said = elsewhere(installed, str(HERE / "program.py"), engine.address, home=tmp_path).splitlines()
    assert said == [
        "call 2.5",
        "map True",
        "submit 662.5",
        "value (1, {Decimal('1.5')}, 1180591620717411303424, b'x', 'é', None)",
        "tasks True",
        "error TaskFailed ValueError: on purpose",
        "error UnknownTask no task is named 'nobody'",
        "error BadArguments call 0: a value of type object cannot be sent: "
        "it has no form here: send what it holds, or a dataclass",
        "sample beats",
        "run [None] [0.5, 0.0]",
        "mixed [2.5, None] [0.5, 0.0]",
        "map [None] [0.5, 0.0]",
        "submit_all [None] [0.5, 0.0]",
        "executor [2.0, 3.0]",
        "asyncio 2.5 [3.0]",
        "own task 2",
    ]


def test_the_commands_of_a_client_work_elsewhere(installed: Path, engine: Engine, tmp_path: Path) -> None:
    at = ("--address", engine.address)
    assert elsewhere(installed, "-m", "call", "task_count", "2", "3", *at, home=tmp_path) == "2.5\n"
    assert "echo(value: Any)" in elsewhere(installed, "-m", "tasks", *at, home=tmp_path)
    assert "beats" in elsewhere(installed, "-m", "subscribe", "beat", "--count", "1", *at, home=tmp_path)
    versions = elsewhere(installed, "-m", "--version", home=tmp_path)
    assert "_socket in Python" in versions
    assert "libzmq 4." in versions
    assert elsewhere(installed, "-m", "keys", "list", home=tmp_path) == ""


@pytest.mark.parametrize("command", ["serve", "check", "doctor"])
def test_a_command_of_the_engine_says_that_it_is_not_here(installed: Path, command: str, tmp_path: Path) -> None:
    said = elsewhere(installed, "-m", command, home=tmp_path, code=1)
    assert said == "taskengine: this command is the engine's, and here is only the client: the engine runs on Linux\n"


def test_every_public_name_is_there(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "names.py"
    program.write_text(
        "import taskengine\n"
        "assert taskengine.__all__\n"
        "print([name for name in taskengine.__all__ if not hasattr(taskengine, name)])\n"
        "from taskengine import progress\n"
        "progress(1, 2)  # nobody wants to know\n"
    )
    assert elsewhere(installed, str(program), home=tmp_path) == "[]\n"


def test_a_client_elsewhere_has_a_key_of_its_own(installed: Path, tmp_path: Path) -> None:
    program = tmp_path / "keys.py"
    program.write_text(
        "from pathlib import Path\n"
        "from taskengine.security.keys import KeyRing, new_pair\n"
        "ring = KeyRing(Path('keys'))\n"
        "ring.join('tcp://robot.local:9000', new_pair().public, 'laptop')\n"
        "Path('keys/engines/robot.local_9000.json').chmod(0o666)  # as Windows shows every file\n"
        "print([known.name for known in ring.memberships()])\n"
    )
    assert elsewhere(installed, str(program), home=tmp_path) == "['laptop']\n"
