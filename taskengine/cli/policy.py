"""The command `taskengine policy`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from taskengine.cli.common import SAID_NO, json_option, load_settings, plain_errors, print_json
from taskengine.config.settings import Settings
from taskengine.errors import KeysError, printable


@click.group(no_args_is_help=False)
def policy() -> None:
    """Ask which rights the settings' table [policy] gives.

    \b
    taskengine policy can laptop do servo.set pan
    """


@policy.command("can")
@click.argument("client")
@click.argument("do", type=click.Choice(["do"]))
@click.argument("task")
@click.argument("device", required=False)
@click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file of settings [default ./taskengine.toml]."
)
@json_option
def policy_can(client: str, do: str, task: str, device: str | None, config: Path | None, as_json: bool) -> None:
    """Say whether CLIENT, by the name of its key, may call TASK, for DEVICE, and which entry decides that.

    The exit code is 0 for yes and 1 for no.
    """
    with plain_errors():
        settings = load_settings(config, {})
        for doubt in _doubts(settings, client, device):
            click.echo(f"taskengine: warning: {printable(doubt)}", err=True)
        is_allowed, why = _answer(settings, client, task, device)
        if as_json:
            print_json({"allowed": is_allowed, "why": why})
        else:
            click.echo(printable(f"{'yes' if is_allowed else 'no'}: {why}"))
        sys.exit(0 if is_allowed else SAID_NO)


def _answer(settings: Settings, client: str, task: str, device: str | None) -> tuple[bool, str]:
    """Return whether the client may do it, and why."""
    lane = _lane_of(settings, task)
    if lane is None:
        return False, f"no task is named {task}"
    if settings.policy is None:
        return True, f"there is no policy, and {client} may do everything"
    from taskengine.config.policy import Policy

    answer = Policy(settings.policy).explain(client, task, lane, device)
    return answer.is_allowed, f"{client} {'; '.join(answer.why)}"


def _lane_of(settings: Settings, task: str) -> str | None:
    """Return the lane of a registered task."""
    from taskengine.security.identity import find_identity
    from taskengine.supervisor.catalogue import load_catalogue
    from taskengine.supervisor.inspection import refuse_tasks

    identity = find_identity(settings.user, settings.group)
    refuse_tasks(settings, identity)
    catalogue = load_catalogue(settings.tasks, identity=identity, machine=settings.machine())
    return next((known.lane for known in catalogue.tasks if known.name == task), None)


def _doubts(settings: Settings, client: str, device: str | None) -> list[str]:
    """Return a line for each thing in the question that does not exist."""
    from taskengine.security.keys import KeyRing

    doubts = []
    if settings.is_curved:
        try:
            if client not in KeyRing(settings.keys_folder).allowed().values():
                doubts.append(f"no client {client} has a key; `taskengine keys list` shows those that have")
        except KeysError as error:
            doubts.append(f"whether {client} has a key cannot be read: {error}")
    known = settings.hardware.get("devices", {})
    if device is not None and device not in known and device.partition(".")[0] not in known:  # a light of a group
        doubts.append(f"the table [hardware] has no device {device}")
    return doubts
