"""Hosts by their names: families of addresses, and names that do not resolve."""

from __future__ import annotations

import itertools
import socket
from typing import Any

import pytest
import zmq

from taskengine import Client, EngineUnreachable
from taskengine.client import connection
from taskengine.client.connection import Connection
from taskengine.client.stopping import Stopping, Target, new_order
from taskengine.config.settings import Settings
from taskengine.runtime import rundir
from taskengine.runtime.hosts import Lookup, host_in, name_in, needs_ipv6
from taskengine.runtime.rundir import RunDir
from taskengine.supervisor.preflight import StartError, check_ports
from tests.engine import deadline, free_ports
from tests.integration.listener import Listener

NAME = "robot.invalid"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """The names that resolve, and the families of their addresses."""
    known: dict[str, set[int]] = {}
    real = socket.getaddrinfo

    def look(host: str, port: Any, family: int = 0, *rest: Any, **named: Any) -> Any:
        if host not in known and host != NAME:
            return real(host, port, family, *rest, **named)
        if (family and family not in known.get(host, set())) or not known.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, socket.SOCK_STREAM, 6, "", ("", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look)
    return known


@pytest.mark.parametrize(
    ("address", "host", "name"),
    [
        ("tcp://127.0.0.1:9000", "127.0.0.1", ""),
        ("tcp://[::1]:9000", "::1", ""),
        ("tcp://robot.local:9000", "robot.local", "robot.local"),
        ("tcp://eth0;robot:9000", "robot", "robot"),
        ("ipc:///run/x", "", ""),
    ],
)
def test_the_host_of_an_address(address: str, host: str, name: str) -> None:
    assert (host_in(address), name_in(address)) == (host, name)


def test_ipv6_is_needed_for_names_that_have_no_other_address(names: dict[str, set[int]]) -> None:
    names |= {"six": {socket.AF_INET6}, "four": {socket.AF_INET}, "both": {socket.AF_INET, socket.AF_INET6}}
    wanted = {"six": True, "four": False, "both": False, NAME: False, "[::1]": True, "127.0.0.1": False}
    assert {host: needs_ipv6(f"tcp://{host}:9000") for host in wanted} == wanted


def test_a_host_by_name_that_has_only_an_ipv6_address_is_probed_as_such(names: dict[str, set[int]]) -> None:
    first = free_ports(4)
    ports: dict[str, Any] = {
        "router_frontend": first,
        "router_backend": first + 1,
        "starting_port": first,
        "stop_port": 0,
    }
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", first))
        taken.listen()
        with pytest.raises(StartError, match=rf"\[::1\]:{first} "):
            check_ports(Settings(host="::1", **ports))
        check_ports(Settings(**ports))


def test_what_is_printed_can_be_typed() -> None:
    assert Settings(host="::1", metrics_port=9100).metrics_page == "http://[::1]:9100/metrics"
    assert Settings(metrics_port=9100).metrics_page == "http://127.0.0.1:9100/metrics"


@pytest.mark.parametrize("by_ipv6", [False, True])
def test_a_name_is_tried_by_one_family_at_a_time(by_ipv6: bool) -> None:
    with zmq.Context() as context:
        for address, is_ipv6 in (
            (f"tcp://{NAME}:9000", by_ipv6),
            ("tcp://127.0.0.1:9000", False),
            ("tcp://[::1]:9000", True),
            ("tcp://::1:9000", True),
        ):
            made = Connection(context, address, by_ipv6=by_ipv6)
            assert made.socket.ipv6 == is_ipv6, address
            made.close(0)


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_client_tries_the_addresses_of_a_name_by_turns(monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    nowhere = f"tcp://127.0.0.1:{free_ports(1)}"
    with Listener(lambda heard: 5) as engine:
        turns = itertools.chain([nowhere] * dead, itertools.repeat(engine.address))
        monkeypatch.setattr(connection, "name_in", lambda endpoint: "robot")
        monkeypatch.setattr(connection, "nearest", lambda address: next(turns))
        with Client(f"tcp://{NAME}:9000", timeout=deadline(10), insecure=True) as client:
            assert client.call("x") == 5


def test_a_stop_goes_to_all_addresses_of_a_name_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"tcp://127.0.0.1:{free_ports(1)}"
    with Listener(lambda heard: None) as engine:
        turns = itertools.cycle([nowhere, engine.address])
        monkeypatch.setattr(connection, "name_in", lambda endpoint: "robot")
        monkeypatch.setattr(connection, "nearest", lambda address: next(turns))
        target = Target(f"tcp://{NAME}:9001", None, insecure=True)
        Stopping(target, new_order(), deadline(10)).run()
        assert len(engine.heard) == 1


def test_a_name_that_does_not_resolve_is_named(names: dict[str, set[int]]) -> None:
    wrong = rf"the name {NAME} does not resolve \(Name or service not known\)"
    address = f"tcp://{NAME}:9001"
    with Client(address, timeout=deadline(0.5), insecure=True) as client:
        with pytest.raises(EngineUnreachable, match=wrong):
            client.call("x")
        with pytest.raises(EngineUnreachable, match=wrong):
            client.submit("x").result(deadline(10))
    with pytest.raises(EngineUnreachable, match=wrong):
        Stopping(Target(address, None, insecure=True), new_order(), deadline(0.5)).run()


def test_a_name_that_resolves_is_not_blamed(names: dict[str, set[int]]) -> None:
    said: list[str] = []
    for address in ("tcp://robot:9000", "tcp://127.0.0.1:9000"):
        names["robot"] = {socket.AF_INET}
        lookup = Lookup(address, said.append)
        lookup.begin()
        lookup.wait(deadline(10))
    assert said == [""]


def test_an_engine_at_the_other_loopback_is_found_by_the_name_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_ports(1)
    folder = RunDir("::1", port)
    address = folder.address(rundir.FRONTEND)
    assert address is not None
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(address)
        assert rundir.nearest(f"tcp://localhost:{port}") == address
        assert rundir.nearest(f"tcp://127.0.0.1:{port}") != address
    folder.close()
