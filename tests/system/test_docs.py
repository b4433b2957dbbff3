"""The pages say what is true: tables are the code's own, examples run against a real engine."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from taskengine import errors
from taskengine.config.descriptions import rows
from taskengine.config.loading import load
from taskengine.config.policy import Entry, Policy
from tests import architecture_page, settings_page
from tests.engine import Engine, deadline
from tests.test_layering import SOURCES, graph

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/quickstart.md",
    "docs/install.md",
    "docs/settings.md",
    "docs/network.md",
    "docs/service.md",
    "docs/docker.md",
    "docs/doctor.md",
    "docs/glossary.md",
    "docs/tasks.md",
    "docs/clients.md",
    "docs/data.md",
    "docs/policy.md",
    "docs/protocol.md",
    "docs/architecture.md",
    "docs/testing.md",
    "docs/benchmarks.md",
    "docs/hardware.md",
    "docs/safety.md",
    "docs/pi.md",
    "docs/rules.md",
    "docs/safety-functions.md",
    "SECURITY.md",
    "examples/README.md",
    "examples/arm/README.md",
    "examples/rover/README.md",
    "examples/first_tasks/README.md",
]
ADDRESS = "tcp://127.0.0.1:9000"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def errors_table() -> str:
    return "\n".join(
        f"| {code} | {kind.__name__} | {', '.join(f'`{name}`' for name in kind.field_names)} |"
        for code, kind in errors.BY_CODE.items()
    )


def test_the_settings_page_is_made_from_the_struct() -> None:
    """`python -m tests.settings_page` writes it."""
    assert settings_page.PAGE.read_text() == settings_page.page()
    for row in rows():
        assert f"| {row.name} | `{row.default}` | {row.type} | {row.explanation} |" in settings_page.page()


def test_the_readme_has_the_settings_of_the_original_design() -> None:
    assert settings_page.short_table() in (ROOT / "README.md").read_text()


def test_the_readme_is_short_enough_to_choose_by() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_the_protocols_errors_are_the_codes() -> None:
    assert errors_table() in (ROOT / "docs/protocol.md").read_text()


def test_the_protocol_gives_each_field_of_an_error_a_type() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    (table,) = re.findall(r"\| field \| type \| \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", page)
    typed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert typed == {name for kind in errors.BY_CODE.values() for name in kind.field_names}


def test_the_page_on_security_names_every_setting_that_protects() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    table = re.search(r"## The settings that protect\n(.*?)\n\n", page, re.DOTALL)
    assert table is not None
    named = set(re.findall(r"[A-Z_]{4,}", "".join(line.split("|")[1] for line in table[1].splitlines()[2:])))
    assert {"HOST", "CURVE", "KEYS", "INSECURE", "USER", "GROUP", "TRACEBACKS", "METRICS_PORT", "AUDIT"} <= named
    assert named <= {row.name for row in rows()}


def test_every_module_is_in_the_architectures_table() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    package = ROOT / "taskengine"
    modules = [*package.rglob("*.py"), *package.glob("*.pyx"), *(ROOT / "hardware").glob("*.py")]
    named = {str(path.relative_to(ROOT)) for path in modules if not path.name.startswith("__")}
    told = set(re.findall(r"^\| `([\w/]+\.pyx?)` \|", page, re.MULTILINE))
    assert told == named


def test_the_architectures_tables_are_made_from_the_modules() -> None:
    """`python -m tests.architecture_page` makes them."""
    assert architecture_page.PAGE.read_text() == architecture_page.page()


def test_folders_import_only_from_those_above_them_on_the_page() -> None:
    inside = graph(SOURCES)
    for number, folder in enumerate(architecture_page.FOLDERS):
        assert inside[folder] & set(architecture_page.FOLDERS) <= set(architecture_page.FOLDERS[:number]), folder


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/glossary.md"])
def test_files_that_a_page_names_are_there(page: str) -> None:
    named = re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|pyx|pxi|md))`", (ROOT / page).read_text())
    assert named
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "taskengine" / name).exists(), name


def test_the_two_commands_install_what_pins_and_arrays_need() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    for target in "run", "test":
        command = ["make", "--no-print-directory", "-nB", target, "PINS=mock"]
        told = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
        assert re.search(r"install .*\[[\w,]*\bhardware,numpy\]", told), told
        assert target != "run" or told.endswith("-m taskengine --pins mock\n")


def anchors(page: Path) -> set[str]:
    """Return the names of the parts of a page, to which links may lead."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#?([^):]*)\)", (ROOT / page).read_text()):
        there = (ROOT / page).parent.joinpath(target) if target else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), anchor


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/settings.md"])
def test_the_settings_on_a_page_load(page: str, tmp_path: Path) -> None:
    (example,) = blocks(page, "toml")
    (tmp_path / "taskengine.toml").write_text(example)
    settings = load(tmp_path / "taskengine.toml", {}, {})
    assert settings.machine() is not None or settings.lanes == {"arm": 1}


