"""The settings: one struct, and `load`, which fills it from four places.

From lowest to highest precedence: the defaults, a TOML file, environment `TASKENGINE_<NAME>`, command-line flags. A
field's `Meta` holds what is allowed and the explanation; the README's table, the flags' help and the errors are made
from it (`rows`). Every error is a `SettingsError` that names the key, the place and what was expected.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from taskengine.errors import SettingsError
from taskengine.topics import DATA_LANES

CONFIG_FILE = "taskengine.toml"
ENV_PREFIX = "TASKENGINE_"
NOT_SETTINGS = frozenset({"TASKENGINE_TEST_TIME_FACTOR"})
TABLES = ("hardware", "policy")

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _port(description: str, least: int = 1) -> Meta:
    return Meta(ge=least, le=65535, description=description, extra={"type": f"a port, {least} to 65535"})


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's settings. Times are in seconds. Built directly it is not validated; `load` validates."""

    host: Annotated[
        str,
        Meta(
            description="The interface that the sockets are bound to; 0.0.0.0 for all.",
            extra={"type": "an address or host name"},
        ),
    ] = "127.0.0.1"
    task_workers: Annotated[
        int,
        Meta(ge=1, le=1024, description="How many task workers run.", extra={"type": "a whole number, 1 to 1024"}),
    ] = 2
    data_workers: Annotated[
        int,
        Meta(ge=0, le=1024, description="How many data workers publish.", extra={"type": "a whole number, 0 to 1024"}),
    ] = 1
    response_time: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="How often a client's queue is flushed to the engine. More gives throughput for sluggishness.",
            extra={"type": "seconds, more than 0 and at most 3600"},
        ),
    ] = 0.005
    chunking: Annotated[
        bool,
        Meta(
            description="Spread a package over the workers; off sends it whole to one.", extra={"type": "true or false"}
        ),
    ] = True
    chunking_size: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="The most tasks sent to a worker before switching. More gives throughput for balance.",
            extra={"type": "a whole number from 1"},
        ),
    ] = 10
    enable_stdout: Annotated[
        bool, Meta(description="Write the interactions to the terminal.", extra={"type": "true or false"})
    ] = True
    tasks: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        Meta(
            description="The task modules, folders and .py files to load.",
            extra={"type": "a list of module names, folders or .py files"},
        ),
    ] = msgspec.field(default_factory=lambda: ["taskengine.tasks"])
    lanes: Annotated[
        dict[Annotated[str, Meta(min_length=1)], Annotated[int, Meta(ge=1, le=1024)]],
        Meta(
            description="The named groups of task workers.",
            extra={"type": "a map of names to numbers of workers, from 1"},
        ),
    ] = msgspec.field(default_factory=dict)
    router_frontend: Annotated[int, _port("Where the router listens to clients.")] = 9000
    router_backend: Annotated[int, _port("Where the router listens to task workers.")] = 9001
    starting_port: Annotated[int, _port("Data worker i, from 0, publishes on STARTING_PORT + TASK_WORKERS + i.")] = (
        10000
    )
    metrics_port: Annotated[
        int, _port("Where Prometheus may ask for /metrics, in plain HTTP on HOST; 0 for nowhere.", least=0)
    ] = 0
    drain_time: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="How long running chunks may take to end at shutdown.",
            extra={"type": "seconds, 0 to 3600"},
        ),
    ] = 5.0
    heartbeat_interval: Annotated[
        float,
        Meta(
            ge=0.01,
            le=3600,
            description="How often the router and a worker show each other that they live.",
            extra={"type": "seconds, 0.01 to 3600"},
        ),
    ] = 0.5
    heartbeat_limit: Annotated[
        float,
        Meta(
            ge=0.03,
            le=86400,
            description="How long a worker may be silent between tasks, or stopped, before it is replaced; "
            "the router three times as long. At least three intervals.",
            extra={"type": "seconds, 0.03 to 86400"},
        ),
    ] = 3.0
    queue_tasks: Annotated[
        int,
        Meta(
            ge=1,
            le=2**53,
            description="The most tasks in flight, of all clients; more is refused with Overloaded.",
            extra={"type": "a whole number from 1"},
        ),
    ] = 2**22
    queue_bytes: Annotated[
        int,
        Meta(
            ge=2**20,
            le=2**53,
            description="The most bytes in flight, with the results that wait, of all clients.",
            extra={"type": "a whole number from 2^20"},
        ),
    ] = 2**28
    client_tasks: Annotated[
        int,
        Meta(
            ge=1,
            le=2**53,
            description="The most tasks in flight of one client.",
            extra={"type": "a whole number from 1"},
        ),
    ] = 2**21
    client_bytes: Annotated[
        int,
        Meta(
            ge=2**16,
            le=2**53,
            description="The most bytes in flight of one client.",
            extra={"type": "a whole number from 2^16"},
        ),
    ] = 2**27
    curve: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Encrypt, and let in only clients with an allowed key. auto: off on loopback, on elsewhere.",
            extra={"type": '"auto", "on" or "off"'},
        ),
    ] = "auto"
    keys: Annotated[
        str,
        Meta(
            description="The folder of the keys; empty for the platform's own.",
            extra={"type": "a path"},
        ),
    ] = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Serve off loopback although nothing is encrypted, or nobody is let in.",
            extra={"type": "true or false"},
        ),
    ] = False
    hardware: dict[str, Any] = msgspec.field(default_factory=dict)
    policy: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def frontend(self) -> str:
        """The address clients talk to."""
        return self._address(self.router_frontend)

    @property
    def backend(self) -> str:
        """The address task workers talk to."""
        return self._address(self.router_backend)

    def lanes_with(self, lanes: Iterable[str]) -> dict[str, int]:
        """How many task workers each lane has, the default one "", with those that tasks name."""
        known = {"": self.task_workers, **self.lanes}
        return known | {lane: 1 for lane in lanes if lane not in known}

    def data_ports(self) -> list[int]:
        """The port of each data worker."""
        first = self.starting_port + self.task_workers
        return list(range(first, first + self.data_workers))

    def data_addresses(self) -> list[str]:
        """The address each data worker publishes on."""
        return [self._address(port) for port in self.data_ports()]

    @property
    def on_loopback(self) -> bool:
        """Only this machine can reach the sockets."""
        return _is_loopback(self.host)

    @property
    def is_curved(self) -> bool:
        """The sockets are encrypted."""
        return self.curve == "on" or (self.curve == "auto" and not self.on_loopback)

    @property
    def keys_folder(self) -> Path | None:
        """The folder of the keys; None for the platform's own."""
        return Path(self.keys).expanduser() if self.keys else None

    def check_exposure(self, clients: int) -> None:
        """Refuses to serve off loopback without encryption, or for nobody.

        Args:
            clients: how many keys are let in.

        Raises:
            SettingsError: `host` is reachable from other machines, and `curve` is off or there is no key.
        """
        if self.insecure or self.on_loopback or (self.is_curved and clients):
            return
        if self.is_curved:
            raise SettingsError(
                f"host: {self.host} is reachable from other machines, and no client has a key: "
                "run `taskengine keys pair NAME` and take its line to the client's machine"
            )
        raise SettingsError(
            f"host: {self.host} is reachable from other machines, and curve is off: anyone there could run tasks. "
            'Set curve to "auto", serve on 127.0.0.1, or override this with --insecure'
        )

    def _address(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{port}"


class Row(NamedTuple):
    """One setting for a reader: its name in upper case, the default as TOML, the type and the explanation as text."""

    name: str
    default: str
    type: str
    explanation: str


def _defaults() -> dict[str, Any]:
    return msgspec.structs.asdict(Settings())


_HINTS: Mapping[str, Any] = get_type_hints(Settings, include_extras=True)
_NAMES = tuple(name for name in Settings.__struct_fields__ if name not in TABLES)


def _meta(name: str) -> tuple[str, str]:
    """The (type text, explanation) of a setting."""
    meta = get_args(_HINTS[name])[-1]
    return meta.extra["type"], meta.description


def _toml_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml_text(entry)}' for key, entry in value.items())}}}"
    return repr(value)


