"""The flag `--version`: the versions of the engine, of its compiled modules and of what it stands on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import click

COMPILED = ("_fastpath", "_socket", "_descendants")
LIBRARIES = ("pyzmq", "msgspec", "click", "rich")


def _print(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        for line in lines():
            click.echo(line)
        context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print,
    help="Show the versions of the engine, its compiled modules and its libraries, and exit.",
)


def lines() -> Iterator[str]:
    """Yield a name and a version in each line, the engine's first."""
    import platform  # these two take longer to load than a command takes to start
    from importlib.metadata import version

    yield f"taskengine, version {sys.modules['taskengine'].__version__}"
    yield f"Python {platform.python_version()} on {platform.machine()}"
    for name in COMPILED:
        yield f"{name} {_made_for(name)}"
    yield f"libzmq {_libzmq()}"
    for library in LIBRARIES:
        yield f"{library} {version(library)}"


def _made_for(name: str) -> str:
    """Return which Python and machine a compiled module was made for, or why it cannot be used."""
    try:
        file = importlib.import_module(f"taskengine.{name}").__file__ or ""
    except ImportError as error:
        return f"cannot be loaded: {' '.join(str(error).splitlines())}"
    if file.endswith(".py"):
        return "in Python: this is the client without the engine"
    return file.rpartition("/")[2].removeprefix(f"{name}.").removesuffix(".so")


def _libzmq() -> str:
    """Return the version of libzmq, or why there is none."""
    try:
        from taskengine.security.credentials import libzmq_version
    except ImportError as error:
        return f"cannot be loaded: {' '.join(str(error).splitlines())}"
    return ".".join(map(str, libzmq_version()))
