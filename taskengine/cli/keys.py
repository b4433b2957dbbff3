"""The command `taskengine keys`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskengine.cli.common import SAID_NO, json_option, keys_option, leave, load_settings, plain_errors, print_json
from taskengine.cli.engine import find_engine
from taskengine.config.settings import Settings
from taskengine.errors import KeysError, printable

if TYPE_CHECKING:
    from taskengine.security.key_backup import KeyBackup
    from taskengine.security.keys import KeyRing, Membership

PORT = 9003
"""The port at which `keys pair` waits for a client."""

BYTE_ORDER_MARK = "\ufeff"
"""The mark that some editors put in front of a file's text."""
HAS_USERS = hasattr(os, "getuid")
"""Whether the system has users with numbers: Windows, where only clients run, has none."""
UID = os.getuid() if HAS_USERS else 0
"""The user who called us, before we become another."""
_keys = keys_option("the setting KEYS, or yours")


@click.group(no_args_is_help=False)
def keys() -> None:
    """Make keys, and choose which clients the engine lets in.

    \b
    taskengine keys pair laptop                    on the robot: shows a code
    taskengine keys accept tcp://robot.local:9000  on the laptop: asks for the code
    taskengine keys revoke laptop                  on the robot: the laptop was stolen
    taskengine keys export robot.keys              for a new SD card: `keys import robot.keys`
    """


def _ring(folder: Path | None) -> KeyRing:
    """Return the keys in a folder, or in that of the settings.

    Root acts as the folder's owner, so that the files stay the owner's.
    """
    from taskengine.security.keys import KeyRing

    ring = KeyRing(folder or load_settings(None, {}).keys_folder)
    if HAS_USERS:
        # after becoming another user we may not be able to read modules any more
        from taskengine.security.identity import become_owner

        become_owner(ring.folder)
    return ring


def _note(ring: KeyRing, command: str, name: str, **fields: str) -> None:
    """Note a change of the allow-list, and the user who made it, in the audit log."""
    if not HAS_USERS:
        return
    from taskengine.security.audit import AUDIT_FILE, Audit, file_of

    settings = load_settings(None, {})
    target = file_of(settings) if settings.audit else ring.folder / AUDIT_FILE
    Audit(target, lambda line: click.echo(line, err=True)).note(f"keys {command}", client=name, uid=UID, **fields)


def _print(as_json: bool, text: str, key: str) -> None:
    """Print a text, or, as JSON, an object that has it at `key`."""
    if as_json:
        print_json({key: text})
    else:
        click.echo(text)


@keys.command("new")
@click.argument("name")
@click.option("--address", metavar="tcp://HOST:PORT", help="The engine's frontend [default: as of `call`].")
@_keys
@json_option
def keys_new(name: str, address: str | None, keys: Path | None, as_json: bool) -> None:
    """Make a key for this machine, called NAME at an engine; ask for the engine's public key, and print ours."""
    with plain_errors():
        where = find_engine(address, os.environ).address
        engine = _asked("The engine's public key (`taskengine keys show` there)", hidden=False)
        _print(as_json, _ring(keys).join(where, engine, name).own.public, "public")


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
@json_option
def keys_list(keys: Path | None, as_json: bool) -> None:
    """List the clients that this engine lets in, and the engines that this machine has keys for."""
    from taskengine.security.keys import fingerprint

    with plain_errors():
        ring = _ring(keys)
        clients = [
            {"name": name, "fingerprint": fingerprint(public)}
            for public, name in sorted(ring.allowed().items(), key=lambda item: item[1])
        ]
        engines = [
            {"address": known.address, "name": known.name, "fingerprint": fingerprint(known.own.public)}
            for known in ring.memberships()
        ]
        if as_json:
            print_json({"clients": clients, "engines": engines})
            return
        for client in clients:
            click.echo(f"client {client['name']} {client['fingerprint']}")
        for engine in engines:
            click.echo(f"engine {engine['address']} as {engine['name']} {engine['fingerprint']}")


@keys.command("revoke")
@click.argument("name")
@_keys
def keys_revoke(name: str, keys: Path | None) -> None:
    """Remove the client NAME from the allow-list: within a second it is cut off, also on open connections."""
    with plain_errors():
        ring = _ring(keys)
        ring.revoke(name)
        _note(ring, "revoke", name)


