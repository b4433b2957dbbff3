"""The pages say what is true: tables are the code's own, examples run against a real engine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from taskengine import errors, settings
from taskengine.configuration import load
from taskengine.policy import Entry, Policy
from tests.engine import Engine, deadline

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "docs/tasks.md",
    "docs/clients.md",
    "docs/policy.md",
    "docs/protocol.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/hardware.md",
    "docs/safety.md",
    "SECURITY.md",
]
ADDRESS = "tcp://127.0.0.1:9000"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def settings_table() -> str:
    rows = [f"| {row.name} | `{row.default}` | {row.type} | {row.explanation} |" for row in settings.rows()]
    return "\n".join(["| setting | default | type | what it is |", "|---|---|---|---|", *rows])


def errors_table() -> str:
    return "\n".join(
        f"| {code} | {kind.__name__} | {', '.join(f'`{name}`' for name in kind.field_names)} |"
        for code, kind in errors.BY_CODE.items()
    )


def test_the_readmes_settings_are_the_codes() -> None:
    assert settings_table() in (ROOT / "README.md").read_text()


def test_the_protocols_errors_are_the_codes() -> None:
    assert errors_table() in (ROOT / "docs/protocol.md").read_text()


def test_the_protocol_gives_each_field_of_an_error_a_type() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    (table,) = re.findall(r"\| field \| type \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", page)
    typed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert typed == {name for kind in errors.BY_CODE.values() for name in kind.field_names}


def test_the_page_on_security_names_every_setting_that_protects() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    rows = re.search(r"## The settings that protect\n(.*?)\n\n", page, re.DOTALL)
    assert rows is not None
    named = set(re.findall(r"[A-Z_]{4,}", "".join(line.split("|")[1] for line in rows[1].splitlines()[2:])))
    assert {"HOST", "CURVE", "KEYS", "INSECURE", "USER", "GROUP", "TRACEBACKS", "METRICS_PORT", "AUDIT"} <= named
    assert named <= {row.name for row in settings.rows()}


def test_every_module_is_in_the_architectures_table() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    modules = {path.name for path in (ROOT / "taskengine").glob("*.py*") if path.suffix in (".py", ".pyx")}
    assert [name for name in sorted(modules - {"__init__.py", "__main__.py"}) if name not in page] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_policys_example_loads(tmp_path: Path) -> None:
    (example,) = blocks("docs/policy.md", "toml")
    (tmp_path / "taskengine.toml").write_text(example)
    policy = load(tmp_path / "taskengine.toml", {}, {}).policy
    assert policy is not None
    assert Policy(policy).rights("wall-2").may_subscribe("hardware.pan")
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/policy.md").read_text(), re.MULTILINE)
    assert tuple(told) == Entry.__struct_fields__


def test_the_readmes_example_runs(tmp_path: Path) -> None:
    module, script = blocks("README.md", "python")
    (tmp_path / "robot.py").write_text(module)
    with Engine(tasks=tmp_path / "robot.py") as engine:
        ran = run_python(script.replace(ADDRESS, engine.address))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "7.4\n", "")


def test_the_examples_for_clients_run() -> None:
    with Engine() as engine:
        address = f'"{engine.address}"'
        for script in blocks("docs/clients.md", "python"):
            script = re.sub(r"\btimeout=([\d.]+)", lambda found: f"timeout={deadline(float(found[1]))}", script)
            ran = run_python(script.replace(f'"{ADDRESS}"', address).replace("Client()", f"Client({address})"))
            assert (ran.returncode, ran.stderr) == (0, ""), script


def test_the_examples_for_task_authors_load(tmp_path: Path) -> None:
    for number, module in enumerate(blocks("docs/tasks.md", "python")):
        (tmp_path / f"example{number}.py").write_text(module)
    checked = run_taskengine("check", "--tasks", str(tmp_path))
    assert checked.returncode == 0, checked.stderr
    assert "task steer(angle: float, speed: float = 1.0) -> float" in checked.stdout
    assert "source battery.volts" in checked.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/clients.md"])
def test_the_shells_examples_run(page: str) -> None:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?taskengine ", line)]
    commands = [command[1:] for command in commands if command[1] != "serve"]
    assert commands
    with Engine() as engine:
        for command in commands:
            ends = ["--count", "1"] if command[0] == "subscribe" else []
            ran = run_taskengine(*command, *ends, "--address", engine.address)
            assert (ran.returncode, ran.stderr) == (0, ""), command


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=deadline(30), check=False
    )


def run_taskengine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskengine", *arguments],
        capture_output=True,
        text=True,
        timeout=deadline(30),
        check=False,
    )
