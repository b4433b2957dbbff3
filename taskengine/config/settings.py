"""The settings: one struct.

A field's `Meta` holds its range and its description. The table of settings in the documentation, the flags' help and
the errors are made from it (`descriptions.rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from taskengine.config.lane_size import Count, LaneSize
from taskengine.config.places import expanded, is_loopback
from taskengine.config.policy import Entry
from taskengine.config.ranges import described as _meta
from taskengine.config.ranges import port as _port
from taskengine.errors import SettingsError
from taskengine.protocol.limits import MAX_DEPTH, MAX_MESSAGE, MAX_TASKS

if TYPE_CHECKING:
    from taskengine.config.machine import Machine

TABLES = ("hardware", "policy")
"""Tables that only the file can have."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's settings. Times are in seconds. Built directly it is not validated; `load` validates."""

    host: Annotated[
        str,
        _meta(
            "an address or host name",
            "Interface that the engine's sockets are bound to. 0.0.0.0: all interfaces. On any but loopback the "
            "engine encrypts, and lets in only clients with an allowed key.",
        ),
    ] = "127.0.0.1"
    task_workers: Annotated[
        int,
        _meta(
            "a whole number, 1 to 1024",
            "Number of processes that run the tasks of the default lane. More run more tasks at once and take more "
            "memory; more than the machine has cores rarely helps.",
            (1, 1024),
        ),
    ] = 2
    data_workers: Annotated[
        int,
        _meta(
            "a whole number, 0 to 1024",
            "Number of processes that sample sources and publish values. More share the sources between them; each "
            "takes memory and a port.",
            (0, 1024),
        ),
    ] = 1
    response_time: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Longest time that a client collects queued calls (`submit`, `send`) before it sends them "
            "together. Higher values raise throughput and add latency.",
            extra={"type": "seconds, more than 0 and at most 3600"},
        ),
    ] = 0.005
    chunking: Annotated[
        bool,
        _meta(
            "true or false",
            "Cut each package into chunks and spread them over the workers. Off: one worker runs the whole package.",
        ),
    ] = True
    chunking_size: Annotated[
        int,
        _meta(
            "a whole number from 1",
            "Most tasks in a chunk, which one worker gets before the next. Higher values raise throughput "
            "and print fewer lines.",
            (1, 2**31 - 1),
        ),
    ] = 10
    enable_stdout: Annotated[
        bool,
        _meta("true or false", "Write a line to the terminal for each step of a package. Lines cost some throughput."),
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(
            description="Leave out log lines below this level. Interactions, starts and stops have level info. "
            "Prints of tasks are always written.",
            extra={"type": '"debug", "info", "warning" or "error"'},
        ),
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(
            description="Form of the log lines. json: each line is an object with time, level, process, pid and "
            "message, and with task and client where they are known.",
            extra={"type": '"text" or "json"'},
        ),
    ] = "text"
    record_commands: Annotated[
        bool,
        _meta(
            "true or false",
            "Publish each call that has ended, with client, arguments, times and result, on taskengine.commands, for "
            "`taskengine record`. Clients with the right to that topic see them. It costs some 15 µs for each task.",
        ),
    ] = False
    record: Annotated[
        str,
        _meta(
            "a path",
            "Folder in which the engine records all topics, calls and events, as `taskengine record` does, with "
            "RECORD_COMMANDS. It takes one more process. Empty: nowhere.",
        ),
    ] = ""
    record_bytes: Annotated[
        int,
        _meta(
            "a whole number, 1048576 to 1152921504606846976",
            "Most bytes of the files in RECORD; beyond that the oldest are removed. More keep a longer past.",
            (2**20, 2**60),
        ),
    ] = 2**30
    tasks: Annotated[
        list[Annotated[str, Meta(min_length=1)]],
        _meta("a list of module names, folders or .py files", "Task modules to load."),
    ] = msgspec.field(default_factory=lambda: ["taskengine.tasks"])
    lanes: Annotated[
        dict[Annotated[str, Meta(min_length=1)], Count | LaneSize],
        _meta(
            "a map of names to numbers of workers, or to {workers, concurrency}, each 1 to 1024",
            "Named groups of task workers, and the number of workers in each. A lane with one worker runs its tasks "
            "in order. Each worker is a process and takes memory. With a concurrency, each worker runs so many "
            "`async def` tasks at once: io = {workers = 1, concurrency = 100}; as a flag io=1x100.",
        ),
    ] = msgspec.field(default_factory=dict)
    router_frontend: Annotated[int, _port("Port on which the router listens to clients.")] = 9000
    router_backend: Annotated[
        int, _port("Port on loopback on which the router listens to workers where it has no Unix socket.")
    ] = 9001
    starting_port: Annotated[
        int,
        _port(
            "Base of the data workers' ports. Data worker i, counted from 0, publishes on STARTING_PORT + "
            "TASK_WORKERS + i."
        ),
    ] = 10000
    metrics_port: Annotated[
        int,
        _port(
            "Port on HOST where Prometheus reads /metrics, over plain HTTP. It takes one more process. 0: no metrics.",
            least=0,
        ),
    ] = 0
    stop_port: Annotated[
        int,
        _port(
            "Port on HOST that takes emergency stops past the router, where there is a table [hardware]. It takes one "
            "more process. 0: no such port.",
            least=0,
        ),
    ] = 9002
    pins: Annotated[
        Literal["auto", "lgpio", "pigpio", "mock"],
        _meta(
            '"auto", "lgpio", "pigpio" or "mock"',
            "Driver of the pins in the table [hardware]. auto: the driver that GPIOZERO_PIN_FACTORY names, else "
            "lgpio. mock: simulated pins, on any machine.",
        ),
    ] = "auto"
    drain_time: Annotated[
        float,
        _meta(
            "seconds, 0 to 3600",
            "Longest time that running tasks may take to end at a shutdown. Higher values let longer tasks finish and "
            "make a shutdown take longer.",
            (0, 3600),
        ),
    ] = 5.0
    heartbeat_interval: Annotated[
        float,
        _meta(
            "seconds, 0.01 to 3600",
            "Time between two heartbeats of the router and of each worker. Higher values wake the machine less often "
            "and need a higher HEARTBEAT_LIMIT.",
            (0.01, 3600),
        ),
    ] = 0.5
    heartbeat_limit: Annotated[
        float,
        _meta(
            "seconds, 0.03 to 86400",
            "Silence after which a worker that runs no task, or that is stopped, is replaced; the router after three "
            "times as long. At least three HEARTBEAT_INTERVALs. Higher values suit a busy machine and find a hang "
            "later.",
            (0.03, 86400),
        ),
    ] = 3.0
    queue_tasks: Annotated[
        int,
        _meta(
            "a whole number from 1",
            "Most tasks in flight, of all clients together; more are refused with Overloaded. Higher values take more "
            "memory.",
            (1, 2**53),
        ),
    ] = 2**22
    queue_bytes: Annotated[
        int,
        _meta(
            "a whole number from 2^20",
            "Most bytes of tasks in flight and of results that wait for the rest of their package, of all clients "
            "together. Higher values take more memory.",
            (2**20, 2**53),
        ),
    ] = 2**28
    client_tasks: Annotated[
        int,
        _meta(
            "a whole number from 1",
            "Most tasks in flight of one client. Higher values let one client take more of QUEUE_TASKS.",
            (1, 2**53),
        ),
    ] = 2**21
    client_bytes: Annotated[
        int,
        _meta(
            "a whole number from 2^16",
            "Most bytes in flight of one client. Higher values let one client take more of QUEUE_BYTES.",
            (2**16, 2**53),
        ),
    ] = 2**27
    queue_packages: Annotated[
        int,
        _meta(
            "a whole number from 1",
            "Most packages in flight, of all clients together. Higher values take more memory.",
            (1, 2**31),
        ),
    ] = 2**16
    client_packages: Annotated[
        int,
        _meta(
            "a whole number from 1",
            "Most packages in flight of one client. Higher values let one client take more of QUEUE_PACKAGES.",
            (1, 2**31),
        ),
    ] = 2**15
    package_tasks: Annotated[
        int,
        _meta(
            "a whole number, 1 to 2^21",
            "Most tasks in one package; a message has at most two frames more. Higher values let one message keep the "
            "router busy for longer.",
            (1, MAX_TASKS),
        ),
    ] = MAX_TASKS
    message_bytes: Annotated[
        int,
        _meta(
            "a whole number, 2^16 to 65 * 2^20",
            "Most bytes in one frame of a client, and thus in one value. A client that sends more is disconnected. "
            "Higher values let one message take more memory.",
            (2**16, MAX_MESSAGE),
        ),
    ] = MAX_MESSAGE
    pin_bytes: Annotated[
        int,
        _meta(
            "a whole number, 2^10 to 65 * 2^20",
            "Most bytes in one task for a lane with pins. Higher values let one task delay the devices for longer, "
            "while it is read.",
            (2**10, MAX_MESSAGE),
        ),
    ] = 2**16
    value_depth: Annotated[
        int,
        _meta(
            "a whole number, 1 to 64",
            "Deepest nesting of lists and maps in a task's arguments and in its result.",
            (1, MAX_DEPTH),
        ),
    ] = MAX_DEPTH
    connections: Annotated[
        int,
        _meta(
            "a whole number from 16",
            "Most connections to the router, and to each data worker. Each takes memory and a file descriptor.",
            (16, 2**20),
        ),
    ] = 4096
    handshake_time: Annotated[
        float,
        _meta(
            "seconds, 0.1 to 3600",
            "Longest time that a new connection may take to identify itself. Higher values suit slow links and let "
            "strangers hold connections for longer.",
            (0.1, 3600),
        ),
    ] = 5.0
    router_memory: Annotated[
        int,
        _meta(
            "a whole number, 0 or from 2^28",
            "Most memory, in bytes, of the router, and of each data worker. A process that needs more ends and is "
            "started again. 0: half of the machine's memory.",
            (0, 2**53),
        ),
    ] = 0
    worker_memory: Annotated[
        int,
        _meta(
            "a whole number, 0 or from 2^28",
            "Most memory, in bytes, of each task worker. A task that needs more fails with MemoryError; large models "
            "need a higher value. 0: half of the machine's memory.",
            (0, 2**53),
        ),
    ] = 0
    curve: Annotated[
        Literal["auto", "on", "off"],
        _meta(
            '"auto", "on" or "off"',
            "Encrypt, and let in only clients with an allowed key. auto: on where HOST is not loopback, and where "
            "there is a policy.",
        ),
    ] = "auto"
    keys: Annotated[
        str,
        _meta(
            "a path",
            "Folder of the keys. Empty: taskengine/keys in the user's folder for configuration, such as "
            "~/.config/taskengine/keys.",
        ),
    ] = ""
    audit: Annotated[
        str,
        _meta(
            'a path, "journald" or "syslog"',
            'File of the audit log, or "journald" or "syslog" for the system\'s own log. Empty: audit.jsonl beside the '
            "keys, where CURVE is on.",
        ),
    ] = ""
    insecure: Annotated[
        bool,
        _meta(
            "true or false",
            "Serve other machines even where nothing is encrypted, or no client has a key. Without encryption anyone "
            "who reaches the port can run tasks.",
        ),
    ] = False
    user: Annotated[
        str,
        _meta(
            "a user's name",
            "User that all processes but the supervisor run as when root starts the engine. Empty: stay root.",
        ),
    ] = ""
    group: Annotated[
        str,
        _meta(
            "a group's name",
            "First group of these processes, in addition to the user's other groups. Empty: the user's own group.",
        ),
    ] = ""
    tracebacks: Annotated[
        Literal["auto", "on", "off"],
        _meta(
            '"auto", "on" or "off"',
            "Send tracebacks and whole paths with the errors of tasks, which tells clients about the machine. auto: "
            "on where nothing is encrypted and HOST is loopback.",
        ),
    ] = "auto"
    trust_clock: Annotated[
        bool,
        _meta(
            "true or false",
            "Run tasks with `at` and `cron` also while the system does not say that its clock is set, such as on a "
            "machine that has a clock with a battery and no network.",
        ),
    ] = False
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
        """The address at which Prometheus finds the metrics, if METRICS_PORT is set."""
        return f"{self._address(self.metrics_port).replace('tcp://', 'http://')}/metrics"

    def lanes_with(self, lanes: Iterable[str]) -> dict[str, int]:
        """How many task workers each lane has, the default one "", with those that tasks name."""
        known = {"": self.task_workers, **{lane: self.lane(lane).workers for lane in self.lanes}}
        return known | {lane: 1 for lane in lanes if lane not in known}

    def lane(self, name: str) -> LaneSize:
        """The size of a named lane; one that is not in LANES has one worker."""
        size = self.lanes.get(name, 1)
        return size if isinstance(size, LaneSize) else LaneSize(size)

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
        return is_loopback(self.host)

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
        return expanded("keys", self.keys) if self.keys else None

    @property
    def audit_file(self) -> Path | None:
        """The file that AUDIT names; None where it names none."""
        return expanded("audit", self.audit) if self.audit not in ("", "journald", "syslog") else None

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


HINTS: Mapping[str, Any] = get_type_hints(Settings, include_extras=True)
"""The type of each setting, with what is allowed."""
NAMES = tuple(name for name in Settings.__struct_fields__ if name not in TABLES)
"""Every setting but the tables."""


def meta(name: str) -> tuple[str, str]:
    """Return the (type text, explanation) of a setting."""
    meta = get_args(HINTS[name])[-1]
    return meta.extra["type"], meta.description
