"""Fixtures that several folders use."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from taskengine import Client
from taskengine.protocol.messages import NOWHERE
from taskengine.worker.context import set_origin, set_policy
from tests import summary
from tests.engine import Engine, deadline

# a shared machine may take a second for what takes a millisecond; that is no finding
hypothesis.settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared-machine")


# a job of a script's background is started deaf to ctrl-c, and so would be what it starts
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def config_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the keys of whoever runs it."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_caller() -> Iterator[None]:
    """No test runs for the caller, or under the policy, that another has set in this process."""
    yield
    set_policy(None)
    set_origin(NOWHERE)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: of a server, and of its peer."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as peer,
        listener.accept()[0] as own,
    ):
        yield own, peer


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine with the default settings on free ports, one for each test file."""
    with Engine() as running:
        yield running


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    """A client of `engine`."""
    with Client(engine.address, timeout=deadline(20.0)) as connected:
        yield connected


_SLOWEST_FIRST = ("fuzz", "system", "hardware", "property", "integration")
"""Folders of tests."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Refuse a mark by which the Makefile, which looks for it in files, would not find the test."""
    for name in ("alone", "long"):
        if item.get_closest_marker(name) and f"pytest.mark.{name}" not in item.path.read_text():
            raise pytest.UsageError(f"write `pytest.mark.{name}` in {item.path} itself")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have the workers of pytest-xdist begin with what takes long, so that none is at it when the others are done."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.path.parent.name))


def _place(folder: str) -> int:
    return _SLOWEST_FIRST.index(folder) if folder in _SLOWEST_FIRST else len(_SLOWEST_FIRST)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show who was let in, what a policy gave, and what attacks did."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    properties = [found for report in reports for found in report.user_properties]
    for title, told in (
        ("who is let in, and may do what", list(summary.lines(properties))),
        ("attacks by allowed keys: before > after (p99s in ms, memory in MiB)", list(summary.siege(properties))),
    ):
        if told:
            terminalreporter.section(title)
            for line in told:
                terminalreporter.line(line)
