"""The `taskengine` command. Exit codes: 0 done, 1 the task or the engine said no, 2 wrong usage or configuration."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from taskengine.configuration import load
from taskengine.errors import EngineUnreachable, KeysError, SettingsError, TaskEngineError, TaskModuleError
from taskengine.settings import Settings, rows
from taskengine.wire import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from taskengine.client import Client
    from taskengine.identity import Identity
    from taskengine.keys import KeyRing

SAID_NO = 1
WRONG_USAGE = 2
INTERRUPTED = 130
PROBE_S = 3.0
SHOW_PROGRESS_AFTER_S = 1.0
UID = os.getuid()
"""Who called us, before we become another."""
UNIT = Path(__file__).with_name("taskengine.service")
UNDER_SYSTEMD = f"""\b
Under systemd the engine is a service of Type=notify with a watchdog. This unit file says how to
install it:
{UNIT}"""


class _Command(click.Group):
    """Without a subcommand, or with flags only, `serve` is meant."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(context, args)

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run, and leave; wrong usage is one line."""
        try:
            code = super().main(*args, **extra | {"standalone_mode": False})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "taskengine"
            _leave(f"{error.format_message().rstrip('.')}; `{command} --help` says how", WRONG_USAGE)
        except click.Abort:
            code = INTERRUPTED
        sys.exit(code)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Errors as one line on stderr, and the exit code that goes with them."""
    try:
        yield
    except (KeysError, SettingsError, TaskModuleError) as error:
        _leave(str(error), WRONG_USAGE)
    except EngineUnreachable as error:
        _leave(f"{error}; is one running? `taskengine serve` starts one", SAID_NO)
    except TaskEngineError as error:
        _leave(f"{type(error).__name__}: {error}" if error.code else str(error), SAID_NO)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(SAID_NO)


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"taskengine: {' '.join(message.splitlines())}", err=True)
    sys.exit(code)


def _settings_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every setting, and `--config`."""
    for row in reversed(rows()):
        name, flag = row.name.lower(), "--" + row.name.lower().replace("_", "-")
        text = f"{row.explanation} [{row.type}; default {row.default}]"
        bare = {"is_flag": False, "flag_value": "true"} if row.default in ("true", "false") else {}
        function = click.option(flag, name, metavar="VALUE", help=text, **bare)(function)  # type: ignore[arg-type]
    path = click.Path(path_type=Path)
    return click.option("--config", type=path, help="The TOML file of settings [default ./taskengine.toml].")(function)


def _admit(settings: Settings) -> tuple[Identity | None, int]:
    """Whom the engine's processes become, and how many keys are let in.

    Raises SettingsError, KeysError where it may not be started so.
    """
    from taskengine.identity import borrowed, check_keys, find_identity
    from taskengine.keys import KeyRing

    identity = find_identity(settings.user, settings.group)
    clients = 0
    if settings.is_curved:
        ring = KeyRing(settings.keys_folder)
        if identity is not None:
            check_keys(ring.folder.absolute(), identity)
        with borrowed(identity):
            clients = len(ring.allowed())
    settings.check_exposure(clients)
    return identity, clients


def _load(config: Path | None, flags: dict[str, object]) -> Settings:
    """The settings; task modules may lie in the current folder, as with `python -m`."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return load(config, os.environ, flags)


