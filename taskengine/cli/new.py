"""The command `taskengine new`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from string import Template

import click

from taskengine.cli.common import WRONG_USAGE, json_option, leave, print_json
from taskengine.errors import printable

TEMPLATES = Path(__file__).parents[1] / "templates"
ROBOTS = {
    "arm": {"servo": "base", "call": "arm.pose left"},
    "rover": {"servo": "head", "call": "rover.steer 0.5"},
    "sensors": {"servo": "mast", "call": "sensors.read"},
}
"""The kinds of robots, and what their README calls."""
SUFFIX = ".txt"
"""The end of a template's name that its file does not have, so that no tool takes it for code of ours."""


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
@click.option("--robot", type=click.Choice(list(ROBOTS)), default="arm", help="What it is [default: arm].")
@json_option
def new(name: Path, robot: str, as_json: bool) -> None:
    """Make the folder NAME, which works at once: settings with simulated pins, tasks, tests of them, and a README."""
    title = name.absolute().name
    if not re.fullmatch(r"[\w.-]+(?: [\w.-]+)*", title):
        leave(f"a name of letters, digits, dots, dashes and spaces is expected, not {title!r}", WRONG_USAGE)
    if name.is_dir() and os.listdir(name):
        leave(f"{name} is there already, and not empty: choose another name", WRONG_USAGE)
    if name.exists() and not name.is_dir():
        leave(f"{name} is there already, and no folder: choose another name", WRONG_USAGE)
    name.mkdir(parents=True, exist_ok=True)
    made = files(title, robot)
    for file, text in made.items():
        (name / file).write_text(text, "utf-8")
    if as_json:
        print_json({"folder": str(name), "files": sorted(made)})
        return
    click.echo(printable(f"{name}: {', '.join(sorted(made))}"))
    click.echo(printable(f"Next: cd {name}; taskengine serve"))


def files(title: str, robot: str) -> dict[str, str]:
    """Return the files of a new folder by their names."""
    paths = [path for folder in (TEMPLATES, TEMPLATES / robot) for path in folder.iterdir() if path.is_file()]
    values = {"name": title, **ROBOTS[robot]}
    return {path.name.removesuffix(SUFFIX): Template(path.read_text("utf-8")).substitute(values) for path in paths}
