"""Which engine a command talks to, and a client of it.

The address is that of `--address`, else of the variable TASKENGINE_ADDRESS, else the one at which `taskengine serve`
would serve in this folder, else the default one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from taskengine.commandline import WRONG_USAGE, keys_option, leave, plain_errors
from taskengine.configuration import ADDRESS_VARIABLE, CONFIG_FILE, read
from taskengine.errors import KeysError, SettingsError, TaskEngineError, printable
from taskengine.settings import Settings
from taskengine.trust import refuse_changeable, trusted_users
from taskengine.wire import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from taskengine.client import Client

PROBE_S = 3.0
_DECIDING = ("host", "router_frontend")
"""The settings that an address is made of."""
_HERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # what a client here connects to, not what is bound


class Where(NamedTuple):
    """The engine that a command talks to: `engine` says which it is, where the folder `keys` knows several.

    `source` says what the address is from, and `stop_address` where the stop port is, None where that is not known.
    """

    address: str
    keys: Path | None = None
    engine: str = ""
    insecure: bool = False
    source: str = "the address is the default"
    stop_address: str | None = None


def find_engine(given: str | None, environ: Mapping[str, str]) -> Where:
    """The engine at the address `given`, or the one that is meant without. Raises SettingsError, KeysError."""
    if given is not None:
        return Where(given, source="the address is from --address")
    if ADDRESS_VARIABLE in environ:
        return Where(environ[ADDRESS_VARIABLE], source=f"the address is from {ADDRESS_VARIABLE}")
    file = Path(CONFIG_FILE)
    if os.path.exists(file):
        refuse_changeable("the settings", [file], trusted_users())
    settings, places = read(None, environ, {})
    deciding = dict.fromkeys(place for name, place in places.items() if name in _DECIDING)
    found = Where(_reachable(settings.host, settings.router_frontend), keys=_keys_of(settings))
    if settings.hardware and settings.stop_port:
        found = found._replace(stop_address=_reachable(settings.host, settings.stop_port))
    return found._replace(source=f"the address is from {', '.join(deciding)}") if deciding else found


def _reachable(host: str, port: int) -> str:
    """The address at which a client on this machine reaches an engine that serves on `host`."""
    return f"tcp://{_HERE.get(host) or (f'[{host}]' if ':' in host else host)}:{port}"


def _keys_of(settings: Settings) -> Path | None:
    """The folder KEYS, where this machine has keys of its own for an encrypted engine."""
    if not (settings.keys_folder and settings.is_curved):
        return None
    from taskengine.keys import KeyRing

    return settings.keys_folder if KeyRing(settings.keys_folder).memberships() else None


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that talks to an engine, which it gets as `where`."""

    @wraps(function)
    def command(address: str | None, keys: Path | None, engine: str, insecure: bool, **rest: Any) -> Any:
        try:
            found = find_engine(address, os.environ)
        except (KeysError, SettingsError) as error:
            if not _is_stop(function.__name__, rest):
                leave(f"{error}; or say --address", WRONG_USAGE)
            click.echo(printable(f"taskengine: warning: {error}; trying {DEFAULT_ADDRESS}"), err=True)
            found = Where(DEFAULT_ADDRESS)
        return function(where=found._replace(keys=keys or found.keys, engine=engine, insecure=insecure), **rest)

    text = (
        f"The engine's frontend [default: {ADDRESS_VARIABLE}, or where `serve` would serve in this folder, "
        f"or {DEFAULT_ADDRESS}]."
    )
    which = "Which engine it is, where there are keys for several: its host, or its key's fingerprint."
    clear = "Speak unencrypted to another machine, where anybody may play the engine."
    options = (
        click.option("--address", metavar="tcp://HOST:PORT", help=text),
        keys_option("yours"),
        click.option("--engine", default="", metavar="HOST", help=which),
        click.option("--insecure", is_flag=True, help=clear),
    )
    return reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _is_stop(command: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether the command stops the machine, which settings that cannot be read do not prevent."""
    from taskengine.stopping import stops_machine

    return command == "stop" or (command == "call" and stops_machine(arguments.get("name")))


@contextlib.contextmanager
def client_of(where: Where, timeout: float | None) -> Iterator[Client]:
    """A client of the engine, where there may be none."""
    from taskengine.client import Client

    address, keys, engine, insecure = where[:4]
    try:
        client = Client(address, "taskengine", timeout, keys, engine, insecure)
    except TaskEngineError as error:
        leave(f"{error}; {where.source}", WRONG_USAGE)
    with plain_errors(where.source), client:
        yield client


@contextlib.contextmanager
def connected(where: Where, timeout: float | None) -> Iterator[Client]:
    """A client of the engine, which has answered."""
    with client_of(where, timeout) as client:
        client.options(timeout=PROBE_S).info()
        yield client