def _keys_option(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--keys", type=click.Path(path_type=Path), help=f"The folder of the keys [default: {default}].")


_keys = _keys_option("the setting KEYS, or yours")


def _engine(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that talks to an engine."""
    text = f"The engine's frontend [default: {DEFAULT_ADDRESS}]."
    option = click.option("--address", default=DEFAULT_ADDRESS, metavar="tcp://HOST:PORT", help=text)
    return option(_keys_option("yours")(function))


@contextlib.contextmanager
def _connected(address: str, keys: Path | None, timeout: float | None) -> Iterator[Client]:
    """A client of the engine at `address`, which has answered."""
    from taskengine.client import Client

    try:
        client = Client(address, name="taskengine", timeout=timeout, keys=keys)
    except TaskEngineError as error:
        _leave(str(error), WRONG_USAGE)
    with _errors(), client:
        client.options(timeout=PROBE_S).info()
        yield client


@click.group(cls=_Command, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.version_option(package_name="taskengine", prog_name="taskengine")
def cli() -> None:
    """Serve a robot's functions, pins and servos, and call them. Without a command: serve.

    \b
    taskengine serve --tasks robot.py --chunking-size 50
    taskengine call task_count 2 3
    taskengine subscribe cpu.load
    taskengine top
    """


@cli.command(epilog=UNDER_SYSTEMD)
@_settings_flags
def serve(config: Path | None, **flags: object) -> None:
    """Serve in the foreground until ctrl-c or SIGTERM."""
    with _errors():
        settings = _load(config, flags)
        identity, _ = _admit(settings)
        from taskengine import supervisor

        sys.exit(supervisor.serve(settings, identity))


@cli.command()
@_settings_flags
def check(config: Path | None, **flags: object) -> None:
    """Check the settings and the task modules, and warn of what weakens them; start nothing."""
    with _errors():
        settings = _load(config, flags)
        identity, clients = _admit(settings)
        from taskengine.catalogue import load_catalogue
        from taskengine.inspection import inspect
        from taskengine.weaknesses import weaknesses

        catalogue = load_catalogue(settings.tasks, identity=identity, machine=settings.machine())
        for failure in catalogue.failures:
            click.echo(f"taskengine: {failure}", err=True)
        for task in catalogue.tasks:
            click.echo(f"task {task.name}{task.signature}{f' in lane {task.lane}' if task.lane else ''}")
        for topic in catalogue.topics:
            click.echo(f"source {topic}")
        for weakness in weaknesses(inspect(settings, config, identity, clients)):
            click.echo(f"taskengine: warning: {weakness}", err=True)
        sys.exit(WRONG_USAGE if catalogue.failures else 0)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _keyword(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
    keywords = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (equals and name):
            raise click.BadParameter(f"{pair!r} is not key=value", context, option)
        keywords[name] = _json_or_text(value)
    return keywords


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("-k", "keywords", multiple=True, callback=_keyword, metavar="KEY=VALUE", help="A keyword argument.")
@click.option("--count", type=click.IntRange(min=0), help="Repeat the call as one package; print a list.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, help="Seconds to wait.")
@_engine
def call(
    name: str,
    args: tuple[str, ...],
    keywords: dict[str, Any],
    count: int | None,
    timeout: float,
    address: str,
    keys: Path | None,
) -> None:
    """Call a task. Arguments are JSON where they parse as JSON, text otherwise; the result is printed as JSON."""
    values = [_json_or_text(text) for text in args]
    with _connected(address, keys, timeout) as client:
        if count is None:
            _print_json(client.call(name, *values, **keywords))
            return
        results = _repeat(client, (name, values, keywords), count)
        failed = [result for result in results if isinstance(result, TaskEngineError)]
        if failed:
            raise TaskEngineError(
                f"{len(failed)} of {count} failed, the first with {type(failed[0]).__name__}: {failed[0]}"
            )
        _print_json(results)


def _repeat(client: Client, call: tuple[str, list[Any], dict[str, Any]], count: int) -> list[Any]:
    """Run the calls as one package, with a progress bar on a terminal when it takes a while."""
    import threading
    from concurrent.futures import Future, wait

    package: Future[list[Any]] = Future()

    def run() -> None:
        try:
            package.set_result(client.run([call] * count))
        except TaskEngineError as error:
            package.set_exception(error)

    # not an executor's thread: ctrl-c does not wait for this one
    threading.Thread(target=run, daemon=True).start()
    wait([package], SHOW_PROGRESS_AFTER_S)
    if not package.done() and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            tasks = bar.add_task("tasks", total=None)
            while not package.done():
                for _, done, count in client.progress():
                    bar.update(tasks, completed=done, total=count)
                wait([package], 0.1)
    return package.result()


@cli.command()
@_engine
def reload(address: str, keys: Path | None) -> None:
    """Have an engine load its task modules anew, worker by worker; no task is lost. SIGHUP does the same.

    Where a module does not load, the engine goes on with what it had. New lanes and settings take a restart.
    """
    with _connected(address, keys, None) as client:
        client.reload()
    click.echo("reloaded")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@_engine
def tasks(as_json: bool, address: str, keys: Path | None) -> None:
    """List the tasks that an engine serves."""
    with _connected(address, keys, PROBE_S) as client:
        known = client.tasks()
        if as_json:
            import msgspec

            _print_json([msgspec.structs.asdict(task) for task in known])
            return
        from rich.console import Console
        from rich.table import Table

        table = Table("task", "lane", "what it does", box=None, pad_edge=False)
        for task in known:
            table.add_row(f"{task.name}{task.signature}", task.lane, task.doc.partition("\n")[0])
        Console().print(table, markup=False)


@cli.command()
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON instead of tables.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=1.0, help="Seconds between two looks.")
@_engine
def top(once: bool, as_json: bool, interval: float, address: str, keys: Path | None) -> None:
    """Show what the engine does: tasks, errors, lanes and latencies, until ctrl-c."""
    from taskengine.top import Look, looks, plain, show

    with _connected(address, keys, PROBE_S) as client:
        seen = [Look(0.0, client.stats())] if once else looks(client, interval)
        if as_json:
            for look in seen:
                _print_json(look.stats and plain(look.stats))
        else:
            show(seen)


@cli.command()
@click.argument("topic")
@click.option("--count", type=click.IntRange(min=1), help="End after so many values.")
@_engine
def subscribe(topic: str, count: int | None, address: str, keys: Path | None) -> None:
    """Print the values of TOPIC as they are published, one JSON line each; `arm.*` takes all that begin so."""
    with _connected(address, keys, PROBE_S) as client, client.subscribe(topic) as feed:
        for number, sample in enumerate(feed, start=1):
            _print_json(sample.value if not topic.endswith("*") else {sample.topic: sample.value})
            if number == count:
                return


@cli.command()
@click.argument("topic")
@click.argument("value")
@_engine
def publish(topic: str, value: str, address: str, keys: Path | None) -> None:
    """Publish VALUE, JSON where it parses as JSON and text otherwise, on TOPIC."""
    with _connected(address, keys, PROBE_S) as client:
        client.publish(topic, _json_or_text(value))


@cli.group()
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

    ring = KeyRing(folder or _load(None, {}).keys_folder)
    become_owner(ring.folder)
    return ring


def _note(ring: KeyRing, command: str, name: str) -> None:
    """Tell the audit log of a change of the allow-list, and which user made it."""
    from taskengine.audit import AUDIT_FILE, Audit

    chosen = _load(None, {}).audit
    path = Path(chosen).expanduser() if chosen else ring.folder / AUDIT_FILE
    Audit(path, lambda line: click.echo(line, err=True)).note(f"keys {command}", client=name, uid=UID)


@keys.command("new")
@click.argument("name")
@click.option("--address", default=DEFAULT_ADDRESS, metavar="tcp://HOST:PORT", help="The engine's frontend.")
@_keys
def keys_new(name: str, address: str, keys: Path | None) -> None:
    """Make a key for this machine, NAME to an engine, whose public key is asked for; prints ours."""
    with _errors():
        engine = click.prompt("The engine's public key (`taskengine keys show` there)", err=True)
        click.echo(_ring(keys).join(address, engine, name).own.public)


@keys.command("allow")
@click.argument("name")
@click.argument("public")
@_keys
def keys_allow(name: str, public: str, keys: Path | None) -> None:
    """Let the client NAME in, by its PUBLIC key."""
    with _errors():
        ring = _ring(keys)
        ring.allow(name, public)
        _note(ring, "allow", name)


@keys.command("list")
@_keys
def keys_list(keys: Path | None) -> None:
    """List the clients that this engine lets in, and the engines that this machine has keys for."""
    from taskengine.keys import fingerprint

    with _errors():
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
    with _errors():
        ring = _ring(keys)
        ring.revoke(name)
        _note(ring, "revoke", name)


@keys.command("forget")
@click.argument("address")
@_keys
def keys_forget(address: str, keys: Path | None) -> None:
    """Have no key for the engine at ADDRESS any more: a client then talks to it unencrypted."""
    with _errors():
        _ring(keys).forget(address)


@keys.command("show")
@_keys
def keys_show(keys: Path | None) -> None:
    """Print the engine's public key and its fingerprint."""
    from taskengine.keys import fingerprint

    with _errors():
        public = _ring(keys).engine().public
        click.echo(f"{public}  {fingerprint(public)}")


@keys.command("pair")
@click.argument("name")
@click.option("--address", metavar="tcp://HOST:PORT", help="Where the client finds the engine [default: this host].")
@_keys
def keys_pair(name: str, address: str | None, keys: Path | None) -> None:
    """Make a key for the client NAME, let it in, and print the line that `keys accept` takes on its machine."""
    import socket

    with _errors():
        address = address or f"tcp://{socket.gethostname()}:{_load(None, {}).router_frontend}"
        ring = _ring(keys)
        click.echo(ring.pair(name, address))
        _note(ring, "pair", name)
        click.echo("This line holds the client's secret key: take it there in private, and do not keep it.", err=True)


@keys.command("accept")
@click.argument("line")
@_keys
def keys_accept(line: str, keys: Path | None) -> None:
    """Take in the LINE that `keys pair` printed on the engine's machine."""
    with _errors():
        membership = _ring(keys).accept(line)
        click.echo(f"{membership.address} knows this machine as {membership.name}")


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("args", nargs=-1)
def bench(args: tuple[str, ...]) -> None:
    """Measure this machine; needs a checkout (see `make bench`)."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "bench" / "__main__.py").is_file():
        _leave(
            "the benchmark is not installed with the package: run `make bench` in a clone of the repository", SAID_NO
        )
    os.chdir(folder)
    # this interpreter and a module of this checkout; no shell reads the arguments
    os.execv(sys.executable, [sys.executable, "-m", "bench", *args])  # noqa: S606


def main() -> None:
    """The command's entry point."""
    cli(prog_name="taskengine")
