"""The `taskengine` command."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taskengine.cli.audit import audit
from taskengine.cli.common import (
    SAID_NO,
    WRONG_USAGE,
    Command,
    json_option,
    leave,
    load_settings,
    plain_errors,
    print_json,
    settings_flags,
)
from taskengine.cli.completion import completion
from taskengine.cli.doctor import doctor
from taskengine.cli.engine import PROBE_S, Where, client_of, connected, engine_options
from taskengine.cli.keys import keys
from taskengine.cli.new import new
from taskengine.cli.policy import policy
from taskengine.cli.record import record, replay, show_log
from taskengine.cli.service import service
from taskengine.cli.version import version_option
from taskengine.config.settings import Settings
from taskengine.errors import BadArguments, NotAllowed, Overloaded, TaskEngineError, printable

if TYPE_CHECKING:
    from taskengine.client.blocking import Client
    from taskengine.registry.survey import TaskCode
    from taskengine.security.identity import Identity

SHOW_PROGRESS_AFTER_S = 1.0
STOP_PORT_HELP = "The engine's stop port [default: that of the settings, or 9002 beside 9000]."
UNIT = Path(__file__).parents[1] / "taskengine.service"
UNDER_SYSTEMD = f"""\b
Under systemd the engine is a service of Type=notify with a watchdog. This unit file says how to
install it:
{UNIT}"""


def _admit(settings: Settings) -> tuple[Identity | None, int]:
    """Return the user that the engine's processes are to become, and how many keys are let in.

    Raises SettingsError, KeysError if the engine may not be started like this.
    """
    from taskengine.security.identity import borrowed, check_keys, find_identity
    from taskengine.security.keys import KeyRing
    from taskengine.supervisor.inspection import refuse_tasks

    identity = find_identity(settings.user, settings.group)
    refuse_tasks(settings, identity)
    clients = 0
    if settings.is_curved:
        ring = KeyRing(settings.keys_folder)
        if identity is not None:
            check_keys(ring.folder.absolute(), identity)
        with borrowed(identity):
            clients = len(ring.allowed())
    settings.check_exposure(clients)
    return identity, clients


@click.group(cls=Command, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@version_option
def cli() -> None:
    """Serve a robot's functions, pins and servos, and call them. Without a command: serve.

    \b
    taskengine serve --tasks robot.py --chunking-size 50
    taskengine call task_count 2 3
    taskengine subscribe cpu.load
    taskengine top
    """


cli.add_command(audit)
cli.add_command(completion)
cli.add_command(doctor)
cli.add_command(keys)
cli.add_command(new)
cli.add_command(policy)
cli.add_command(record)
cli.add_command(replay)
cli.add_command(service)
cli.add_command(show_log)


@cli.command(epilog=UNDER_SYSTEMD)
@settings_flags
def serve(config: Path | None, **flags: object) -> None:
    """Serve in the foreground until ctrl-c or SIGTERM."""
    with plain_errors():
        settings = load_settings(config, flags)
        identity, clients = _admit(settings)
        from taskengine.config.loading import table_problem
        from taskengine.config.weaknesses import MODES, weaknesses
        from taskengine.supervisor import supervisor
        from taskengine.supervisor.inspection import inspect

        for weakness in weaknesses(inspect(settings, config, identity, clients), MODES):
            click.echo(f"taskengine: warning: {weakness}", err=True)
        check, read = partial(table_problem, config, settings.hardware), partial(load_settings, config, flags)
        sys.exit(supervisor.serve(settings, identity, check, read))


@cli.command()
@json_option
@settings_flags
def check(as_json: bool, config: Path | None, **flags: object) -> None:
    """Check the settings and the task modules, and warn of weaknesses; start nothing."""
    with plain_errors():
        settings = load_settings(config, flags)
        identity, clients = _admit(settings)
        from msgspec.structs import replace

        from taskengine.config.weaknesses import weaknesses
        from taskengine.runtime.descendants import orphans
        from taskengine.supervisor.catalogue import load_catalogue
        from taskengine.supervisor.inspection import inspect

        orphans.begin(is_init=False)
        catalogue = load_catalogue(settings.tasks, None, identity, settings.machine(), imports_all=True)
        periodic = {task.name: task.lane for task in catalogue.tasks if task.schedule}
        found = list(weaknesses(replace(inspect(settings, config, identity, clients), periodic=periodic)))
        if as_json:
            _print_check(catalogue, found)
            sys.exit(WRONG_USAGE if catalogue.failures else 0)
        for failure in catalogue.failures:
            click.echo(f"taskengine: {failure}", err=True)
        for task in catalogue.tasks:
            where = f" in lane {task.lane}" if task.lane else ""
            when = f" {task.schedule.timing}" if task.schedule else ""
            click.echo(printable(f"task {task.name}{task.signature}{where}{when}"))
        for topic in catalogue.topics:
            click.echo(printable(f"source {topic}"))
        machine = settings.machine()
        for board in [] if machine is None else machine.boards(with_channels=False):
            click.echo(printable(board))
        for weakness in found:
            click.echo(f"taskengine: warning: {weakness}", err=True)
        sys.exit(WRONG_USAGE if catalogue.failures else 0)


def _print_check(catalogue: TaskCode, found: list[str]) -> None:
    tasks = [{"name": task.name, "signature": task.signature, "lane": task.lane} for task in catalogue.tasks]
    failures = [str(failure) for failure in catalogue.failures]
    print_json({"tasks": tasks, "sources": list(catalogue.topics), "failures": failures, "warnings": found})


@cli.command()
@json_option
@click.option("--safe", is_flag=True, help="Bring every output to its safe state; no engine may be running.")
@settings_flags
def pins(as_json: bool, safe: bool, config: Path | None, **flags: object) -> None:
    """Show the 40-pin header and the boards, and which device of the settings' table [hardware] has which pin."""
    with plain_errors():
        machine = load_settings(config, flags).machine()
        if safe:
            if machine is not None:
                machine.make_safe()
            return
        owners = {} if machine is None else machine.owners()
        if as_json:
            print_json(owners | ({} if machine is None else machine.channels()))
            return
        from taskengine.config.machine import header

        for line in (*header(owners), *([] if machine is None else machine.boards())):
            click.echo(line)
        if machine is None:
            click.echo("taskengine: the settings have no table [hardware]", err=True)


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


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("args", nargs=-1)
@click.option("-k", "keywords", multiple=True, callback=_keyword, metavar="KEY=VALUE", help="A keyword argument.")
@click.option("--count", type=click.IntRange(min=0), help="Repeat the call as one package; print a list.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, help="Seconds to wait.")
@engine_options
def call(
    name: str,
    args: tuple[str, ...],
    keywords: dict[str, Any],
    count: int | None,
    timeout: float,
    where: Where,
) -> None:
    """Call a task. Arguments are JSON where they parse as JSON, text otherwise; the result is printed as JSON.

    The values of a task that yields are printed as they come, one in a line. On a terminal a bar shows the progress of
    a task that tells it.
    """
    from taskengine.client.blocking import arming
    from taskengine.client.calls import stops_machine

    values = [_json_or_text(text) for text in args]
    # a stop does not wait for a router that may be gone
    with (client_of if stops_machine(name) else connected)(where, timeout) as client:
        if count is None:
            if not (values or keywords):
                keywords = arming(name, client.stop_in_force)
            _call(client, (name, values, keywords))
            return
        results = _repeat(client, (name, values, keywords), count)
        failed = [result for result in results if isinstance(result, TaskEngineError)]
        if failed:
            raise TaskEngineError(
                f"{len(failed)} of {count} failed, the first with {type(failed[0]).__name__}: {failed[0]}"
            )
        print_json(results)


def _call(client: Client, call: tuple[str, list[Any], dict[str, Any]]) -> None:
    """Call a task and print its result, or its values; on a terminal a bar shows its progress, if it tells any."""
    from taskengine.cli.meter import Meter

    name, args, kwargs = call
    is_stream = _yields(client, name)
    with Meter(name) as meter:
        if meter.is_of_use:
            client = client.options(progress=meter.show)
        if not is_stream:
            result = client.call(name, *args, **kwargs)
            meter.clear()
            print_json(result)
            return
        for value in client.stream(name, *args, **kwargs):
            meter.clear()
            print_json(value)


def _yields(client: Client, name: str) -> bool:
    """Return whether a task is known to be a generator. A stop is not delayed by asking."""
    from taskengine.client.calls import stops_machine
    from taskengine.client.session import STREAMS

    if stops_machine(name) or STREAMS not in client.info().capabilities:
        return False
    with suppress(NotAllowed, Overloaded):  # then it is called
        return any(task.name == name and task.streams for task in client.tasks())
    return False


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
@click.option("--why", default="", metavar="TEXT", help="The reason, shown in the machine's state.")
@click.option("--stop-address", metavar="tcp://HOST:PORT", help=STOP_PORT_HELP)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, help="Seconds to go on trying.")
@json_option
@engine_options
def stop(why: str, stop_address: str | None, timeout: float, as_json: bool, where: Where) -> None:
    """Stop the machine: every output goes to its safe state, and nothing moves until `taskengine call system.arm`.

    All ways are taken at once: the guardian's socket on this machine, the stop port, and the router.
    """
    with plain_errors(where.source):
        from taskengine.client.stopping import Stopping, Target, new_order
        from taskengine.security.keys import find_membership

        try:
            address, insecure = where.address, where.insecure
            membership = find_membership(address, where.keys, where.engine, insecure=insecure)
            target = Target(
                address, membership, "taskengine", stop_address=stop_address or where.stop_address, insecure=insecure
            )
            Stopping(target, new_order(why), timeout).run()
        except BadArguments as error:
            leave(str(error), WRONG_USAGE)
    _print_done("stopped", as_json=as_json)


