"""The commands `taskengine record`, `log` and `replay`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskengine.cli.common import SAID_NO, WRONG_USAGE, json_option, leave, plain_errors, print_json
from taskengine.cli.engine import PROBE_S, Where, connected, engine_options
from taskengine.errors import printable

if TYPE_CHECKING:
    from taskengine.client.blocking import Client

EXTRA = "mcap"
INSTALL = "recordings need mcap: `pip install 'taskengine-robot[record]'`"
MIB = 2**20
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
_PATH = click.Path(path_type=Path, exists=True)
FILES: Decorator = click.argument("files", nargs=-1, required=True, metavar="FILE…", type=_PATH)


@contextlib.contextmanager
def _recordings() -> Iterator[None]:
    """Say what to install where the library is missing, and errors of files in one line."""
    try:
        with plain_errors():
            yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in (EXTRA, "zstandard", "lz4"):
            raise
        leave(INSTALL, WRONG_USAGE)


def _size(name: str, default: int, text: str) -> Decorator:
    return click.option(
        name, type=click.IntRange(min=0), default=default, show_default=True, metavar="MIB", help=f"{text}, in MiB."
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--topics", multiple=True, metavar="TOPIC", help="Record this topic, such as 'arm.*' [default: all].")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so many seconds [default: at ctrl-c]."
)
@_size("--file-size", 64, "Begin another file at this size")
@click.option(
    "--file-age", type=click.FloatRange(min=1), default=600.0, show_default=True, help="Or at this age, in s."
)
@_size("--keep", 1024, "Remove the oldest files where all would be larger")
@_size("--keep-free", 64, "End where less of the disk is free")
@json_option
@engine_options
def record(
    folder: Path,
    topics: tuple[str, ...],
    seconds: float | None,
    file_size: int,
    file_age: float,
    keep: int,
    keep_free: int,
    as_json: bool,
    where: Where,
) -> None:
    """Record what is published, called and happens, into MCAP files in FOLDER, until ctrl-c or SIGTERM.

    Calls are recorded where the engine has RECORD_COMMANDS. Every second what was recorded is on the disk. Files of an
    earlier recording that was cut off are mended first. Foxglove opens the files as they are.
    """
    with _recordings(), connected(where, PROBE_S) as client:
        from taskengine.recording.writing import Bounds

        bounds = Bounds(file_size * MIB, file_age, keep * MIB, keep_free * MIB)
        messages, last = _record(client, folder, topics, bounds, seconds)
    if as_json:
        print_json({"messages": messages, "file": last})
    else:
        click.echo(printable(f"recorded {messages} messages; the last file is {last}"))


def _record(client: Client, folder: Path, topics: Sequence[str], bounds: Any, seconds: float | None) -> tuple[int, str]:
    """Record until a signal comes; return how many messages were written, and the last file."""
    from taskengine.recording.mending import mend_all
    from taskengine.recording.recorder import Recorder, about
    from taskengine.recording.writing import RecordingFiles

    for path, cut, messages in mend_all(folder) if folder.is_dir() else []:
        text = f"taskengine: mended {path}: it has {messages} messages, and {cut} bytes of its end were not whole"
        click.echo(printable(text), err=True)
    wanted = topics or ("*",)
    files = RecordingFiles(folder, bounds, about(client.info(), client.address, ",".join(wanted)))
    recorder = Recorder(client, wanted, files)
    signals = [signal.SIGINT, signal.SIGTERM, *([signal.SIGALRM] if seconds else [])]
    for number in signals:
        signal.signal(number, lambda *_: recorder.stop())
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    click.echo(f"recording into {folder}", err=True)
    recorder.run()
    return files.messages, str(files.path)


@click.command("log")
@FILES
@json_option
def show_log(files: tuple[Path, ...], as_json: bool) -> None:
    """Print the commands and events in recordings: FILE… are MCAP files, or folders of them, also such as were cut off.

    With --json each is a line of JSON; times in it are ns of the engine's clock, but `at`, in s since 1970.
    """
    with _recordings():
        from taskengine.recording.reading import messages
        from taskengine.recording.replaying import told

        found = told(messages(files))
        if as_json:
            for each in found:
                print_json(each)
            return
        for each in found:
            click.echo(printable(_line(each)))


def _line(told: dict[str, Any]) -> str:
    """Return a command or an event as a line of a table."""
    when = datetime.fromtimestamp(told["at"], UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    if told["kind"] == "event":
        return f"{when}  {'':18}  {told['event']}: {told['text'] or ''}".rstrip(": ")
    who = told["client"] or ("this machine" if told["is_local"] else "a client")
    args = [_short(arg) for arg in told["args"] or ()]
    args += [f"{name}={_short(value)}" for name, value in (told["kwargs"] or {}).items()]
    if told["left_out"]:
        args.append(f"… ({', '.join(told['left_out'])} left out)")
    gave = _short(told["result"])
    if told.get("error"):
        gave = f"{told['error']['type']}: {told['error']['message']}"
    return f"{when}  {who[:18]:18}  {told['task']}({', '.join(args)}) → {gave}  [{_times(told)}]"


def _times(told: dict[str, Any]) -> str:
    """Return how long a call waited, and how long it ran."""
    ran = (told["ended"] - told["began"]) / 1e6
    since = told["sent"] or told["received"]
    waited = f"waited {max(0, told['began'] - since) / 1e6:.1f} ms, " if since else ""
    return f"{waited}ran {ran:.1f} ms"


def _short(value: Any) -> str:
    from taskengine.cli.json_output import json_text

    text = json_text(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _begin(context: click.Context, option: click.Parameter, text: str) -> Any:
    from taskengine.recording.timeline import begin_of

    try:
        return begin_of(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither seconds nor a time as in ISO 8601", context, option) from None


@click.command()
@FILES
@click.option("--topics", multiple=True, metavar="TOPIC", help="Publish this topic, such as 'arm.*' [default: all].")
@click.option("--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, help="How many times as fast.")
@click.option(
    "--from", "begin", default="0", callback=_begin, help="Where: s after the beginning, or a time (ISO 8601)."
)
@click.option("--prefix", default="", metavar="TEXT", help="Put this before each topic, such as 'replay.'.")
@click.option("--commands", is_flag=True, help="Call the devices' tasks again instead: things move.")
@json_option
@engine_options
def replay(
    files: tuple[Path, ...],
    topics: tuple[str, ...],
    speed: float,
    begin: Any,
    prefix: str,
    commands: bool,
    as_json: bool,
    where: Where,
) -> None:
    """Publish again what was recorded, at its times: FILE… are MCAP files, or folders of them.

    With --commands the tasks of devices are called again instead, under leases of their own and the engine's present
    limits and policy. A stop ends the replay, and at its end the devices go to their safe states.
    """
    if commands and (topics or prefix):
        raise click.UsageError("--commands plays calls, and not topics")
    with _recordings(), connected(where, PROBE_S) as client:
        from taskengine.recording.reading import messages
        from taskengine.recording.replaying import ReplayPace, command_again, publish_again

        pace = ReplayPace(begin, speed)
        try:
            if commands:
                played = command_again(client, messages(files), pace)
            else:
                played = publish_again(client, messages(files), topics, pace, prefix)
        except KeyboardInterrupt:
            leave("the replay was interrupted", SAID_NO)
        for name, why in ({} if as_json else played.refused).items():
            click.echo(printable(f"taskengine: left out {name}: {why}"), err=True)
        if as_json:
            print_json({"replayed": played.played, "left_out": played.refused})
        else:
            click.echo(f"replayed {played.played} {'commands' if commands else 'publications'}")
        if not played.played:
            sys.exit(SAID_NO)
