"""Loads the settings from four places.

From lowest to highest precedence: the defaults, a TOML file, environment `TASKENGINE_<NAME>`, command-line flags. Every
error is a `SettingsError` that names the key, the place and what was expected.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from taskengine.config import lane_size
from taskengine.config.settings import HINTS, NAMES, TABLES, Settings, meta
from taskengine.config.spelling import closest
from taskengine.errors import SettingsError
from taskengine.protocol.layouts import RESERVED_LANES

CONFIG_FILE = "taskengine.toml"
LEAST_MEMORY = 2**28
ENV_PREFIX = "TASKENGINE_"
ADDRESS_VARIABLE = "TASKENGINE_ADDRESS"
"""The variable with the address at which commands find the engine; no setting of an engine."""
NOT_SETTINGS = frozenset({"TASKENGINE_TEST_TIME_FACTOR", "TASKENGINE_PLAIN_PYZMQ", ADDRESS_VARIABLE})

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def load(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Return the settings of the four places together.

    Args:
        config: the TOML file; None reads `taskengine.toml` of the current folder if there is one.
        environ: the environment; only `TASKENGINE_*` is looked at.
        flags: from field name to value, as text or typed; None means that the flag was not given.

    Raises:
        SettingsError: a key is unknown, a value ill-typed or out of range, two ports the same, or the file unreadable.
    """
    settings, places = read(config, environ, flags)
    _check_lanes(settings, places)
    _check_heartbeats(settings, places)
    _check_memory(settings, places)
    _check_ports(settings, places)
    _check_machine(settings, places)
    return settings


