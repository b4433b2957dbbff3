"""The command `taskengine keys`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskengine.commandline import keys_option, load_settings, plain_errors
from taskengine.wire import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from taskengine.keys import KeyRing

UID = os.getuid()
"""Who called us, before we become another."""
_keys = keys_option("the setting KEYS, or yours")


@click.group()
def keys() -> None:
    """Make keys for clients, and say whom the engine lets in.

    \b
    taskengine keys pair laptop              on the robot: prints a line
    taskengine keys accept taskengine-pair:… on the laptop
    """


def _ring(folder: Path | None) -> KeyRing:
    """The keys in a folder, or in that of the settings. Root acts as the folder's owner, whose the files stay then."""
    # whoever becomes another user may not read modules any more
    from taskengine.audit import Audit  # noqa: F401
    from taskengine.identity import become_owner
    from taskengine.keys import KeyRing

    ring = KeyRing(folder or load_settings(None, {}).keys_folder)
    become_owner(ring.folder)
    return ring


def _note(ring: KeyRing, command: str, name: str) -> None:
    """Tell the audit log of a change of the allow-list, and which user made it."""
    from taskengine.audit import AUDIT_FILE, Audit, file_of

    settings = load_settings(None, {})
    target = file_of(settings) if settings.audit else ring.folder / AUDIT_FILE
    Audit(target, lambda line: click.echo(line, err=True)).note(f"keys {command}", client=name, uid=UID)


@keys.command("new")
@click.argument("name")
@click.option("--address", default=DEFAULT_ADDRESS, metavar="tcp://HOST:PORT", help="The engine's frontend.")
@_keys
def keys_new(name: str, address: str, keys: Path | None) -> None:
    """Make a key for this machine, NAME to an engine, whose public key is asked for; prints ours."""
    with plain_errors():
        engine = click.prompt("The engine's public key (`taskengine keys show` there)", err=True)
        click.echo(_ring(keys).join(address, engine, name).own.public)


# a key may begin with -
@keys.command("allow", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("public")
@_keys
def keys_allow(name: str, public: str, keys: Path | None) -> None:
    """Let the client NAME in, by its PUBLIC key."""
    with plain_errors():
        ring = _ring(keys)
        ring.allow(name, public)
        _note(ring, "allow", name)


@keys.command("list")
@_keys
def keys_list(keys: Path | None) -> None:
    """List the clients that this engine lets in, and the engines that this machine has keys for."""
    from taskengine.keys import fingerprint

    with plain_errors():
        ring = _ring(keys)
        for public, name in sorted(ring.allowed().items(), key=lambda item: item[1]):
            click.echo(f"client {name} {fingerprint(public)}")
        for membership in ring.memberships():
            click.echo(f"engine {membership.address} as {membership.name} {fingerprint(membership.own.public)}")


@keys.command("revoke")
@click.argument("name")
@_keys
def keys_revoke(name: str, keys: Path | None) -> None:
    """Let the client NAME in no more."""
    with plain_errors():
        ring = _ring(keys)
        ring.revoke(name)
        _note(ring, "revoke", name)


@keys.command("forget")
@click.argument("address")
@_keys
def keys_forget(address: str, keys: Path | None) -> None:
    """Have no key for the engine at ADDRESS any more: a client then talks to it unencrypted."""
    with plain_errors():
        _ring(keys).forget(address)


@keys.command("show")
@_keys
def keys_show(keys: Path | None) -> None:
    """Print the engine's public key and its fingerprint."""
    from taskengine.keys import fingerprint

    with plain_errors():
        public = _ring(keys).engine().public
        click.echo(f"{public}  {fingerprint(public)}")


@keys.command("metrics")
@_keys
def keys_metrics(keys: Path | None) -> None:
    """Print the token that scrapers of METRICS_PORT have to show; from the next start of the engine on if it is new."""
    with plain_errors():
        click.echo(_ring(keys).make_metrics_token())


@keys.command("pair")
@click.argument("name")
@click.option("--address", metavar="tcp://HOST:PORT", help="Where the client finds the engine [default: this host].")
@_keys
def keys_pair(name: str, address: str | None, keys: Path | None) -> None:
    """Make a key for the client NAME, let it in, and print the line that `keys accept` takes on its machine."""
    import socket

    with plain_errors():
        address = address or f"tcp://{socket.gethostname()}:{load_settings(None, {}).router_frontend}"
        ring = _ring(keys)
        click.echo(ring.pair(name, address))
        _note(ring, "pair", name)
        click.echo("This line holds the client's secret key: take it there in private, and do not keep it.", err=True)


@keys.command("accept")
@click.argument("line")
@_keys
def keys_accept(line: str, keys: Path | None) -> None:
    """Take in the LINE that `keys pair` printed on the engine's machine."""
    with plain_errors():
        membership = _ring(keys).accept(line)
        click.echo(f"{membership.address} knows this machine as {membership.name}")
