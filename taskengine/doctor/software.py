"""Checks of Python, of the packages and of the settings. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from taskengine.config.weaknesses import old_libzmq
from taskengine.doctor.observation import Case, Observation, Surroundings, ok, warning, wrong

OLDEST_PYTHON = (3, 11)
Bounds = Mapping[str, tuple[tuple[int, ...], tuple[int, ...] | None]]
LIBRARIES: Bounds = {
    "pyzmq": ((25,), (28,)),
    "msgspec": ((0, 18), None),
    "click": ((8, 1), None),
    "rich": ((13,), None),
}
"""The first version that will do, and the first that will not, if there is one; as pyproject.toml has them."""
HARDWARE: Bounds = {"gpiozero": ((2,), (2, 1)), "lgpio": ((0, 2, 2), None)}
BOARDS: Bounds = {"smbus2": ((0, 4), None)}
COMPILED = ("_fastpath", "_socket", "_descendants")
INSTALL = "pip install"
"""With the name of what is installed pip adds what that lacks, and asks nobody for the distribution itself."""
REINSTALL = "pip install --force-reinstall --no-deps taskengine_robot-….whl, the file for this Python and processor"


def check_python(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check the version of Python, and that it is one of its own for the engine."""
    found = f"{_dotted(case.python)} on {case.machine}, {case.prefix}"
    if case.python < OLDEST_PYTHON:
        yield wrong("python", f"{found}; the engine needs {_dotted(OLDEST_PYTHON)}", "sudo apt full-upgrade")
    elif not case.in_venv:
        line = "python3 -m venv --system-site-packages .venv"
        yield warning("python", f"{found}: no virtual environment, and pip refuses to install into the system's", line)
    else:
        yield ok("python", found)


def check_packages(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check the versions of the libraries, and those of the extra hardware where the settings want pins."""
    wanted = dict(LIBRARIES)
    line = f"{INSTALL} taskengine-robot"
    if case.settings.hardware:
        wanted |= HARDWARE if case.needs_pins else {"gpiozero": HARDWARE["gpiozero"]}
        line = f"{INSTALL} 'taskengine-robot[hardware]'"
        if case.needs_pins and case.i2c_boards:
            wanted |= BOARDS
            line = f"{INSTALL} 'taskengine-robot[hardware,boards]'"
    versions = {name: around.version(name) for name in wanted}
    missing = [name for name, version in versions.items() if version is None]
    unfit = [
        f"{name} {version}" for name, version in versions.items() if version is not None and _is_unfit(name, version)
    ]
    if missing:
        yield wrong("packages", f"not installed: {', '.join(missing)}", line)
    if unfit:
        yield warning("packages", f"not tested with the engine: {', '.join(unfit)}", line)
    if not missing and not unfit:
        yield ok("packages", ", ".join(f"{name} {version}" for name, version in versions.items()))


def check_compiled(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that the compiled modules load."""
    failures = {name: why for name in COMPILED if (why := around.failure(f"taskengine.{name}"))}
    if failures:
        told = "; ".join(f"{name}: {why}" for name, why in failures.items())
        yield wrong("compiled", f"{told}; were they made for another Python or processor?", REINSTALL)
    else:
        yield ok("compiled", ", ".join(COMPILED))


def check_libzmq(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check the version of libzmq for known flaws."""
    told, _, line = old_libzmq(case.libzmq).partition(" `")
    if told:
        yield warning("libzmq", told.rstrip("."), line.rstrip("`"))
    else:
        yield ok("libzmq", _dotted(case.libzmq))


def check_settings(case: Case, around: Surroundings) -> Iterator[Observation]:
    """Check that the settings can be read, and what `taskengine check` warns of."""
    if case.problem:
        yield wrong("settings", case.problem, "taskengine check")
        return
    for weakness in case.weaknesses:
        yield warning("settings", weakness, "taskengine check")
    if not case.weaknesses:
        where = "taskengine.toml" if around.text(f"{case.folder}/taskengine.toml") is not None else "the defaults"
        devices = len(set(case.devices.values()))
        told = f", {devices} {'device' if devices == 1 else 'devices'} with pins" if devices else ""
        yield ok("settings", f"{where} in {case.folder}{told}")


def _is_unfit(name: str, version: str) -> bool:
    least, beyond = {**LIBRARIES, **HARDWARE, **BOARDS}[name]
    have = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    return have < least or (beyond is not None and have >= beyond)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
