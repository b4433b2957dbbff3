"""docs/data.md says what is true: its examples run, in its order, beside an engine with its settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskengine import Client
from taskengine.recording.channels import SCHEMAS
from tests.engine import Engine, deadline
from tests.system.test_docs import ADDRESS, ROOT, blocks, commands, run_python, run_taskengine

PAGE = "docs/data.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, *scripts = blocks(PAGE, "python")
    [settings] = blocks(PAGE, "toml")
    (tmp_path / "taskengine.toml").write_text(settings)
    (tmp_path / "robot.py").write_text(module)
    with Engine(cwd=tmp_path) as engine:
        for command in commands(PAGE, "bash"):
            address = [] if command[0] == "log" else ["--address", engine.address]
            ran = run_taskengine(*command, *address, folder=tmp_path)
            expected = f"recording into {command[1]}\n" if command[0] == "record" else ""
            assert (ran.returncode, ran.stderr) == (0, expected), command
        [playing] = [line for line in "".join(blocks(PAGE, "text")).splitlines() if "--commands" in line]
        with Client(engine.address, timeout=deadline(20)) as client:
            client.call("servo.set", "pan", angle=30)
        ran = run_taskengine(*playing.split()[1:], "--address", engine.address, folder=tmp_path)
        assert ran.returncode == 1
        assert "no command to a device that this engine has was recorded" in ran.stderr, "it was called before"
        for script in scripts:
            ran = run_python(script.replace("Client()", f'Client("{engine.address}")').replace(ADDRESS, engine.address))
            assert (ran.returncode, ran.stderr) == (0, ""), script
            assert ran.stdout


def test_the_tables_name_what_is_in_a_file() -> None:
    page = (ROOT / PAGE).read_text()
    table = page[page.index("| schema | field | |") : page.index("Each file has the releases")]
    named: dict[str, set[str]] = {}
    for schema, fields in re.findall(r"^\| (?:`([\w.]+)`)? ?\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE):
        last = schema or list(named)[-1]
        named.setdefault(last, set()).update(re.findall(r"`(\w+)`", fields))
    about = {"number", "publisher", "dropped", "clock"}
    assert named["foxglove.CompressedImage"].isdisjoint(about)
    named["foxglove.CompressedImage"] |= about
    assert named == {name: set(schema["properties"]) for name, schema in SCHEMAS.items()}