@cli.command()
@json_option
@engine_options
def reload(as_json: bool, where: Where) -> None:
    """Have an engine load its task modules and policy anew, worker by worker; no task is lost. SIGHUP does the same.

    If a module does not load, the engine goes on with the previous code. New lanes and other settings take a restart.
    """
    with connected(where, None) as client:
        client.reload()
    _print_done("reloaded", as_json=as_json)


def _print_done(what: str, *, as_json: bool) -> None:
    if as_json:
        print_json({what: True})
    else:
        click.echo(what)


@cli.command()
@json_option
@engine_options
def tasks(as_json: bool, where: Where) -> None:
    """List the tasks that an engine serves."""
    with connected(where, PROBE_S) as client:
        known = client.tasks()
        if as_json:
            from taskengine.cli.top import plain_task

            print_json([plain_task(task) for task in known])
            return
        from rich.table import Table

        from taskengine.cli.top import console, schedules

        table = Table("task", "lane", "what it does", box=None, pad_edge=False)
        for task in known:
            cells = (f"{task.name}{task.signature}", task.lane, task.doc.partition("\n")[0])
            table.add_row(*map(printable, cells))
        output = console()
        output.print(table, markup=False)
        periodic = [task.schedule for task in known if task.schedule]
        if periodic:
            output.print()
            output.print(schedules(periodic), markup=False)


