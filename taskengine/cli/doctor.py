"""The command `taskengine doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskengine.cli.common import SAID_NO, json_option, load_settings, print_json
from taskengine.errors import KeysError, SettingsError, printable

if TYPE_CHECKING:
    from taskengine.doctor.observation import EngineAnswer, Observation

ANSWER_S = 1.0
"""How long to wait for the engine, in s."""
COLOURS = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


@click.command()
@json_option
@click.option(
    "--config", type=click.Path(path_type=Path), help="The TOML file of settings [default ./taskengine.toml]."
)
def doctor(as_json: bool, config: Path | None) -> None:
    """Look at this machine, its pins and the engine of this folder: what is ok, what is wrong, and what to type.

    Changes nothing, and needs no engine. The exit code is 1 if something is wrong, and 0 otherwise.
    """
    from taskengine.doctor.case import case_of
    from taskengine.doctor.examination import examine
    from taskengine.doctor.this_machine import ThisMachine

    case = case_of(lambda: load_settings(config, {}), config, lambda: _answer(config))
    observations = examine(case, ThisMachine())
    if as_json:
        import msgspec

        print_json([msgspec.structs.asdict(observation) for observation in observations])
    else:
        _show(observations)
    sys.exit(SAID_NO if any(observation.state == "wrong" for observation in observations) else 0)


def _answer(config: Path | None) -> EngineAnswer:
    """Ask the engine that the other commands would find, or that of the file `config`."""
    from taskengine.cli.engine import find_engine
    from taskengine.doctor.case import ask
    from taskengine.doctor.observation import EngineAnswer

    try:
        where = find_engine(None, os.environ, config)
    except (KeysError, SettingsError):
        return EngineAnswer("", why="the settings do not say where it is")
    return ask(where.address, where.keys, ANSWER_S)


def _show(observations: list[Observation]) -> None:
    """Print a row for each observation: its line to type is below it, so that it can be copied in one piece."""
    from rich.text import Text

    from taskengine.cli.top import console

    output, width = console(), max(len(observation.check) for observation in observations)
    for observation in observations:
        state = Text(f"{observation.state:<8} ", COLOURS[observation.state])
        output.print(state + Text(printable(f"{observation.check:<{width}}  {observation.found}"), ""))
        if observation.line:
            output.print(Text(printable(f"{'':<9}{'':<{width}}  $ {observation.line}"), "bold"), soft_wrap=True)
    number = {state: sum(observation.state == state for observation in observations) for state in COLOURS}
    output.print(Text(f"{number['ok']} ok, {number['warning']} warnings, {number['wrong']} wrong"))