@keys.command("forget")
@click.argument("address")
@_keys
def keys_forget(address: str, keys: Path | None) -> None:
    """Remove this machine's key for the engine at ADDRESS."""
    with plain_errors():
        _ring(keys).forget(address)


@keys.command("show")
@_keys
@json_option
def keys_show(keys: Path | None, as_json: bool) -> None:
    """Print the engine's public key and its fingerprint."""
    from taskengine.security.keys import fingerprint

    with plain_errors():
        public = _ring(keys).engine().public
        if as_json:
            print_json({"public": public, "fingerprint": fingerprint(public)})
        else:
            click.echo(f"{public}  {fingerprint(public)}")


@keys.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase, and encrypt the file by it.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@_keys
@json_option
def keys_export(file: Path, passphrase: bool, force: bool, keys: Path | None, as_json: bool) -> None:
    """Write the engine's key and its clients, and this machine's own keys, into FILE, of mode 0600.

    `keys import` on a new SD card makes it the same robot: clients need no new key. Without --passphrase FILE is as
    secret as the keys: whoever reads it can pose as the robot.
    """
    from taskengine.security.key_backup import backup_of, encode_backup
    from taskengine.security.private_files import write_private

    with plain_errors():
        if file.exists() and not force:
            raise KeysError(f"{file} exists already: --force replaces it")
        ring = _ring(keys)
        backup = backup_of(ring)
        secret = _asked("A passphrase for the file", again=True) if passphrase else None
        write_private(file, encode_backup(backup, secret), replace=force, is_secret=not passphrase)
        _note(ring, "export", "", file=str(file))
        _print_backup(backup, file, "written", as_json=as_json)
        if not passphrase:
            click.echo("The file is not encrypted: whoever reads it can pose as this robot.", err=True)


@keys.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace keys that differ from those in the file.")
@_keys
@json_option
def keys_import(file: Path, force: bool, keys: Path | None, as_json: bool) -> None:
    """Take over the keys in FILE, of `keys export`; other keys that are here stay.

    Clients are let in within a second. The engine has its key when it starts next. A client that was revoked after the
    export is let in again: revoke it again.
    """
    from taskengine.security.key_backup import keys_of, read_backup, restore

    with plain_errors():
        found = read_backup(file)
        backup = keys_of(found, None if found.keys is not None else _asked("The passphrase of the file"))
        ring = _ring(keys)
        restore(ring, backup, force=force)
        for client in backup.clients:
            _note(ring, "import", client.name, file=str(file))
        _print_backup(backup, file, "taken over", as_json=as_json)


def _print_backup(backup: KeyBackup, file: Path, what: str, *, as_json: bool) -> None:
    """Print whose keys are in a file; no secret."""
    from taskengine.security.keys import fingerprint

    engine = "" if backup.engine is None else fingerprint(backup.engine.public)
    clients = [client.name for client in backup.clients]
    engines = [known.address for known in backup.engines]
    if as_json:
        print_json({"file": str(file), "engine": engine or None, "clients": clients, "engines": engines})
        return
    whose = [f"the engine {engine}"] if engine else []
    whose += [f"client {name}" for name in clients] + [f"our own for {address}" for address in engines]
    click.echo(printable(f"{what}: {', '.join(whose) or 'the token of the metrics'}"))


@keys.command("metrics")
@_keys
@json_option
def keys_metrics(keys: Path | None, as_json: bool) -> None:
    """Print the token that scrapers of METRICS_PORT have to show; a new token takes effect when the engine starts."""
    with plain_errors():
        _print(as_json, _ring(keys).make_metrics_token(), "token")


_port = click.option("--port", type=click.IntRange(1, 65535), default=PORT, help="The port to wait for a client at.")


@keys.command("pair")
@click.argument("name")
@click.option("--line", is_flag=True, help="Print a line that holds the client's secret key instead of a code.")
@click.option("--address", metavar="tcp://HOST:PORT", help="With --line: where the client finds the engine.")
@click.option("--host", help="The interface at which to wait for a client [default: the setting HOST].")
@_port
@_keys
@json_option
def keys_pair(
    name: str, line: bool, address: str | None, host: str | None, port: int, keys: Path | None, as_json: bool
) -> None:
    """Let the client NAME in: show a code that `keys accept` asks for on its machine, and wait for it.

    Each machine makes its own key, and no secret travels. The code is valid for 10 minutes, once, and for 3 tries. With
    --line, for those who cannot type it, print a line that `keys accept` takes; it holds the client's secret key.
    """
    with plain_errors():
        settings = load_settings(None, {})
        if line:
            where = address or f"tcp://{socket.gethostname()}:{settings.router_frontend}"
            _pair_by_line(name, where, keys, as_json=as_json)
        elif address is not None:
            raise KeysError("the client gives the address to `keys accept`; --address is for --line")
        else:
            _pair_by_code(name, host or settings.host, port, settings, keys, as_json=as_json)


