"""The files of the container: what they copy is there, nothing runs as root, and the compose file asks for no more."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "VOLUME", "USER", "ENTRYPOINT", "CMD"}


def steps(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile, each with its arguments."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in joined.split("\n")) if word
    ]


STEPS = steps(DOCKERFILE)
LAST = STEPS[max(number for number, (word, _) in enumerate(STEPS) if word == "FROM") :]
SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "examples/docker/compose.yaml").read_text())["services"]["engine"]


def ignored(path: str) -> bool:
    """Return whether .dockerignore keeps a path out of the build; the last line that fits decides."""
    is_out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if (
            line
            and not line.startswith("#")
            and (path == pattern or path.startswith(f"{pattern}/") or fnmatch(path, pattern))
        ):
            is_out = not line.startswith("!")
    return is_out


def test_the_instructions_are_known_and_there_are_two_stages() -> None:
    assert {word for word, _ in STEPS} <= INSTRUCTIONS
    assert [rest for word, rest in STEPS if word == "FROM"] == ["${BASE} AS build", "${BASE}"]
    (base,) = [rest for word, rest in STEPS if rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=debian:\w+-slim", base), "no tag, or one that moves from release to release"


def test_packages_leave_no_lists_and_bring_no_recommendations() -> None:
    for _, command in (step for step in STEPS if "apt-get" in step[1]):
        assert "install --yes --no-install-recommends" in command
        assert "rm -rf /var/lib/apt/lists/*" in command


def test_the_image_has_no_compiler_and_does_not_run_as_root() -> None:
    assert not re.search(r"\b(gcc|dev|pip)\b", " ".join(rest for _, rest in LAST))
    words = [word for word, _ in LAST]
    assert ("USER", "taskengine") in LAST
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])


def test_what_a_wheel_is_made_of_is_copied_and_not_ignored() -> None:
    copied = [name for word, rest in STEPS if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {project["project"]["readme"], *project["project"]["license-files"], "setup.py", "pyproject.toml"}
    needed |= set(project["tool"]["setuptools"]["package-dir"].values())
    assert needed <= set(copied)
    assert not [name for name in copied if ignored(name)]


@pytest.mark.parametrize(
    ("path", "is_out"),
    [
        ("taskengine/errors.py", False),
        ("taskengine/_socket.cpython-311-x86_64-linux-gnu.so", True),
        ("taskengine/_socket.c", True),
        ("taskengine.toml", True),
        (".git/config", True),
        (".venv/bin/python", True),
    ],
)
def test_what_is_ignored(path: str, is_out: bool) -> None:
    assert ignored(path) == is_out


def test_the_compose_file_grants_pins_and_nothing_else() -> None:
    assert SERVICE["read_only"] is True
    assert SERVICE["shm_size"] == "64m"
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert SERVICE["devices"] == ["${GPIOCHIP:-/dev/gpiochip0}"]
    assert SERVICE["group_add"][0].startswith("${GPIO_GID:?")
    assert not {"privileged", "cap_add", "pid", "ipc"} & SERVICE.keys()
    assert [
        volume for volume in SERVICE["volumes"] if "docker.sock" in volume or volume.startswith(("/dev", "/sys"))
    ] == []


def test_the_compose_file_builds_and_mounts_what_is_there() -> None:
    folder = ROOT / "examples/docker"
    assert (folder / SERVICE["build"] / "Dockerfile").is_file()
    assert (folder / "taskengine.toml").is_file()
    homes = [rest for word, rest in LAST if word == "VOLUME"]
    assert {volume.split(":")[1] for volume in SERVICE["volumes"]} == {
        ("WORKDIR", "/robot") in LAST and "/robot",
        *homes,
    }


def test_the_page_explains_what_the_compose_file_asks_for() -> None:
    page = (ROOT / "docs/docker.md").read_text()
    told = set(re.findall(r"`(\w+)(?:: \w+)?`", " ".join(re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE))))
    plain = {"image", "build", "volumes", "restart", "healthcheck"}
    assert told - {"compose"} == SERVICE.keys() - plain
