"""The settings file, and the environment: settings that load again as they are, or our SettingsError."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from taskengine.config.descriptions import rows
from taskengine.config.loading import ENV_PREFIX, load
from taskengine.config.settings import NAMES, TABLES, Settings
from taskengine.errors import SettingsError
from tests.fuzz.inputs import TEXT_SEPARATOR, joined

MAX_BYTES = 700
TOKENS = [
    *(f"{name} = ".encode() for name in NAMES),
    *(f"{ENV_PREFIX}{name.upper()}=".encode() for name in ("tasks", "lanes", "host", "chunking", "response_time")),
    *(b"[policy]\n", b"[hardware]\n", b"[[policy]]\n", b"true", b"false", b"inf", b"nan", b"0x_1", b"1e400", b"'''"),
    *(b'"""', b"\\u00e9", b"{a = 1}", b'["a", "b"]', b"1979-05-27T07:32:00Z", b"arm=1,io=2", TEXT_SEPARATOR),
]


def seeds() -> list[bytes]:
    """The defaults as a file, and what users get wrong."""
    defaults = "\n".join(f"{row.name.lower()} = {row.default}" for row in rows())
    files = [
        defaults,
        'chunking_size = 50\ntask_workers = 4\nlanes = {arm = 1, "io.x" = 2}\n',
        'host = "0.0.0.0"\ncurve = "on"\n[hardware]\nservo = {pin = 18}\n',
        '[policy.laptop]\ncall = ["task_*"]\n[policy."*"]\nrate = 10\n',
        "chunking_size = 0\n",
        "chunkingsize = 50\n",
        'chunking = "yes"\n',
        "response_time = nan\n",
        "heartbeat_interval = 2.0\nheartbeat_limit = 3.0\n",
        "router_frontend = 9001\n",
        "starting_port = 65535\ndata_workers = 2\n",
        "router_memory = 5\n",
        'tasks = ["robot.py", "é", ""]\n',
        'lanes = {"data:0" = 1}\n',
        "a = [1,\n",
        "[hardware]\n[hardware]\n",
        'host = """a\nb"""',
    ]
    environs = [
        "TASKENGINE_CHUNKING=no\0TASKENGINE_LANES=arm=1, io=2",
        "TASKENGINE_TASKS=a,b.py\0TASKENGINE_RESPONSE_TIME=1e-3",
        "TASKENGINE_POLICY=x",
        "TASKENGINE_TEST_TIME_FACTOR=3\0taskengine_host=x\0TASKENGINE_HOST=1.2.3",
    ]
    return [*(text.encode() for text in files), *(joined([b"", text.encode()], TEXT_SEPARATOR) for text in environs)]


@cache
def _file() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name, "taskengine.toml")


def fuzz(data: bytes) -> None:
    """The file, and behind it variables of the environment."""
    text, *variables = data.split(TEXT_SEPARATOR)
    environ = {}
    for variable in variables:
        name, _, value = variable.decode(errors="surrogateescape").partition("=")
        environ[name] = value
    path = _file()
    path.write_bytes(text)
    try:
        settings = load(path, environ, {})
    except SettingsError:
        return
    _ = settings.frontend, settings.backend, settings.data_addresses(), settings.is_curved, settings.on_loopback
    path.write_bytes(b"")
    tables = {name: getattr(settings, name) for name in TABLES}
    flags = {name: getattr(settings, name) for name in NAMES}
    assert msgspec.structs.replace(load(path, {}, flags), **tables) == settings
    assert isinstance(settings, Settings)