def _pair_by_line(name: str, address: str, keys: Path | None, *, as_json: bool) -> None:
    ring = _ring(keys)
    _print(as_json, ring.pair(name, address), "line")
    _note(ring, "pair", name)
    click.echo("This line holds the client's secret key: take it there in private, and do not keep it.", err=True)


def _pair_by_code(name: str, host: str, port: int, settings: Settings, keys: Path | None, *, as_json: bool) -> None:
    import asyncio

    from taskengine.security.pairing import PairingListener, new_code
    from taskengine.security.pake import Guest

    code = new_code()
    Guest(code, "").hello()  # if the library is missing, this says so before we wait
    ring = _ring(keys)
    ring.check_free(name)

    def allow(public: str) -> None:
        ring.allow(name, public)

    def note(why: str, address: str) -> None:
        _note(ring, "code refused", name, address=address, reason=why)
        click.echo(printable(f"{address}: {why}"), err=True)

    def ready() -> None:
        if settings.on_loopback and host == settings.host:
            click.echo(f"HOST is {host}: only this machine can reach it; --host says otherwise.", err=True)
        where = f"tcp://{socket.gethostname()}:{settings.router_frontend}"
        click.echo(f"There, within 10 minutes: `taskengine keys accept {where}`, and this code:", err=True)
        _print(as_json, code, "code")

    engine = ring.engine().public
    with _said_no():
        asyncio.run(PairingListener(code, engine, name, allow, note).serve(host, port, ready))
    _note(ring, "pair", name)
    click.echo(f"{name} is let in", err=True)


@keys.command("accept")
@click.argument("address", required=False)
@_port
@_keys
@json_option
def keys_accept(address: str | None, port: int, keys: Path | None, as_json: bool) -> None:
    """Pair this machine with the engine at ADDRESS, by the code that `keys pair` shows there, which is asked for.

    Without ADDRESS, take in the long line of `keys pair --line`. Both come from a prompt or from stdin, since every
    user of this machine can read the arguments of a command.
    """
    with plain_errors():
        if address is None:
            membership = _ring(keys).accept(_asked("The line of `taskengine keys pair NAME --line`"))
        elif address.startswith("taskengine-pair:"):
            raise KeysError(
                "this line holds a secret key, and every user of this machine can read the arguments of a command: run "
                "`taskengine keys accept` and paste it; better revoke that key, and pair anew"
            )
        else:
            membership = _accept_by_code(address, port, keys)
        if as_json:
            print_json({"address": membership.address, "name": membership.name})
        else:
            click.echo(f"{membership.address} knows this machine as {membership.name}")


def _accept_by_code(address: str, port: int, keys: Path | None) -> Membership:
    from taskengine.security.keys import Membership, host_of, new_pair
    from taskengine.security.pairing import call
    from taskengine.security.pake import Guest

    host, own = host_of(address), new_pair()
    guest = Guest(_asked(f"The code of `taskengine keys pair NAME` on {host}"), own.public)
    ring = _ring(keys)
    with _said_no():
        engine, name = call(host, port, guest)
    membership = Membership(address, engine, name, own)
    ring.enter(membership)
    return membership


@contextlib.contextmanager
def _said_no() -> Iterator[None]:
    """Exit with code 1 on KeysError: a failed pairing is no wrong usage."""
    try:
        yield
    except KeysError as error:
        leave(str(error), SAID_NO)


def _asked(what: str, *, hidden: bool = True, again: bool = False) -> str:
    """Ask the user for a line, a secret if it is `hidden`, from the terminal or from stdin; there twice if `again`."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=hidden, confirmation_prompt=again, err=True))
    answer = sys.stdin.readline(4096).lstrip(BYTE_ORDER_MARK).strip()
    if not answer:
        raise KeysError(f"nothing came on stdin; expected one line: {what}")
    return answer
