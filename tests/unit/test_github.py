"""The files for GitHub: workflows with few rights and pinned actions, which run what the Makefile has."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from release.targets import ARMV7L
from release.targets import TARGETS as KNOWN

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
RELEASE = (GITHUB / "workflows/release.yml").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of all jobs of a workflow."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_contributing_lists_the_workflows() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert re.findall(r"^\| `(\w+)\.yml` \|", page, re.MULTILINE) == ["tests", "docs", "release"]
    assert sorted(path.stem for path in WORKFLOWS) == ["docs", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_few_rights_and_an_end(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    assert "secrets." not in path.read_text()
    for step in steps(workflow):
        assert not re.search(r"\$\{\{", step.get("run", "")), "a shell runs what an event says"
        if "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_and_say_the_release(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_is_there(path: Path) -> None:
    text = path.read_text()
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= set(TARGETS)
    assert all((ROOT / name).is_file() for name in re.findall(r"python3 (\S+\.py)", text))


def test_the_tests_run_on_every_python_and_on_both_processors() -> None:
    matrix = yaml.safe_load((GITHUB / "workflows/tests.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix == {
        "python": ["3.11", "3.12", "3.13", "3.14"],
        "machine": ["ubuntu-24.04", "ubuntu-24.04-arm"],
    }
    built = PROJECT["tool"]["cibuildwheel"]["build"]
    assert built == [f"cp{version.replace('.', '')}-manylinux_*" for version in matrix["python"]]


def test_what_cibuildwheel_does_not_build_is_built_too() -> None:
    jobs = yaml.safe_load(RELEASE)["jobs"]
    [made] = re.findall(
        r'make wheels TARGETS="(.*)"', "".join(step.get("run", "") for step in jobs["more-wheels"]["steps"])
    )
    assert jobs["wheels"]["strategy"]["matrix"]["machine"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert set(made.split()) == {"client"} | {str(target) for target in KNOWN if target.processor is ARMV7L}


def test_only_the_job_that_publishes_may_sign_in() -> None:
    jobs = yaml.safe_load(RELEASE)["jobs"]
    allowed = {name for name, job in jobs.items() if "id-token" in job.get("permissions", {})}
    assert allowed == {"publish"}
    assert jobs["publish"]["environment"] == "pypi"
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"agree", "publish"}
    assert all(job["needs"] == "agree" for name, job in jobs.items() if name not in ("agree", "publish"))


def agrees(root: Path, tag: str, repository: str) -> tuple[int, str]:
    """Return the exit code of the check of a release, and what it printed."""
    (root / ".github").mkdir(exist_ok=True)
    (root / ".github/release_agrees.py").write_text((GITHUB / "release_agrees.py").read_text())
    command = [sys.executable, str(root / ".github/release_agrees.py"), tag, repository]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Return a folder whose files say 1.2.3."""
    urls = 'Repository = "https://example.org/a/b"\nIssues = "https://example.org/a/b/issues"\n'
    (tmp_path / "pyproject.toml").write_text(f'[project]\nversion = "1.2.3"\n[project.urls]\n{urls}')
    (tmp_path / "taskengine").mkdir()
    (tmp_path / "taskengine/__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-12-24\n")
    return tmp_path


def test_a_release_that_agrees(released: Path) -> None:
    assert agrees(released, "v1.2.3", "https://example.org/a/b") == (0, "\n")


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        ("pyproject.toml", 'version = "1.2.3"', 'version = "1.2.4"', "but the tag is v1.2.3"),
        ("pyproject.toml", "a/b", "a/c", "Repository of pyproject.toml is https://example.org/a/c"),
        ("pyproject.toml", "example.org/a/b/issues", "repository.invalid/issues", "Issues of pyproject.toml"),
        ("taskengine/__init__.py", "1.2.3", "1.2.2", "another __version__ than 1.2.3"),
        ("CHANGELOG.md", "2026-12-24", "unreleased", "no line `## [1.2.3] - YEAR-MONTH-DAY`"),
    ],
)
def test_a_release_that_does_not_agree(released: Path, file: str, old: str, new: str, text: str) -> None:
    path = released / file
    path.write_text(path.read_text().replace(old, new))
    code, printed = agrees(released, "v1.2.3", "https://example.org/a/b")
    assert code == 1
    assert text in printed


def test_our_own_files_agree_but_for_the_address() -> None:
    """As long as the repository has no public address, nothing is published."""
    tag = f"v{PROJECT['project']['version']}"
    command = [sys.executable, str(GITHUB / "release_agrees.py"), tag, "https://example.org/a/b"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert {line.split()[0] for line in ran.stderr.splitlines()} == {"[project.urls]"}


def test_the_hooks_are_those_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text()
    entries = {hook["id"]: hook["entry"] for hook in HOOKS}
    code = " ".join(re.findall(r"^CODE [:+]= (.*)$", makefile, re.MULTILINE))
    command, _, folders = entries["mypy"].partition(" --strict ")
    assert command == ".venv/bin/python -m mypy"
    assert {"taskengine", "hardware", "tests"} <= set(folders.split()) <= set(code.split())
    assert entries["layering"].endswith("tests/test_layering.py")
    assert all(entry.startswith(".venv/bin/") for entry in entries.values())


def test_a_report_asks_for_what_helps_and_warns_of_secrets() -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE/bug.yml").read_text())
    fields = {part["id"]: part for part in form["body"] if "id" in part}
    assert {name for name, part in fields.items() if part.get("validations")} == {"happened", "doctor", "version"}
    assert "Report a vulnerability" in form["body"][0]["attributes"]["value"]
