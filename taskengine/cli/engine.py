"""Finds the engine that a command talks to, and connects a client.

The address is that of `--address`, else of the variable TASKENGINE_ADDRESS, else the one at which `taskengine serve`
would serve in this folder, else the default.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from taskengine.cli.common import WRONG_USAGE, keys_option, leave, plain_errors
from taskengine.config.loading import ADDRESS_VARIABLE, CONFIG_FILE, read
from taskengine.config.settings import Settings
from taskengine.errors import KeysError, SettingsError, TaskEngineError, printable
from taskengine.protocol.limits import DEFAULT_ADDRESS
from taskengine.security.trusted_files import refuse_changeable, trusted_users

if TYPE_CHECKING:
    from taskengine.client.blocking import Client

PROBE_S = 3.0
_DECIDING = ("host", "router_frontend")
"""The settings that make up an address."""
_HERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # the address to connect to, for an address to bind to


class Where(NamedTuple):
    """The engine that a command talks to; `engine` selects one if the folder `keys` knows several.

    `source` says where the address comes from, and `stop_address` is the stop port's, None if it is not known.
    """

    address: str
    keys: Path | None = None
    engine: str = ""
    insecure: bool = False
    source: str = "the address is the default"
    stop_address: str | None = None


def find_engine(given: str | None, environ: Mapping[str, str], config: Path | None = None) -> Where:
    """Return the engine at the address `given`, or else the default one, by the settings of this folder or of `config`.

    Raises SettingsError, KeysError.
    """
    if given is not None:
        return Where(given, source="the address is from --address")
    if ADDRESS_VARIABLE in environ:
        return Where(environ[ADDRESS_VARIABLE], source=f"the address is from {ADDRESS_VARIABLE}")
    file = Path(CONFIG_FILE) if config is None else config
    if os.path.exists(file):
        refuse_changeable("the settings", [file], trusted_users())
    settings, places = read(config, environ, {})
    deciding = dict.fromkeys(place for name, place in places.items() if name in _DECIDING)
    found = Where(_reachable(settings.host, settings.router_frontend), keys=_keys_of(settings))
    if settings.hardware and settings.stop_port:
        found = found._replace(stop_address=_reachable(settings.host, settings.stop_port))
    return found._replace(source=f"the address is from {', '.join(deciding)}") if deciding else found


def _reachable(host: str, port: int) -> str:
    """Return the address at which a client on this machine reaches an engine that serves on `host`."""
    return f"tcp://{_HERE.get(host) or (f'[{host}]' if ':' in host else host)}:{port}"


def _keys_of(settings: Settings) -> Path | None:
    """Return the folder KEYS if this machine has keys of its own for an encrypted engine."""
    if not (settings.keys_folder and settings.is_curved):
        return None
    from taskengine.security.keys import KeyRing

    return settings.keys_folder if KeyRing(settings.keys_folder).memberships() else None


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a command that talks to an engine; the command gets the engine as `where`."""

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
    """Return whether the command stops the machine; settings that cannot be read do not prevent that."""
    from taskengine.client.calls import stops_machine

    return command == "stop" or (command == "call" and stops_machine(arguments.get("name")))


@contextlib.contextmanager
def client_of(where: Where, timeout: float | None) -> Iterator[Client]:
    """Yield a client of the engine, which may not be running."""
    from taskengine.client.blocking import Client

    address, keys, engine, insecure = where[:4]
    try:
        client = Client(address, "taskengine", timeout, keys, engine, insecure)
    except TaskEngineError as error:
        leave(f"{error}; {where.source}", WRONG_USAGE)
    with plain_errors(where.source), client:
        yield client


@contextlib.contextmanager
def connected(where: Where, timeout: float | None) -> Iterator[Client]:
    """Yield a client of an engine that has answered."""
    with client_of(where, timeout) as client:
        client.options(timeout=PROBE_S).info()
        yield client