@cli.command()
@click.option("--once", is_flag=True, help="Print it once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON instead of tables.")
@click.option("--interval", type=click.FloatRange(min=0.05), default=1.0, help="Seconds between two updates.")
@engine_options
def top(once: bool, as_json: bool, interval: float, where: Where) -> None:
    """Show the engine's tasks, errors, lanes and latencies, until ctrl-c."""
    from taskengine.cli.top import Look, looks, plain, show

    with connected(where, PROBE_S) as client:
        seen = [Look(0.0, client.stats())] if once else looks(client, interval)
        if as_json:
            for look in seen:
                print_json(look.stats and plain(look.stats))
        else:
            show(seen)


@cli.command()
@click.argument("topic")
@click.option("--count", type=click.IntRange(min=1), help="End after so many values.")
@click.option("--newest", is_flag=True, help="Leave out values that a newer one of the same topic has replaced.")
@engine_options
def subscribe(topic: str, count: int | None, newest: bool, where: Where) -> None:
    """Print the values of TOPIC as they are published, one JSON line each.

    `arm.*` takes all topics that begin with `arm.`.
    """
    with connected(where, PROBE_S) as client, client.subscribe(topic, newest=newest) as feed:
        for number, sample in enumerate(feed, start=1):
            print_json(sample.value if not topic.endswith("*") else {sample.topic: sample.value})
            if number == count:
                return


@cli.command()
@click.argument("topic")
@click.argument("value")
@engine_options
def publish(topic: str, value: str, where: Where) -> None:
    """Publish VALUE, JSON where it parses as JSON and text otherwise, on TOPIC."""
    with connected(where, PROBE_S) as client:
        client.publish(topic, _json_or_text(value))


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("args", nargs=-1)
def bench(args: tuple[str, ...]) -> None:
    """Measure this machine; needs a checkout (see `make bench`)."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / "bench" / "__main__.py").is_file():
        leave("the benchmark is not installed with the package: run `make bench` in a clone of the repository", SAID_NO)
    os.chdir(folder)
    # this interpreter and a module of this checkout; no shell reads the arguments
    os.execv(sys.executable, [sys.executable, "-m", "bench", *args])  # noqa: S606


def main() -> None:
    """The command's entry point."""
    cli(prog_name="taskengine")
