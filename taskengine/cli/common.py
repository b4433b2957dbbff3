"""Flags, errors and exit codes that all commands share.

Exit code 0: done; 1: the task or the engine refused or failed; 2: wrong usage or configuration.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from taskengine.config.descriptions import rows
from taskengine.config.loading import CONFIG_FILE, load
from taskengine.config.settings import Settings
from taskengine.errors import EngineUnreachable, KeysError, SettingsError, TaskEngineError, TaskModuleError, printable
from taskengine.security.trusted_files import refuse_changeable, trusted_users, use_current_folder

SAID_NO = 1
WRONG_USAGE = 2
INTERRUPTED = 130
MADE_ELSEWHERE = (
    f"this is Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.machine()}; was it made for another? "
    "`taskengine --version` shows what the compiled modules were made for"
)
UNIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios"}
"""Modules of Python that the engine's commands need, and Windows has not."""
ENGINE_ONLY = {"broker", "doctor", "router", "supervisor", "worker"}
"""Packages of Task Engine that the client's wheel leaves out."""


class Command(click.Group):
    """A group whose default command is `serve`: it runs without a subcommand, or with flags only."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if context.resilient_parsing and not args:  # the shell completes the name of a command
            return super().parse_args(context, args)
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(context, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run and exit; report wrong usage in one line."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "taskengine"
            leave(f"{error.format_message().rstrip('.')}; `{command} --help` says how", WRONG_USAGE)
        except ImportError as error:
            if _is_engines(error):
                leave("this command is the engine's, and here is only the client: the engine runs on Linux", SAID_NO)
            if not (error.name or "").startswith("taskengine"):
                raise
            leave(str(error) if "compiled for" in str(error) else f"{error}; {MADE_ELSEWHERE}", WRONG_USAGE)
        except click.Abort:
            code = INTERRUPTED
        except BrokenPipeError:
            _forget_output()
            code = SAID_NO
        except OSError as error:
            _forget_output()
            what = error.filename or "the output cannot be written"
            leave(f"{what}: {error.strerror or error}", SAID_NO)
        sys.exit(code)


@contextlib.contextmanager
def plain_errors(source: str = "") -> Iterator[None]:
    """Print errors as one line on stderr, and exit with their code; `source` says where the address comes from."""
    try:
        yield
    except (KeysError, SettingsError, TaskModuleError) as error:
        leave(str(error), WRONG_USAGE)
    except EngineUnreachable as error:
        told = "; ".join(filter(None, [str(error), source]))
        leave(f"{told}; is one running? `taskengine serve` starts one", SAID_NO)
    except TaskEngineError as error:
        leave(f"{type(error).__name__}: {error}" if error.code else str(error), SAID_NO)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _is_engines(error: ImportError) -> bool:
    """Return whether a module was not found that only the engine needs."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return False
    package, *inner = error.name.split(".")
    return error.name in UNIX_ONLY or (package == "taskengine" and not ENGINE_ONLY.isdisjoint(inner[:1]))


def _forget_output() -> None:
    """Discard output that is still to be written: Python would try again at exit, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def leave(message: str, code: int) -> NoReturn:
    """Print the reason on stderr, in one line, and exit."""
    click.echo(f"taskengine: {printable(' '.join(message.splitlines()))}", err=True)
    sys.exit(code)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    from taskengine.cli.json_output import json_text

    click.echo(printable(json_text(value)))


def settings_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for every setting, and `--config`."""
    for row in reversed(rows()):
        name, flag = row.name.lower(), "--" + row.name.lower().replace("_", "-")
        text = f"{row.explanation} [{row.type}; default {row.default}]"
        bare = {"is_flag": False, "flag_value": "true"} if row.default in ("true", "false") else {}
        function = click.option(flag, name, metavar="VALUE", help=text, **bare)(function)  # type: ignore[arg-type]
    path = click.Path(path_type=Path)
    return click.option("--config", type=path, help="The TOML file of settings [default ./taskengine.toml].")(function)


def load_settings(config: Path | None, flags: dict[str, object]) -> Settings:
    """Load the settings; task modules may lie in the current folder. Root reads no files that others can change."""
    use_current_folder(config)
    file = Path(CONFIG_FILE) if config is None else config
    if os.path.exists(file):
        refuse_changeable("the settings", [file], trusted_users())
    return load(config, os.environ, flags)


def keys_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that names the folder of the keys; its default is described as `default`."""
    return click.option("--keys", type=click.Path(path_type=Path), help=f"The folder of the keys [default: {default}].")