def rows() -> list[Row]:
    """Every setting but the tables, in the order of the struct."""
    defaults = _defaults()
    return [Row(name.upper(), _toml_text(defaults[name]), *_meta(name)) for name in _NAMES]


def load(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """The settings of the four places together.

    Args:
        config: the TOML file; None reads `taskengine.toml` of the current folder if there is one.
        environ: the environment; only `TASKENGINE_*` is looked at.
        flags: from field name to value, as text or typed; None means that the flag was not given.

    Raises:
        SettingsError: a key is unknown, a value ill-typed or out of range, two ports the same, or the file unreadable.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, place, value in (*_from_file(config), *_from_environ(environ), *_from_flags(flags)):
        values[name] = _convert(name, place, value)
        places[name] = place
    settings = Settings(**values)
    _check_host(settings, places)
    _check_lanes(settings, places)
    _check_heartbeats(settings, places)
    _check_ports(settings, places)
    return settings


def _from_file(config: Path | None) -> Iterator[tuple[str, str, object]]:
    """The (name, place, value) of each key of the file."""
    path = Path(CONFIG_FILE) if config is None else config
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if config is None:
            return
        raise SettingsError(f"{path}: there is no such file; expected a TOML file of settings") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}, line {line}: not UTF-8; expected a TOML file of settings") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}; expected a readable TOML file of settings") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_invalid_toml(path, text, str(error))) from error
    for key, value in document.items():
        line = _line_of(text, key)
        place = f"{path}, line {line}" if line else str(path)
        if key not in Settings.__struct_fields__:
            raise SettingsError(f"{key} in {place}: no such setting; {_nearest(key, Settings.__struct_fields__)}")
        yield key, place, value


def _invalid_toml(path: Path, text: str, why: str) -> str:
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", why)
    line = (found and found[1]) or text.count("\n") + 1
    return f"{path}, line {line}: not TOML: {why[: found.start()] if found else why}"


def _line_of(text: str, key: str) -> int:
    """The line, from 1, that a top-level key or table of the TOML text starts on; 0 if it is written unusually."""
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
        if name not in _NAMES or not key.isupper():
            known = [ENV_PREFIX + known.upper() for known in _NAMES]
            raise SettingsError(f"{place}: no such setting; {_nearest(key.upper(), known)}")
        yield name, place, _parse(name, place, environ[key])


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    for name, value in flags.items():
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        if name not in _NAMES:
            known = ["--" + known.replace("_", "-") for known in _NAMES]
            raise SettingsError(f"flag {flag}: no such setting; {_nearest(flag, known)}")
        yield name, f"flag {flag}", _parse(name, f"flag {flag}", value) if isinstance(value, str) else value


def _nearest(key: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"the nearest is {close[0]}" if close else f"expected one of {', '.join(known)}"


def _parse(name: str, place: str, text: str) -> object:
    """The value that text from the environment or a flag stands for; its range is checked by `_convert`.

    Raises:
        SettingsError: the text is no number, boolean, list or map where the setting is one.
    """
    kind = get_args(_HINTS[name])[0]
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
        return _parse_map(name, place, text)
    expected = "true, false, 1, 0, yes, no, on or off" if kind is bool else _meta(name)[0]
    raise _ill_typed(name, place, expected, text)


def _parse_map(name: str, place: str, text: str) -> dict[str, int]:
    entries: dict[str, int] = {}
    for entry in text.split(",") if text else ():
        found = re.fullmatch(r"\s*([^=\s]+)\s*=\s*([0-9]{1,9})\s*", entry)
        if found is None or found[1] in entries:
            raise _ill_typed(name, place, f"{_meta(name)[0]}, such as arm=1,io=2", text)
        entries[found[1]] = int(found[2])
    return entries


def _convert(name: str, place: str, value: object) -> Any:
    try:
        return msgspec.convert(value, _HINTS[name])
    except msgspec.ValidationError as error:
        raise _ill_typed(name, place, "a table" if name in TABLES else _meta(name)[0], value) from error


def _ill_typed(name: str, place: str, expected: str, value: object) -> SettingsError:
    return SettingsError(f"{name} in {place}: expected {expected}, not {value!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_host(settings: Settings, places: Mapping[str, str]) -> None:
    try:
        ipaddress.ip_address(settings.host)
    except ValueError as error:
        # What is all digits and dots was meant as an address; resolvers take some of it for other ones.
        if not _HOST.fullmatch(settings.host) or re.fullmatch(r"[0-9.]+", settings.host):
            raise _ill_typed("host", places["host"], _meta("host")[0], settings.host) from error


def _check_lanes(settings: Settings, places: Mapping[str, str]) -> None:
    for lane in settings.lanes:
        if lane.startswith(DATA_LANES):
            raise SettingsError(
                f"lanes in {places['lanes']}: names that begin with {DATA_LANES!r} are the data workers' own, "
                f"expected another than {lane!r}"
            )


def _check_heartbeats(settings: Settings, places: Mapping[str, str]) -> None:
    least = 3 * settings.heartbeat_interval
    if settings.heartbeat_limit < least:
        name = "heartbeat_limit" if "heartbeat_limit" in places else "heartbeat_interval"
        raise SettingsError(
            f"{name} in {places[name]}: expected a heartbeat_limit of at least three heartbeat_intervals, "
            f"{least:g} s, not {settings.heartbeat_limit:g}"
        )


def _check_ports(settings: Settings, places: Mapping[str, str]) -> None:
    """Refuses two sockets on one port, and data workers past the last port."""

    def place(*names: str) -> str:
        given = [places[name] for name in names if name in places]
        return f" (from {', '.join(dict.fromkeys(given))})" if given else ""

    users = {settings.router_frontend: "router_frontend"}
    for name, number in (("router_backend", settings.router_backend), ("metrics_port", settings.metrics_port)):
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
