"""The Python client against a real engine."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy
import pytest

from taskengine import (
    BadArguments,
    Cancelled,
    Client,
    EngineUnreachable,
    Overloaded,
    TaskEngineError,
    TaskFailed,
    TaskTimeout,
    UnknownTask,
)
from taskengine.client import connection
from taskengine.runtime.rundir import nearest
from tests.engine import Engine, deadline, free_ports, wait_until


def test_a_call(client: Client) -> None:
    assert client.call("task_count", 2, 3) == 2.5


def test_values_keep_their_types(client: Client) -> None:
    for value in (None, True, -1, 2**63, 1.5, "ä", b"\0", [1, [2]], {"a": {"b": None}}):
        assert client.call("task_echo", value) == value


def test_keywords_and_defaults(client: Client) -> None:
    assert client.call("task_count", a=2, b=3) == 2.5
    assert client.call("task_echo", 1, b=2) == {"args": [1], "b": 2}


@pytest.mark.parametrize("number", [0, 1, 2, 10, 11, 21, 4000, 4001, 100_000])
def test_map_of_any_size_is_in_order(client: Client, number: int) -> None:
    assert client.map("task_count", range(number), range(number)) == list(map(float, range(number)))


def test_errors_are_typed_and_alone(client: Client) -> None:
    calls: list[Any] = [
        ("task_count", (2, 3), {}),
        ("task_fail", ("boom",), {}),
        ("task_cont", (), {}),
        ("task_count", (1,), {}),
        ("task_count", (1, "x"), {}),
        ("task_count", (4, 4), {}),
    ]
    first, failed, unknown, bad, inside, last = client.run(calls)
    assert (first, last) == (2.5, 4.0)
    assert isinstance(failed, TaskFailed)
    assert (failed.type, failed.message) == ("RuntimeError", "RuntimeError: boom")
    assert "in task_fail" in failed.traceback
    assert isinstance(unknown, UnknownTask)
    assert unknown.nearest[0] == "task_count"
    assert isinstance(bad, BadArguments)
    assert isinstance(inside, TaskFailed)
    assert inside.type == "TypeError"


def test_map_raises_the_first_error_or_returns_them(client: Client) -> None:
    with pytest.raises(TaskFailed):
        client.map("task_count", [1, "a"], [2, 3])
    first, second = client.options(errors="return").map("task_count", [1, "a"], [2, 3])
    assert first == 1.5
    assert isinstance(second, TaskFailed)


def test_submit_coalesces_and_each_future_has_its_own(client: Client) -> None:
    futures = [client.submit("task_count", i, i) for i in range(500)]
    failing = client.submit("task_fail")
    assert [future.result(deadline(20)) for future in futures] == list(range(500))
    assert isinstance(failing.exception(deadline(20)), TaskFailed)


def test_what_cannot_be_sent_fails_alone(client: Client) -> None:
    good, bad = client.submit("task_count", 1, 1), client.submit("task_echo", object())
    assert good.result(deadline(20)) == 1.0
    assert isinstance(bad.exception(deadline(20)), BadArguments)
    with pytest.raises(BadArguments):
        client.call("task_echo", object())


def test_a_result_that_cannot_be_sent_is_an_error(tmp_path: Any) -> None:
    module = tmp_path / "odd.py"
    module.write_text("def task_odd():\n    return object()\n\ndef task_exit():\n    raise SystemExit(3)\n")
    with Engine(tasks=module) as engine, Client(engine.address, timeout=deadline(20)) as client:
        with pytest.raises(TaskEngineError, match="object"):
            client.call("task_odd")
        with pytest.raises(TaskFailed, match="SystemExit"):
            client.call("task_exit")


def remembering(folder: Path) -> Path:
    """A task module whose lane has one worker that remembers what it was given."""
    module = folder / "remember.py"
    module.write_text(
        "from taskengine import task\n\nseen = []\n\n"
        "@task(lane='one')\ndef remember(value):\n    seen.append(value)\n\n"
        "@task(lane='one')\ndef remembered():\n    return list(seen)\n"
    )
    return module


def test_send_wants_no_response_and_close_loses_nothing(tmp_path: Path) -> None:
    with Engine(tasks=remembering(tmp_path)) as engine, Client(engine.address, timeout=deadline(20)) as client:
        for round in range(20):
            with Client(engine.address) as other:
                other.send("remember", round)
        assert client.call("remembered") == list(range(20))


def test_a_clients_calls_are_sent_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    with Engine(tasks=remembering(tmp_path)) as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.send("remember", 1)
        client.submit("remember", 2)
        client.send("remember", 3)
        client.call("remember", 4)
        client.submit("remember", 5)
        client.map("remember", [6, 7])
        assert client.call("remembered") == [1, 2, 3, 4, 5, 6, 7]


def test_reply_modes(client: Client) -> None:
    calls: list[Any] = [("task_count", (2, 3), {}), ("task_fail", (), {}), ("task_count", (2, 3), {})]
    none, error, also_none = client.options(reply="errors").run(calls)
    assert (none, also_none) == (None, None)
    assert isinstance(error, TaskFailed)
    assert client.options(reply="none").run(calls) == [None, None, None]
    assert client.options(reply="none").map("task_fail", ["x", "y"]) == [None, None]
    with pytest.raises(TaskFailed, match="y"):
        client.options(reply="errors").map("task_fail", ["y"])


def test_several_threads_share_a_client(client: Client) -> None:
    wrong: list[Any] = []

    def play(number: int) -> None:
        for round in range(30):
            if round % 2:
                results: Any = client.map("task_echo", [f"{number}/{round}/{i}" for i in range(100)])
                expected: Any = [f"{number}/{round}/{i}" for i in range(100)]
            else:
                results, expected = client.submit("task_echo", number).result(deadline(20)), number
            if results != expected:
                wrong.append((number, round))

    threads = [threading.Thread(target=play, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_callback_may_call(client: Client) -> None:
    answers: list[Any] = []
    done = threading.Event()

    def call_again(future: Future[Any]) -> None:
        answers.append((future.result(), client.call("task_count", 4, 4)))
        done.set()

    client.submit("task_count", 2, 3).add_done_callback(call_again)
    assert done.wait(deadline(10))
    assert answers == [(2.5, 4.0)]
    assert client.call("task_count", 2, 3) == 2.5


def test_tasks_and_info(engine: Engine, client: Client) -> None:
    known = {task.name: task for task in client.tasks()}
    assert known["task_count"].signature == "(a: float, b: float) -> float"
    assert known["task_count"].doc == "Return the mean of two numbers."
    info = client.info()
    assert (info.response_time, info.chunking_size, info.task_workers) == (0.005, 10, 2)
    assert info.data_addresses == [f"tcp://127.0.0.1:{int(engine.settings['starting_port']) + 2}"]


def test_a_timeout_is_the_callers_own(client: Client) -> None:
    client.info()  # so that it is connected
    with pytest.raises(TaskTimeout) as caught:
        client.options(timeout=0.05).call("task_sleep", 0.5)
    assert caught.value.seconds == 0.05
    assert client.call("task_count", 2, 3) == 2.5


def test_a_deadline_keeps_a_late_task_from_starting(client: Client) -> None:
    blockers = [client.submit("task_sleep", 0.2) for _ in range(8)]
    client.flush()
    with pytest.raises(TaskTimeout, match="deadline"):
        client.options(deadline=0.05).call("task_count", 2, 3)
    assert [future.result(deadline(60)) for future in blockers] == [0.2] * 8


def test_no_engine_is_said_so() -> None:
    address = f"tcp://127.0.0.1:{free_ports(1)}"
    with Client(address, timeout=0.1) as client:
        with pytest.raises(EngineUnreachable, match=address):
            client.call("task_count", 2, 3)
        assert isinstance(client.submit("task_count", 2, 3).exception(deadline(20)), EngineUnreachable)
    assert issubclass(EngineUnreachable, ConnectionError)


@pytest.mark.parametrize(
    "address", ["foo", "tcp://", "tcp://127.0.0.1", "", "ftp://127.0.0.1:1", "tcp://127.0.0.1:99999", 3]
)
def test_what_is_no_address_is_said_so(address: Any) -> None:
    with pytest.raises(BadArguments, match="tcp://HOST:PORT"):
        Client(address)


def test_what_was_given_up_is_never_run(tmp_path: Path) -> None:
    with Engine(tasks=remembering(tmp_path)) as first:
        settings = first.settings
    with Client(first.address, timeout=0.05) as client:
        with pytest.raises(EngineUnreachable):
            client.call("remember", "given up")
        with Engine(**settings):
            patient = client.options(timeout=deadline(20))
            patient.call("remember", "wanted")
            assert patient.call("remembered") == ["wanted"]


def test_what_was_sent_to_a_router_that_dies_is_told() -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        futures = [client.submit("task_sleep", 1) for _ in range(3)]
        wait_until(client.progress, 10, "the package")
        os.kill(engine.pids("router")[0], signal.SIGKILL)
        assert [type(future.exception(deadline(2))) for future in futures] == [EngineUnreachable] * 3
        assert client.call("task_count", 2, 3) == 2.5


def test_a_future_gives_up_after_its_timeout(client: Client) -> None:
    client.info()  # so that it is connected
    assert isinstance(client.options(timeout=0.05).submit("task_sleep", 0.3).exception(deadline(20)), TaskTimeout)


def test_threads_that_give_up_disturb_nobody(client: Client) -> None:
    client.info()
    failures: list[BaseException] = []

    def play() -> None:
        for _ in range(200):
            try:
                client.options(timeout=1e-5).call("task_count", 2, 3)
            except TaskTimeout:
                continue
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=play) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.call("task_count", 2, 3) == 2.5


def test_a_closed_client_says_so_and_closes_twice(engine: Engine) -> None:
    client = Client(engine.address)
    waiting = client.submit("task_sleep", 0.2)
    client.close()
    client.close()
    assert waiting.result(0) == 0.2
    for verb in (client.call, client.submit, client.send, client.submit):
        with pytest.raises(Cancelled):
            verb("task_count", 2, 3)


def test_a_client_may_be_closed_by_a_callback(engine: Engine) -> None:
    client = Client(engine.address)
    first = client.submit("task_count", 2, 3)
    second = client.submit("task_sleep", 0.1)
    closed = threading.Event()

    def close(_: Future[Any]) -> None:
        client.close()
        closed.set()

    first.add_done_callback(close)
    assert closed.wait(deadline(20))
    assert second.result(0) == 0.1


def test_a_client_may_be_closed_while_other_threads_call(engine: Engine) -> None:
    client = Client(engine.address, timeout=deadline(20))
    outcomes: list[Any] = []

    def play() -> None:
        try:
            while True:
                client.call("task_count", 2, 3)
        except TaskEngineError as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=play) for _ in range(3)]
    for thread in threads:
        thread.start()
    client.call("task_count", 2, 3)
    client.close()
    for thread in threads:
        thread.join(deadline(20))
    assert outcomes == [Cancelled] * 3


def test_closing_gives_up_what_takes_too_long(engine: Engine) -> None:
    client = Client(engine.address)
    waiting = client.submit("task_sleep", 1.0)
    client.close(timeout=0.1)
    assert isinstance(waiting.exception(0), Cancelled)


def test_a_cancelled_future_is_not_sent(client: Client) -> None:
    client.call("task_count", 1, 1)
    future: Future[Any] = client.submit("task_count", 1, 1)
    if future.cancel():
        assert client.call("task_count", 2, 3) == 2.5
    else:
        assert future.result(deadline(20)) == 1.0


def test_a_client_reconnects(tmp_path: Any) -> None:
    with Engine() as first, Client(first.address, timeout=deadline(20)) as client:
        assert client.call("task_count", 2, 3) == 2.5
        first.stop()
        with Engine(**first.settings):
            assert client.call("task_sleep", 0.2) == 0.2
            assert client.call("task_count", 2, 3) == 2.5


def test_arrays_go_as_columns_and_come_back_as_an_array(client: Client) -> None:
    left, right = numpy.arange(4001.0), numpy.arange(4001)
    results = client.map("task_count", left, right)
    numpy.testing.assert_array_equal(results, (left + right) / 2)
    assert (type(results), results.dtype) == (numpy.ndarray, numpy.dtype("f8"))
    echoed = client.map("task_echo", right)
    assert echoed.dtype == numpy.dtype("i8")
    numpy.testing.assert_array_equal(echoed, right)
    assert client.map("task_echo", numpy.arange(3), ["a", "b"]) == [[0, "a"], [1, "b"]]
    assert client.map("task_echo", numpy.arange(0)) == []


def test_columns_with_errors_among_the_results(client: Client) -> None:
    mixed = client.options(errors="return").map("task_count", numpy.arange(3))
    assert [type(result) for result in mixed] == [BadArguments] * 3
    with pytest.raises(UnknownTask):
        client.map("task_cont", numpy.arange(3))
    assert client.options(reply="none").map("task_count", numpy.arange(3), numpy.arange(3)) == [None] * 3


def test_an_array_is_a_value(client: Client) -> None:
    image = numpy.arange(300_000, dtype="u1").reshape(100, 1000, 3)
    came = client.call("task_echo", image, kept=True)["args"][0]
    numpy.testing.assert_array_equal(came, image)
    client.publish("array", image[0, :2])
    assert client.latest("array").tolist() == image[0, :2].tolist()
    with client.subscribe("array") as feed:
        assert feed.get(deadline(20)).value == image[0, :2].tolist()


def test_it_is_the_same_over_tcp(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client on the engine's machine, of its user, takes the Unix socket beside the port; others cannot."""
    used: list[str] = []

    def stay(address: str) -> str:
        used.append(address)
        return address

    assert nearest(engine.address).startswith("ipc://")
    monkeypatch.setattr(connection, "nearest", stay)
    with Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_count", 2, 3) == 2.5
        assert client.map("task_count", range(4001), range(4001)) == list(map(float, range(4001)))
        assert [client.submit("task_count", i, i).result(deadline(20)) for i in range(3)] == [0.0, 1.0, 2.0]
    assert used == [engine.address]


