"""The settings: one struct.

A field's `Meta` holds what is allowed and the explanation; the README's table, the flags' help and the errors are made
from it (`rows`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

from taskengine.config.policy import Entry
from taskengine.errors import SettingsError
from taskengine.protocol.limits import MAX_DEPTH, MAX_MESSAGE, MAX_TASKS

if TYPE_CHECKING:
    from taskengine.config.machine import Machine

TABLES = ("hardware", "policy")
"""What only the file has."""


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
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="Leave out log lines below this level. The interactions, starts and stops are info. "
            "What tasks print is always written.",
            extra={"type": '"debug", "info", "warning" or "error"'},
        ),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(
            description="Form of the log lines. json: an object a line, with time, level, process, pid, message, and "
            "task and client where they are known.",
            extra={"type": '"text" or "json"'},
        ),
    ] = "text"
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
    router_backend: Annotated[
        int, _port("Where the router listens to workers, on loopback, if it has no Unix socket.")
    ] = 9001
    starting_port: Annotated[int, _port("Data worker i, from 0, publishes on STARTING_PORT + TASK_WORKERS + i.")] = (
        10000
    )
    metrics_port: Annotated[
        int, _port("Where Prometheus may ask for /metrics, in plain HTTP on HOST; 0 for nowhere.", least=0)
    ] = 0
    stop_port: Annotated[
        int,
        _port(
            "Where the machine of the table [hardware] can be stopped past the router, on HOST; 0 for nowhere.", least=0
        ),
    ] = 9002
    pins: Annotated[
        Literal["auto", "lgpio", "pigpio", "mock"],
        Meta(
            description="What drives the pins of the table [hardware]. auto: what GPIOZERO_PIN_FACTORY names, "
            "else lgpio; mock: memory, to learn with.",
            extra={"type": '"auto", "lgpio", "pigpio" or "mock"'},
        ),
    ] = "auto"
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
    queue_packages: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31,
            description="The most packages in flight, of all clients.",
            extra={"type": "a whole number from 1"},
        ),
    ] = 2**16
    client_packages: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31,
            description="The most packages in flight of one client.",
            extra={"type": "a whole number from 1"},
        ),
    ] = 2**15
    package_tasks: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_TASKS,
            description="The most tasks in a package, and, but for two, frames in a message.",
            extra={"type": "a whole number, 1 to 2^21"},
        ),
    ] = MAX_TASKS
    message_bytes: Annotated[
        int,
        Meta(
            ge=2**16,
            le=MAX_MESSAGE,
            description="The most bytes in a frame that a client sends, thus in a value; who sends more is cut off.",
            extra={"type": "a whole number, 2^16 to 65 * 2^20"},
        ),
    ] = MAX_MESSAGE
    pin_bytes: Annotated[
        int,
        Meta(
            ge=2**10,
            le=MAX_MESSAGE,
            description="The most bytes in a task for a lane with pins, whose owner has no time for large values.",
            extra={"type": "a whole number, 2^10 to 65 * 2^20"},
        ),
    ] = 2**16
    value_depth: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_DEPTH,
            description="How deep lists and maps may nest in what a task is given and gives back.",
            extra={"type": "a whole number, 1 to 64"},
        ),
    ] = MAX_DEPTH
    connections: Annotated[
        int,
        Meta(
            ge=16,
            le=2**20,
            description="The most connections to the router, and to each data worker.",
            extra={"type": "a whole number from 16"},
        ),
    ] = 4096
    handshake_time: Annotated[
        float,
        Meta(
            ge=0.1,
            le=3600,
            description="How long who connects may take to say who it is.",
            extra={"type": "seconds, 0.1 to 3600"},
        ),
    ] = 5.0
    router_memory: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53,
            description="The most bytes of memory that the router may take, which is ended where it takes more; "
            "0 for half of the machine's.",
            extra={"type": "a whole number, 0 or from 2^28"},
        ),
    ] = 0
    worker_memory: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53,
            description="The most bytes of memory that a task worker may take: more is the task's MemoryError. "
            "Tasks with large models need more; 0 for half of the machine's.",
            extra={"type": "a whole number, 0 or from 2^28"},
        ),
    ] = 0
    curve: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Encrypt, and let in only clients with an allowed key. "
            "auto: on off loopback, and where there is a policy.",
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
    audit: Annotated[
        str,
        Meta(
            description='The file of the audit log, or "journald" or "syslog" for the log of the system; empty for '
            "audit.jsonl beside the keys, where CURVE is on.",
            extra={"type": 'a path, "journald" or "syslog"'},
        ),
    ] = ""
    insecure: Annotated[
        bool,
        Meta(
            description="Serve off loopback although nothing is encrypted, or nobody is let in.",
            extra={"type": "true or false"},
        ),
    ] = False
    user: Annotated[
        str,
        Meta(
            description="Whom root has the engine's processes become; empty for nobody else.",
            extra={"type": "a user's name"},
        ),
    ] = ""
    group: Annotated[
        str,
        Meta(
            description="The group that they have then, beside the user's others; empty for the user's own.",
            extra={"type": "a group's name"},
        ),
    ] = ""
    tracebacks: Annotated[
        Literal["auto", "on", "off"],
        Meta(
            description="Send tracebacks and whole paths with the errors of tasks. "
            "auto: on where nothing is encrypted and HOST is loopback.",
            extra={"type": '"auto", "on" or "off"'},
        ),
    ] = "auto"
    hardware: dict[str, Any] = msgspec.field(default_factory=dict)
    policy: dict[str, Entry] | None = None

    def machine(self) -> Machine | None:
        """The devices of the table [hardware], None where there is none. Raises SettingsError."""
        if not self.hardware:
            return None
        from taskengine.config.machine import Machine

        return Machine(self.hardware, self.pins)

    @property
    def frontend(self) -> str:
        """The address clients talk to."""
        return self._address(self.router_frontend)

    @property
    def backend(self) -> str:
        """The address task workers talk to where there can be no Unix socket; on loopback, whatever HOST is."""
        return f"tcp://{'[::1]' if self.host == '::1' else '127.0.0.1'}:{self.router_backend}"

    @property
    def stop_address(self) -> str:
        """The address at which the machine can be stopped past the router; "" for none."""
        return self._address(self.stop_port) if self.stop_port and self.hardware else ""

    @property
    def metrics_page(self) -> str:
        """Where Prometheus finds the metrics, if METRICS_PORT is set."""
        return f"{self._address(self.metrics_port).replace('tcp://', 'http://')}/metrics"

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
        return self.curve == "on" or (self.curve == "auto" and not (self.on_loopback and self.policy is None))

    @property
    def has_tracebacks(self) -> bool:
        """Clients are sent tracebacks and whole paths."""
        return self.tracebacks == "on" or (self.tracebacks == "auto" and self.on_loopback and not self.is_curved)

    @property
    def keys_folder(self) -> Path | None:
        """The folder of the keys; None for the platform's own."""
        return _expanded("keys", self.keys) if self.keys else None

    @property
    def audit_file(self) -> Path | None:
        """The file that AUDIT names; None where it names none."""
        return _expanded("audit", self.audit) if self.audit not in ("", "journald", "syslog") else None

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
                "run `taskengine keys pair NAME` and type its code on the client's machine"
            )
        raise SettingsError(
            f"host: {self.host} is reachable from other machines, and curve is off: anyone there could run tasks. "
            'Set curve to "auto", serve on 127.0.0.1, or override this with --insecure'
        )

    def _address(self, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{port}"


def _expanded(name: str, path: str) -> Path:
    """The path, with ~ as the home folder. Raises SettingsError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: {path} begins with ~, and there is no such home; expected a whole path") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Row(NamedTuple):
    """One setting for a reader: its name in upper case, the default as TOML, the type and the explanation as text."""

    name: str
    default: str
    type: str
    explanation: str


def _defaults() -> dict[str, Any]:
    return msgspec.structs.asdict(Settings())


HINTS: Mapping[str, Any] = get_type_hints(Settings, include_extras=True)
"""The type of each setting, with what is allowed."""
NAMES = tuple(name for name in Settings.__struct_fields__ if name not in TABLES)
"""Every setting but the tables."""


def meta(name: str) -> tuple[str, str]:
    """The (type text, explanation) of a setting."""
    meta = get_args(HINTS[name])[-1]
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
    return [Row(name.upper(), _toml_text(defaults[name]), *meta(name)) for name in NAMES]