def read(
    config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> tuple[Settings, dict[str, str]]:
    """Return valid settings, and the place of each that is given; for commands that serve nothing by them.

    Arguments and errors are those of `load`, which in addition checks that the settings go together.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, place, value in (*_from_file(config), *_from_environ(environ), *_from_flags(flags)):
        values[name] = _convert(name, place, value)
        places[name] = place
    settings = Settings(**values)
    _check_host(settings, places)
    return settings, places


def table_problem(config: Path | None, hardware: Mapping[str, Any]) -> str:
    """Return why an engine with these devices cannot be reloaded, as text; "" if it can.

    Its processes have had the pins of the table [hardware] since it started, so the file may not name others.
    """
    found: Any = {}
    place = str(CONFIG_FILE if config is None else config)
    try:
        for name, key_place, value in _from_file(config):
            if name == "hardware":
                found, place = _convert(name, key_place, value), key_place
    except SettingsError as error:
        return str(error) if hardware else ""
    return (
        "" if found == hardware else f"hardware in {place}: the table has changed, which takes a restart of the engine"
    )


def _from_file(config: Path | None) -> Iterator[tuple[str, str, object]]:
    """Yield the (name, place, value) of each key of the file."""
    path = Path(CONFIG_FILE) if config is None else config
    try:
        text = _text_of(path)
    except FileNotFoundError as error:
        if config is None:
            return
        raise SettingsError(f"{path}: there is no such file; expected a TOML file of settings") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line}: not UTF-8; expected a TOML file of settings") from error
    except OSError as error:
        if config is None and not os.access(path.parent, os.X_OK, effective_ids=True):
            return  # a folder that we may not look into has no file for us
        raise SettingsError(f"{path}: {error.strerror or error}; expected a readable TOML file of settings") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_invalid_toml(path, text, str(error))) from error
    seen: dict[str, str] = {}
    for key, value in document.items():
        line, name = _line_of(text, key), key.lower()
        place = f"{path}, line {line}" if line else str(path)
        if name not in Settings.__struct_fields__:
            raise SettingsError(f"{key} in {place}: no such setting; {_nearest(key, Settings.__struct_fields__)}")
        if name in seen:
            raise SettingsError(f"{key} in {place}: the same setting as {seen[name]}; expected one of the two")
        seen[name] = key
        yield name, place, _from_its_folder(path.parent, value) if name == "tasks" else value


def _text_of(path: Path) -> str:
    """Return the text of a file of settings, without the mark that editors on Windows put in front (BOM)."""
    return path.read_text(encoding="utf-8-sig")


def _from_its_folder(folder: Path, tasks: object) -> object:
    """Return the entries of TASKS in a file of settings.

    Files and folders in them are relative to the file's folder.
    """
    if not isinstance(tasks, list) or folder == Path():
        return tasks
    return [_from_folder(folder, entry) if isinstance(entry, str) else entry for entry in tasks]


def _from_folder(folder: Path, entry: str) -> str:
    """Return an entry that is relative to `folder` as seen from the current folder; a module's name stays as it is."""
    is_path = entry.endswith(".py") or "/" in entry or os.path.isdir(folder / entry)
    return str(folder / entry) if entry and is_path else entry


def _invalid_toml(path: Path, text: str, why: str) -> str:
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", why)
    line = (found and found[1]) or text.count("\n") + 1
    return f"{path}, line {line}: not TOML: {why[: found.start()] if found else why}"


def _line_of(text: str, key: str) -> int:
    """Return the line, from 1, that a top-level key or table of the TOML text starts on; 0 for unusual spellings."""
    name = re.escape(key)
    pattern = re.compile(rf"""\s*(\[\s*)?["']?{name}["']?\s*(?(1)[\].]|[=.])""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 0)


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, str, object]]:
    for key in sorted(environ):
        if not key.startswith(ENV_PREFIX) or key in NOT_SETTINGS:
            continue
        place = f"environment variable {key}"
        name = key.removeprefix(ENV_PREFIX).lower()
        if name in TABLES:
            raise SettingsError(f"{place}: [{name}] is a table; expected it in the configuration file")
        if name not in NAMES or not key.isupper():
            known = _nearest(name, NAMES, lambda known: ENV_PREFIX + known.upper())
            raise SettingsError(f"{place}: no such setting; {known}")
        yield name, place, _parse(name, place, environ[key])


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    for name, value in flags.items():
        if value is None:
            continue
        flag = _flag(name)
        if name not in NAMES:
            raise SettingsError(f"flag {flag}: no such setting; {_nearest(name, NAMES, _flag)}")
        yield name, f"flag {flag}", _parse(name, f"flag {flag}", value) if isinstance(value, str) else value


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _nearest(key: str, known: tuple[str, ...], shown: Callable[[str], str] = str) -> str:
    close = closest(key, known)
    return f"the nearest is {shown(close[0])}" if close else "`taskengine serve --help` lists the settings"


def _parse(name: str, place: str, text: str) -> object:
    """Parse a value from the environment or a flag; `_convert` checks its range.

    Raises:
        SettingsError: the text is no number, boolean, list or map where the setting is one.
    """
    kind = get_args(HINTS[name])[0]
    text = text.strip()
    if kind is str or get_origin(kind) is Literal:
        return text
    if kind is bool and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if kind is int and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if kind is float and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return float(text)
    if name == "tasks":
        return [entry.strip() for entry in text.split(",")] if text else []
    if name == "lanes":
        try:
            return lane_size.parse(text)
        except ValueError:
            raise _ill_typed(name, place, f"{meta(name)[0]}, such as arm=1,io=1x100", text) from None
    expected = "true, false, 1, 0, yes, no, on or off" if kind is bool else meta(name)[0]
    raise _ill_typed(name, place, expected, text)


def _convert(name: str, place: str, value: object) -> Any:
    try:
        return msgspec.convert(value, HINTS[name])
    except msgspec.ValidationError as error:
        if name in TABLES and isinstance(value, dict):
            raise SettingsError(f"{name} in {place}: {error}") from error
        if name == "lanes" and isinstance(value, dict):
            lane_size.check(place, value)
        raise _ill_typed(name, place, "a table" if name in TABLES else meta(name)[0], value) from error


def _ill_typed(name: str, place: str, expected: str, value: object) -> SettingsError:
    return SettingsError(f"{name} in {place}: expected {expected}, not {value!r}")


def _check_host(settings: Settings, places: Mapping[str, str]) -> None:
    try:
        ipaddress.ip_address(settings.host)
    except ValueError as error:
        # all digits and dots was meant as an address; resolvers take some of it for other ones
        if not _HOST.fullmatch(settings.host) or re.fullmatch(r"[0-9.]+", settings.host):
            raise _ill_typed("host", places["host"], meta("host")[0], settings.host) from error


def _check_lanes(settings: Settings, places: Mapping[str, str]) -> None:
    for lane in settings.lanes:
        if lane.startswith(RESERVED_LANES):
            own = " or ".join(RESERVED_LANES)
            raise SettingsError(
                f"lanes in {places['lanes']}: names that begin with {own} are the engine's own, not {lane!r}"
            )


def _check_heartbeats(settings: Settings, places: Mapping[str, str]) -> None:
    least = 3 * settings.heartbeat_interval
    if settings.heartbeat_limit < least:
        name = "heartbeat_limit" if "heartbeat_limit" in places else "heartbeat_interval"
        raise SettingsError(
            f"{name} in {places[name]}: expected a heartbeat_limit of at least three heartbeat_intervals, "
            f"{least:g} s, not {settings.heartbeat_limit:g}"
        )


def _check_machine(settings: Settings, places: Mapping[str, str]) -> None:
    """Refuse impossible devices, and name the line."""
    try:
        machine = settings.machine()
    except SettingsError as error:
        file = Path(places["hardware"].partition(", line ")[0])
        raise SettingsError(f"{file}{_line_in_table(file, error.path or ())}: {error}", path=error.path) from None
    for lane in machine.lanes if machine else ():
        size = settings.lane(lane)
        if size != lane_size.LaneSize():
            what = "one worker" if size.workers > 1 else "runs one task at a time"
            raise SettingsError(f"lanes in {places['lanes']}: lane {lane!r} has pins, and thus {what}")


def _line_in_table(file: Path, path: Sequence[str]) -> str:
    """Return where the key, or else the longest part of its path, stands in the file: ", line 7"."""
    lines = _text_of(file).splitlines()
    table: list[str] = []
    best = 0, 0
    for number, line in enumerate(lines, 1):
        header = re.fullmatch(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?", line)
        key = re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)
        if header:
            table = [part.strip(" \"'") for part in header[1].split(".")]
        way = table if header else [*table, *key[1].split(".")] if key else []
        way[:1] = [part.lower() for part in way[:1]]
        depth = len(way) if list(path[: len(way)]) == way else 0
        best = max(best, (depth, -number))
    return f", line {-best[1]}" if best[0] else ""


def _check_memory(settings: Settings, places: Mapping[str, str]) -> None:
    for name, size in ("router_memory", settings.router_memory), ("worker_memory", settings.worker_memory):
        if 0 < size < LEAST_MEMORY:
            raise SettingsError(f"{name} in {places[name]}: expected 0 or from 2^28 bytes, not {size}")


def _check_ports(settings: Settings, places: Mapping[str, str]) -> None:
    """Refuse two sockets on one port, and data workers past the last port."""

    def place(*names: str) -> str:
        given = [places[name] for name in names if name in places]
        return f" (from {', '.join(dict.fromkeys(given))})" if given else ""

    users = {settings.router_frontend: "router_frontend"}
    others = {"router_backend": settings.router_backend, "metrics_port": settings.metrics_port}
    if settings.hardware:
        others["stop_port"] = settings.stop_port
    for name, number in others.items():
        if number in users:
            where = place(users[number], name)
            raise SettingsError(f"{name}: expected another port than {users[number]}'s, {number}{where}")
        if number:
            users[number] = name
    for worker, port in enumerate(settings.data_ports()):
        if port in users:
            where = place("starting_port", "task_workers", "data_workers", users[port])
            raise SettingsError(
                f"starting_port: data worker {worker} would publish on {port}, which is {users[port]}'s{where}; "
                "expected STARTING_PORT + TASK_WORKERS + i to be free"
            )
        if port > 65535:
            where = place("starting_port", "task_workers", "data_workers")
            raise SettingsError(
                f"starting_port: data worker {worker} would publish on {port}{where}; expected at most 65535"
            )