def test_the_policys_example_loads(tmp_path: Path) -> None:
    (example,) = blocks("docs/policy.md", "toml")
    (tmp_path / "taskengine.toml").write_text(example)
    policy = load(tmp_path / "taskengine.toml", {}, {}).policy
    assert policy is not None
    assert Policy(policy).rights("wall-2").may_subscribe("hardware.pan")
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/policy.md").read_text(), re.MULTILINE)
    assert tuple(told) == Entry.__struct_fields__


@pytest.mark.parametrize(("page", "output"), [("README.md", "2.5\n[2.5, 4.5]\n"), ("docs/quickstart.md", "7.4\n")])
def test_the_first_example_of_a_page_runs(page: str, output: str, tmp_path: Path) -> None:
    module, script = blocks(page, "python")
    (tmp_path / "robot.py").write_text(module)
    with Engine(tasks=tmp_path / "robot.py") as engine:
        ran = run_python(script.replace(ADDRESS, engine.address))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, output, "")


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    """Return the setting TASKS with the sample tasks, and those of docs/tasks.md that docs/clients.md calls."""
    folder = tmp_path / "called"
    folder.mkdir()
    for name in "scan", "survey":
        (module,) = [block for block in blocks("docs/tasks.md", "python") if f"def {name}(" in block]
        (folder / f"{name}.py").write_text(module)
    return f"taskengine.tasks,{folder}"


def test_the_examples_for_clients_run(tasks: str) -> None:
    with Engine(tasks=tasks) as engine:
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


def commands(page: str, language: str) -> list[list[str]]:
    """The arguments of `taskengine` in the shells' blocks of a page, but for those that serve."""
    lines = [line for block in blocks(page, language) for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?taskengine ", line)]
    return [command[1:] for command in found if command[1] != "serve"]


@pytest.mark.parametrize("page", ["docs/quickstart.md", "docs/clients.md"])
def test_the_shells_examples_run(page: str, tasks: str) -> None:
    assert commands(page, "bash")
    with Engine(tasks=tasks) as engine:
        for command in commands(page, "bash"):
            ends = ["--count", "1"] if command[0] == "subscribe" else []
            ran = run_taskengine(*command, *ends, "--address", engine.address)
            assert (ran.returncode, ran.stderr) == (0, ""), command


@pytest.mark.parametrize(("page", "language"), [("README.md", "bash"), ("docs/quickstart.md", "text")])
def test_the_commands_for_the_first_servo_run(page: str, language: str, tmp_path: Path) -> None:
    (settings,) = blocks(page, "toml")
    (tmp_path / "taskengine.toml").write_text(settings)
    told = commands(page, language)
    assert next(command[:2] for command in told if command[0] == "call") == ["call", "servo.set"]
    with Engine(cwd=tmp_path, pins="mock") as engine:
        for command in told:
            ends = ["--count", "1"] if command[0] == "subscribe" else []
            address = [] if command[0] == "pins" else ["--address", engine.address]
            ran = run_taskengine(*command, *ends, *address, folder=tmp_path)
            assert (ran.returncode, ran.stderr) == (0, ""), command


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=deadline(30), check=False
    )


def run_taskengine(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "taskengine", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=deadline(30),
        check=False,
    )
