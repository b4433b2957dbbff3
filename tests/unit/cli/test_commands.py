"""What all commands have in common: JSON for scripts, completion in three shells, and the versions of what runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import zmq
from click.testing import CliRunner

import taskengine
from taskengine.cli.main import cli

SILENT = {"keys allow", "keys revoke", "keys forget", "publish"}
"""Commands that print nothing."""
JSON_ANYWAY = {"call", "subscribe"}
"""Commands whose values are always JSON; the arguments of `call` are the task's."""
OTHERS = {"serve", "bench", "completion", "service install", "service remove"}
"""Commands that print a log, the report of `make bench`, a script, and what a person is asked to agree to."""


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands without subcommands, with the words that call them."""
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(*arguments: str, code: int = 0, given: str | None = None) -> Any:
    """Return what a command prints as JSON."""
    done = CliRunner().invoke(cli, [*arguments, "--json"], input=given)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_every_command_that_prints_can_print_json() -> None:
    without = {name for name, command in commands(cli) if not any("--json" in option.opts for option in command.params)}
    assert without == SILENT | JSON_ANYWAY | OTHERS


def test_the_keys_as_json(folder: Path) -> None:
    keys = ("--keys", "here")
    assert printed("keys", "list", *keys) == {"clients": [], "engines": []}
    shown = printed("keys", "show", *keys)
    assert shown.keys() == {"public", "fingerprint"}
    line = printed("keys", "pair", "laptop", "--line", "--address", "tcp://robot:9000", *keys)
    accepted = printed("keys", "accept", "--keys", "there", given=line["line"])
    assert accepted == {"address": "tcp://robot:9000", "name": "laptop"}
    (client,) = printed("keys", "list", *keys)["clients"]
    (engine,) = printed("keys", "list", "--keys", "there")["engines"]
    assert client == {"name": "laptop", "fingerprint": engine["fingerprint"]}
    token = printed("keys", "metrics", *keys)
    assert token["token"]
    new = printed("keys", "new", "desk", "--address", "tcp://robot:9000", "--keys", "desk", given=shown["public"])
    assert len(new["public"]) == 40


def test_the_check_as_json(folder: Path) -> None:
    (folder / "robot.py").write_text("from taskengine import task\n@task(name='twice', lane='')\ndef f(x: int): ...\n")
    (folder / "broken.py").write_text("import no_such_module\n")
    told = printed("check", "--tasks", "robot.py")
    assert told["tasks"] == [{"name": "twice", "signature": "(x: int)", "lane": ""}]
    assert (told["sources"], told["failures"]) == (["cpu.temperature", "cpu.load"], [])
    told = printed("check", "--tasks", "broken.py", code=2)
    assert "no_such_module" in told["failures"][0]


def test_a_policy_as_json(folder: Path) -> None:
    (folder / "taskengine.toml").write_text("[policy.laptop]\ntasks = ['task_count']\n")
    done = CliRunner().invoke(cli, ["policy", "can", "laptop", "do", "task_count", "--json"])
    assert json.loads(done.stdout)["allowed"] is True
    done = CliRunner().invoke(cli, ["policy", "can", "wall", "do", "task_count", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["allowed"]) == (1, False)


def test_the_audit_log_as_json(folder: Path) -> None:
    (folder / "audit.jsonl").write_text("no seal\n")
    told = printed("audit", "verify", "audit.jsonl", "--kept", "a seal", code=1)
    assert told == {"sealed": 0, "unsealed": 1, "wrong": ["audit.jsonl: no line has the seal a seal"], "last": ""}


def test_a_new_folder_as_json(folder: Path) -> None:
    told = printed("new", "robot")
    assert told["folder"] == "robot"
    assert set(told["files"]) == {path.name for path in (folder / "robot").iterdir()}


def test_the_versions() -> None:
    first, *lines = CliRunner().invoke(cli, ["--version"]).stdout.splitlines()
    assert first == f"taskengine, version {taskengine.__version__}"
    told = dict(line.split(" ", 1) for line in lines)
    assert told["libzmq"] == zmq.zmq_version()
    assert told["pyzmq"] == zmq.__version__
    assert all(told[name].startswith("cpython-3") for name in ("_fastpath", "_socket", "_descendants"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_clicks(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert f"_TASKENGINE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("taskengine ", {"serve", "doctor", "keys"}),
        ("taskengine ke", {"keys"}),
        ("taskengine keys re", {"revoke"}),
        ("taskengine new --ro", {"--robot"}),
        ("taskengine serve --router-front", {"--router-frontend"}),
        ("taskengine --host ::1 --router-front", {"--router-frontend"}),
    ],
)
def test_what_is_completed(words: str, completed: set[str]) -> None:
    count = str(len(words.split(" ")) - 1)
    env = {"COMP_WORDS": words, "COMP_CWORD": count, "_TASKENGINE_COMPLETE": "bash_complete"}
    done = CliRunner(env=env).invoke(cli, [], prog_name="taskengine")
    told = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert completed <= told
    assert words.endswith(" ") or told == completed


def test_bash_takes_the_script(folder: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    (folder / "script").write_text(CliRunner().invoke(cli, ["completion", "bash"]).stdout)
    done = subprocess.run([bash, "-c", ". ./script && complete -p taskengine"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "_taskengine_completion" in done.stdout