def test_publish_latest_and_subscribe(client: Client) -> None:
    client.publish("arm.left", 1)
    client.publish("arm.left", {"angle": 2.5})
    assert client.latest("arm.left") == {"angle": 2.5}
    with client.subscribe("arm.left") as late, client.subscribe("arm.*") as all_arms:
        # both have joined: what is published from here on, both see
        assert late.get(deadline(20)).value == {"angle": 2.5}
        assert all_arms.get(deadline(20)).number == 2
        client.publish("arm.right", 3)
        client.publish("arm.left", 4)
        sample = late.get(deadline(20))
        assert (sample.topic, sample.value, sample.number) == ("arm.left", 4, 3)
        assert {all_arms.get(deadline(20)).topic for _ in range(2)} == {"arm.left", "arm.right"}
    with pytest.raises(TaskFailed, match="nothing was published"):
        client.latest("never")


def test_built_in_sources_publish_something_true(client: Client) -> None:
    with client.subscribe("cpu.load") as load:
        assert load.get(deadline(20)).value >= 0.0


def test_progress_is_seen_while_it_runs(client: Client) -> None:
    before = client.info()
    package = threading.Thread(target=client.map, args=("task_sleep", [0.05] * 40))
    package.start()
    seen: list[Any] = []

    def halfway() -> bool:
        seen.extend(client.progress())
        return any(0 < done < parts for _, done, parts in seen)

    wait_until(halfway, 20, "some progress")
    package.join()
    assert client.progress() == []
    assert before.pid == client.info().pid


def test_without_data_workers_topics_are_refused() -> None:
    with (
        Engine(data_workers=0) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        with pytest.raises(Overloaded, match="DATA_WORKERS"):
            client.publish("x", 1)
        with pytest.raises(Overloaded, match="DATA_WORKERS"):
            client.subscribe("x")
