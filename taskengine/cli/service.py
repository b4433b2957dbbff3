"""The command `taskengine service`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskengine.cli.common import SAID_NO, WRONG_USAGE, json_option, leave, plain_errors, print_json
from taskengine.config.loading import CONFIG_FILE, load
from taskengine.errors import SettingsError, printable

if TYPE_CHECKING:
    from taskengine.supervisor.unit_file import Installation

NAME = "taskengine"
PACKAGED = Path(__file__).parents[1] / "taskengine.service"
UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")
"""It exists where systemd runs, see sd_booted(3)."""
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN = ("LoadState", "ActiveState", "SubState", "UnitFileState", "NRestarts", "Result", "ActiveEnterTimestamp")
RUNNING = ("active", "activating", "reloading")
LOG = f"journalctl -u {NAME} -f"
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group(no_args_is_help=False)
def service() -> None:
    """Start the engine with the machine, by systemd.

    \b
    taskengine service install     in the folder of the settings
    taskengine service status
    taskengine service remove
    """


@service.command("install")
@_yes
@click.option("--user", help="Whom the tasks run as [default: you, also with sudo].")
@click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file of settings [default ./taskengine.toml]."
)
def service_install(yes: bool, user: str | None, config: Path | None) -> None:
    """Write a unit for this user, Python and settings file, start the service, and start it with the machine.

    Where the service is installed already, this updates it. `taskengine check` is run first, as that user: if it fails,
    nothing is changed, and what runs goes on running. If the service does not start, the unit before is put back.
    """
    with plain_errors():
        from taskengine.supervisor.unit_file import is_ours, unit_text

        unit = UNITS / f"{NAME}.service"
        before = unit.read_text("utf-8", "replace") if unit.exists() else None
        if before is not None and not is_ours(before):
            raise SettingsError(f"{unit} is there already, and not from this command: move it away first")
        installation = _installation(user, config)
        text = unit_text(PACKAGED.read_text("utf-8"), installation)
        _check_systemd()
        _try_out(installation)
        steps: list[tuple[Sequence[str], str | None]] = [
            (("install", "-m", "644", "/dev/stdin", str(unit)), text),
            (("systemctl", "daemon-reload"), None),
            (("systemctl", "enable", NAME), None),
            (("systemctl", "restart", NAME), None),
        ]
        _confirm(steps, yes=yes, what=f"This writes {unit}:\n\n{text}\nand runs:")
        runs = before is not None and _shown().get("ActiveState") in RUNNING
        if failed := _first_failure(steps):
            leave(f"{_failure(failed)}{_put_back(unit, before, runs=runs)}", SAID_NO)
    click.echo(f"The service runs. Its log: {LOG}")


@service.command("remove")
@_yes
def service_remove(yes: bool) -> None:
    """Stop the service, and remove all that `install` wrote, and what `systemctl edit` added. The log is kept."""
    with plain_errors():
        from taskengine.supervisor.unit_file import is_ours

        unit, added = UNITS / f"{NAME}.service", UNITS / f"{NAME}.service.d"
        if not unit.exists():
            raise SettingsError(f"there is no {unit}: nothing is installed")
        if not is_ours(unit.read_text("utf-8", "replace")):
            raise SettingsError(f"{unit} is not from `taskengine service install`: remove it yourself")
        _check_systemd()
        files = [str(unit), *([str(added)] if added.exists() else [])]
        steps: list[tuple[Sequence[str], str | None]] = [
            (("systemctl", "disable", "--now", NAME), None),
            (("rm", "-r", *files), None),
            (("systemctl", "daemon-reload"), None),
        ]
        _confirm(steps, yes=yes, what="This runs:")
        _run(steps)
        # systemd remembers a unit that has failed, also when its file is gone; one that has not is no error
        _call(_as_root(("systemctl", "reset-failed", NAME)), None, quiet=True)
    click.echo("The service is removed")


@service.command("status")
@json_option
def service_status(as_json: bool) -> None:
    """Show whether the service is installed, runs, and starts with the machine. The exit code is 0 if it runs."""
    with plain_errors():
        _check_systemd()
        from taskengine.supervisor.unit_file import is_ours

        shown = _shown()
        if "LoadState" not in shown:
            leave("systemd does not answer `systemctl show`", SAID_NO)
        unit = UNITS / f"{NAME}.service"
        ours = unit.exists() and is_ours(unit.read_text("utf-8", "replace"))
        is_active = shown.get("ActiveState") == "active"
        if as_json:
            print_json({**shown, "ours": ours})
        elif shown.get("LoadState") != "loaded":
            click.echo("not installed: `taskengine service install`")
        else:
            starts = "starts" if shown.get("UnitFileState") == "enabled" else "does not start"
            since = shown.get("ActiveEnterTimestamp", "")
            click.echo(f"{shown.get('ActiveState')} ({shown.get('SubState')}){f' since {since}' if since else ''}")
            click.echo(f"{starts} with the machine; {shown.get('NRestarts', '0')} restarts by systemd")
            click.echo(f"unit: {unit}{'' if ours else ' (not from `taskengine service install`)'}; log: {LOG}")
        sys.exit(0 if is_active else SAID_NO)


def _installation(user: str | None, config: Path | None) -> Installation:
    """Return what the unit is for. Raises SettingsError if it would not serve."""
    import pwd  # which Windows has not, where this module is imported too

    from taskengine.security.keys import KeyRing
    from taskengine.supervisor.unit_file import Installation

    name = user or os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    if name == "root":
        raise SettingsError("tasks would run as root: name another user, `--user pi`")
    file = (Path(CONFIG_FILE) if config is None else config).absolute()
    if not file.is_file():
        raise SettingsError(f"{file}: there is no such file; `taskengine new NAME` makes a folder with one")
    # the service has none of our variables; and root may read a file that only this user's tasks go by
    settings = load(config, {}, {})
    home = _home(name)
    keys = settings.keys_folder.absolute() if settings.keys_folder else home / ".config/taskengine/keys"
    if settings.is_curved and not KeyRing(keys).allowed():
        raise SettingsError(
            f"the engine encrypts, and no client has a key in {keys}: `taskengine keys pair NAME` first"
        )
    writable = [str(file.parent), *([str(keys)] if keys.is_dir() else [])]
    return Installation(name, sys.executable, str(file.parent), file.name, tuple(writable))


def _home(user: str) -> Path:
    import pwd

    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        raise SettingsError(f"user: expected a user of this machine, there is no {user!r}") from None


def _check_systemd() -> None:
    if not BOOTED.exists() or shutil.which("systemctl", path=SYSTEM_FOLDERS) is None:
        leave("systemd does not run here, so it cannot start a service: run `taskengine serve` by other means", SAID_NO)


def _shown() -> dict[str, str]:
    told = _call(("systemctl", "show", NAME, f"--property={','.join(SHOWN)}"), None, quiet=True).stdout
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def _confirm(steps: Sequence[tuple[Sequence[str], str | None]], *, yes: bool, what: str) -> None:
    """Show what is going to be changed, and ask for consent, unless it was given with --yes."""
    if yes:
        return
    click.echo(printable(what))
    for command, _ in steps:
        click.echo(printable(f"  {shlex.join(_as_root(command))}"))
    if not sys.stdin.isatty():
        leave("nobody can be asked: `--yes` says that this may be done", WRONG_USAGE)
    if not click.confirm("Do it?"):
        leave("nothing was changed", SAID_NO)


def _as_root(command: Sequence[str]) -> list[str]:
    return [*command] if os.geteuid() == 0 else ["sudo", *command]


def _try_out(installation: Installation) -> None:
    """Run `taskengine check` with the Python, user and settings of the service; leave if it fails, also by a crash."""
    import pwd

    account = pwd.getpwnam(installation.user)
    command = [installation.python, "-m", "taskengine", "check", "--config", installation.file]
    become: dict[str, Any] = {}
    if os.geteuid() == 0:
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        become = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    elif os.geteuid() != account.pw_uid:
        command = [_program("sudo"), "-u", account.pw_name, "--", *command]
    try:
        # our own interpreter and module; no shell reads the arguments
        done = subprocess.run(  # noqa: S603
            command,
            cwd=installation.folder,
            env={"PATH": SYSTEM_FOLDERS, "HOME": account.pw_dir, "USER": account.pw_name, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
            **become,
        )
        code, told = done.returncode, [line for line in done.stderr.splitlines() if line.strip()]
    except OSError as error:
        code, told = SAID_NO, [f"{error.filename or command[0]}: {error.strerror}"]
    if code:
        why = told[-1].removeprefix("taskengine: ") if told else f"`taskengine check` ended with {code}"
        leave(f"as {installation.user} the service would not start, and nothing was changed: {why}", SAID_NO)


def _put_back(unit: Path, before: str | None, *, runs: bool) -> str:
    """Put the unit of `before` back, and start it again if it has run; return what is to be said about it."""
    if before is None:
        return ""
    steps: list[tuple[Sequence[str], str | None]] = [
        (("install", "-m", "644", "/dev/stdin", str(unit)), before),
        (("systemctl", "daemon-reload"), None),
        *([(("systemctl", "restart", NAME), None)] if runs else []),
    ]
    if failed := _first_failure(steps):
        return f". The unit before could not be put back: `{shlex.join(failed)}` failed too"
    return f". The unit before is back{', and runs again' if runs else ''}"


def _run(steps: Sequence[tuple[Sequence[str], str | None]]) -> None:
    """Run the steps; the first that fails ends the command."""
    if failed := _first_failure(steps):
        leave(_failure(failed), SAID_NO)


def _first_failure(steps: Sequence[tuple[Sequence[str], str | None]]) -> Sequence[str]:
    """Run the steps, and return the first that fails, empty if none does; those after it are not run."""
    return next((command for command, given in steps if _call(_as_root(command), given).returncode), ())


def _failure(command: Sequence[str]) -> str:
    about = f"; its log: journalctl -u {NAME} -n 50" if "restart" in command else ""
    return f"`{shlex.join(command)}` failed{about}"


def _call(command: Sequence[str], given: str | None, *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    program = _program(command[0])
    # a program of the system, by its whole path; no shell reads the arguments
    return subprocess.run(  # noqa: S603
        [program, *command[1:]],
        input=given,
        stdin=None if given is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        check=False,
    )


def _program(name: str) -> str:
    program = shutil.which(name, path=SYSTEM_FOLDERS)
    if program is None:
        leave(f"there is no {name} on this machine", SAID_NO)
    return program
