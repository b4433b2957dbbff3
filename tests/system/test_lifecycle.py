"""The real `python -m taskengine`: how it starts, ends and is broken on purpose."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq

from taskengine import Client, TaskEngineError, WorkerLost
from tests.engine import Engine, alive, children, deadline, serve_on_terminal, wait_until

pytestmark = pytest.mark.system


def start_refused(*flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an engine that must not start."""
    command = [sys.executable, "-m", "taskengine", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=deadline(30), cwd=cwd, check=False)


def test_it_prints_what_the_seed_prints() -> None:
    with Engine() as engine:
        ports = [engine.settings[name] for name in ("router_frontend", "router_backend", "starting_port")]
        pids = engine.pids()
        with Client(engine.address, timeout=deadline(20)) as client:
            client.map("task_count", range(63), range(63))
        wait_until(lambda: "Shipped" in engine.output(), 20, "the lines")
        assert engine.stop() == 0
        text = engine.output()
    assert text.startswith("[REGISTERED-TASKS]:\n[-] task_count\n")
    for line in (
        "### Type [ctrl-c] to exit and shutdown workers ###",
        f"Starting [ROUTER] on socket: 127.0.0.1:{ports[0]}",
        f"[ROUTER-{ports[0]}(FRONTEND)] Listener online",
        f"[ROUTER-{ports[1]}(BACKEND)] Listener online",
        "[ROUTER-MASTER] Routing started",
        f"Starting worker[TASK] on socket: 127.0.0.1:{ports[1]}",
        f"Starting worker[DATA] on socket: 127.0.0.1:{ports[2] + 2}",
        "Closing application and stopping services...",
    ):
        assert f"{line}\n" in text
    assert len(pids) == 4
    for pid in pids:
        assert f"Starting process [{pid}]: " in text
        assert f"Sucessfully terminated process [{pid}]: " in text
    assert text.count("(TASK)] Listener online") == 2
    assert "(FRONTEND)] Chunking: 63/10: {" in text
    # more where a worker was idle, and was given what another one had not begun
    assert sum("(TASK)] Received task: Package" in line for line in text.splitlines()) >= 8
    parts = [line.rpartition("Part: ")[2] for line in text.splitlines() if "Assembling" in line]
    assert parts == [f"{left}.0" for left in range(7, -1, -1)]


def test_without_enable_stdout_only_start_and_stop_are_printed() -> None:
    with Engine(enable_stdout="false") as engine:
        with Client(engine.address, timeout=deadline(20)) as client:
            client.map("task_count", range(63), range(63))
        engine.stop()
        text = engine.output()
    assert "Listener online" in text
    assert "Chunking" not in text
    assert "Received" not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_running_tasks_end(number: int) -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        results: list[Any] = []
        caller = threading.Thread(target=lambda: results.extend(client.map("task_sleep", [0.2] * 4)))
        caller.start()
        wait_until(client.progress, 20, "the package")
        assert engine.stop(number) == 0
        caller.join()
    assert results == [0.2] * 4


def test_draining_has_a_limit_and_the_rest_is_answered() -> None:
    with Engine(drain_time="0.2") as engine, Client(engine.address, timeout=deadline(20)) as client:
        failures: list[TaskEngineError] = []

        def call() -> None:
            try:
                client.call("task_sleep", 60)
            except TaskEngineError as error:
                failures.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        wait_until(client.progress, 20, "the package")
        assert engine.stop() == 0
        caller.join()
    assert "stopped before the task ended" in str(failures[0])


def test_a_killed_worker_is_replaced_and_its_tasks_are_answered() -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        results: list[Any] = []
        mapping = client.options(errors="return")
        caller = threading.Thread(target=lambda: results.extend(mapping.map("task_sleep", [0.05] * 40)))
        caller.start()
        wait_until(lambda: any(done for _, done, _ in client.progress()), 10, "the first chunk")
        victim = engine.pids("task")[0]
        os.kill(victim, signal.SIGKILL)
        caller.join()
        assert len(results) == 40
        lost = [result for result in results if isinstance(result, WorkerLost)]
        assert [error.worker for error in lost] == [f"TASK-{victim}"] * len(lost)
        assert len(lost) <= 1, "only the task that ran is lost"
        assert [result for result in results if not isinstance(result, WorkerLost)] == [0.05] * (40 - len(lost))
        wait_until(lambda: len(engine.pids("task")) == 2, 20, "a replacement")
        assert client.map("task_count", range(100), range(100)) == list(range(100))
        assert f"Process [{victim}] ended (SIGKILL): task worker" in engine.output()


def test_a_task_that_ends_its_process_is_answered(tmp_path: Path) -> None:
    (tmp_path / "poison.py").write_text("import os\n\ndef task_poison():\n    os._exit(7)\n")
    modules = f"{tmp_path / 'poison.py'},taskengine.tasks"
    with Engine(tasks=modules) as engine, Client(engine.address, timeout=deadline(20)) as client:
        for _ in range(3):
            with pytest.raises(WorkerLost):
                client.call("task_poison")
        assert client.call("task_count", 2, 3) == 2.5


def test_a_worker_is_replaced_although_what_its_task_forked_has_its_files(tmp_path: Path) -> None:
    """The child has all that the worker had open; one that closes all that is no death."""
    (tmp_path / "forks.py").write_text(
        "import os, time\n\n"
        "def task_fork():\n    pid = os.fork()\n    if not pid:\n        time.sleep(60)\n        os._exit(0)\n"
        "    return pid\n\n"
        "def task_close(sign):\n    os.closerange(3, 9999)\n    os.mkdir(sign)\n    time.sleep(60)\n"
    )
    modules = f"{tmp_path / 'forks.py'},taskengine.tasks"
    with Engine(tasks=modules) as engine, Client(engine.address, timeout=deadline(20)) as client:
        forked = client.call("task_fork")
        victims = engine.pids("task")
        sign = tmp_path / "closed"
        closing = client.submit("task_close", str(sign))
        wait_until(sign.exists, 20, "the task that closes everything")
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):  # ZeroMQ may have noticed what was closed, and ended it
                os.kill(victim, signal.SIGKILL)
        assert isinstance(closing.exception(deadline(20)), WorkerLost)
        wait_until(lambda: len(set(engine.pids("task")) - set(victims)) == 2, 20, "replacements")
        assert client.call("task_count", 2, 3) == 2.5
        wait_until(lambda: not alive(forked), 5, "the end of what the task forked")


def test_a_killed_data_worker_is_replaced() -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        victim = engine.pids("data")[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: engine.pids("data") not in ([], [victim]), 20, "a replacement")
        client.publish("x", 1)
        with client.subscribe("x") as feed:
            assert feed.get(deadline(20)).value == 1


def test_a_killed_router_comes_back_and_its_workers_stay() -> None:
    with Engine() as engine, Client(engine.address, timeout=0.5) as client:
        workers = engine.pids("worker")
        os.kill(engine.pids("router")[0], signal.SIGKILL)

        def answers() -> bool:
            try:
                return bool(client.call("task_count", 2, 3))
            except TaskEngineError:
                return False

        wait_until(answers, 20, "the new router")
        assert len(engine.pids()) == 4
        assert engine.pids("worker") == workers


def test_nothing_outlives_a_killed_supervisor() -> None:
    with Engine() as engine:
        pids = engine.pids()
        engine.process.kill()
        engine.process.wait()
        wait_until(lambda: not any(map(alive, pids)), 2, "the end of the children")


def test_ports_taken_start_nothing(tmp_path: Path) -> None:
    with Engine() as engine:
        frontend = str(engine.settings["router_frontend"])
        refused = start_refused("--router-frontend", frontend, "--starting-port", "31990", cwd=tmp_path)
    assert refused.returncode == 1
    assert f"cannot listen on 127.0.0.1:{frontend}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "Starting" not in refused.stdout


def test_a_module_that_fails_to_import_is_left_out(tmp_path: Path) -> None:  # broke in the seed's first implementation
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "fine.py").write_text("def task_fine():\n    return 'fine'\n")
    with Engine(tasks=tmp_path) as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_fine") == "fine"
        assert "Left out: task module" in engine.output()
        assert "broken.py: ModuleNotFoundError: No module named 'no_such_module'" in engine.output()


def test_it_binds_only_where_it_was_told(tmp_path: Path) -> None:  # broke: every interface was bound
    with Engine() as engine:
        lines = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        port = f"{int(engine.settings['router_frontend']):04X}"
        listening = [line.split()[1] for line in lines.splitlines()[1:] if line.split()[3] == "0A"]
        assert [address for address in listening if address.endswith(f":{port}")] == [f"0100007F:{port}"]
    keys = ("--keys", str(tmp_path / "keys"))
    for flags, said in (((), "taskengine keys pair"), (("--curve", "off"), "--insecure")):
        refused = start_refused("--host", "0.0.0.0", *keys, *flags, cwd=tmp_path)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_it_serves_on_the_other_loopback() -> None:
    with Engine(host="::1") as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_count", 2, 3) == 2.5
        client.publish("x", 1)
        with client.subscribe("x") as feed:
            assert feed.get(deadline(20)).value == 1


def test_a_full_disk_stops_no_task(tmp_path: Path) -> None:
    with Engine() as engine:
        settings = engine.settings
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskengine", "serve", *flags], stdout=full, stderr=full, cwd=tmp_path
        )
        with Client(f"tcp://127.0.0.1:{settings['router_frontend']}", timeout=deadline(20)) as client:
            for _ in range(3):
                assert client.map("task_count", range(1000), range(1000)) == list(range(1000))
        process.terminate()
        assert process.wait(deadline(20)) == 0


def test_an_engine_without_any_terminal_serves(tmp_path: Path) -> None:
    with Engine() as engine:
        settings = engine.settings
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "taskengine", "serve", *flags]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], cwd=tmp_path)
    with Client(f"tcp://127.0.0.1:{settings['router_frontend']}", timeout=deadline(20)) as client:
        for _ in range(3):
            assert client.map("task_count", range(1000), range(1000)) == list(range(1000))
        links = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
    assert links == [os.devnull] * 3
    process.terminate()
    assert process.wait(deadline(20)) == 0


def test_a_terminal_that_nobody_reads_stops_no_task(tmp_path: Path) -> None:
    with Engine() as engine:
        settings = engine.settings
    flags = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    process = subprocess.Popen(
        [sys.executable, "-m", "taskengine", "serve", *flags], stdout=subprocess.PIPE, cwd=tmp_path
    )
    with Client(f"tcp://127.0.0.1:{settings['router_frontend']}", timeout=deadline(20)) as client:
        for _ in range(30):
            assert client.map("task_count", range(4000), range(4000)) == list(range(4000))
    process.terminate()
    assert process.wait(deadline(20)) == 0
    assert process.stdout is not None
    process.stdout.close()


def _answers(host: str, port: object) -> bool:
    """Somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((host, int(str(port)))) == 0


def test_workers_are_met_at_a_port_of_loopback_and_only_where_there_is_no_unix_socket(tmp_path: Path) -> None:
    with Engine() as engine:
        assert engine.backend.startswith("ipc://")
        assert not _answers("127.0.0.1", engine.settings["router_backend"])
    deep = tmp_path / ("x" * 107)
    deep.mkdir()
    env = {"XDG_RUNTIME_DIR": str(deep)}
    with Engine(env=env, host="0.0.0.0", curve="off", insecure="true") as engine:
        assert _answers("127.0.0.2", engine.settings["router_frontend"])
        assert _answers("127.0.0.1", engine.settings["router_backend"])
        assert not _answers("127.0.0.2", engine.settings["router_backend"])


@pytest.mark.parametrize("side", ["address", "backend"])
def test_garbage_on_either_side_stops_nobody(side: str) -> None:
    with Engine() as engine, Client(engine.address, timeout=deadline(20)) as client:
        context = zmq.Context()
        stranger: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        stranger.linger = 0
        stranger.connect(getattr(engine, side))
        for frames in (
            [b""],
            [b"", b""],
            [b"\0" * 100],
            [b"HELLO", b""],
            [b"HELLO", b"nowhere"],
            [os.urandom(50)] * 30,
        ):
            stranger.send_multipart(frames)
        for head in (b"TE\x02", b"TE\x02\x91\x01", b"TE\x02\xdd\xff\xff\xff\xff", b"TE\x02" + os.urandom(40)):
            stranger.send_multipart([head, b"\1", b"\xc1"])
        assert client.map("task_count", range(100), range(100)) == list(range(100))
        stranger.close()
        context.term()


def test_what_a_task_prints_is_seen_at_once(tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text("def task_talk():\n    print('hello from a task')\n")
    with Engine(tasks=tmp_path / "talk.py") as engine, Client(engine.address, timeout=deadline(20)) as client:
        client.call("task_talk")
        # by way of the supervisor, which alone writes
        wait_until(lambda: "hello from a task\n" in engine.output(), 5, "the line")
        assert "hello from a task\n" in engine.output()


def test_lanes_have_workers_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "arm.py").write_text(
        "import os, time\nfrom taskengine import task\n\n"
        "seen = []\n\n"
        "@task(lane='arm')\ndef step(i):\n    seen.append(i)\n    return os.getpid()\n\n"
        "@task(lane='arm')\ndef steps():\n    return list(seen)\n\n"
        "@task\ndef other():\n    return os.getpid()\n"
    )
    with Engine(tasks=tmp_path / "arm.py") as engine, Client(engine.address, timeout=deadline(20)) as client:
        calls: list[Any] = [(name, args, {}) for i in range(200) for name, args in (("step", (i,)), ("other", ()))]
        pids = client.run(calls)
        assert len(set(pids[::2])) == 1
        assert not set(pids[::2]) & set(pids[1::2])
        assert client.call("steps") == list(range(200))


def slow_to_load(folder: Path) -> tuple[Path, Path]:
    """A task module that says that it is being loaded, and then takes a minute."""
    module, sign = folder / "slow.py", folder / "loading"
    module.write_text(f"import os, time\nopen({str(sign)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    return module, sign


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_an_engine_that_is_ended_while_modules_load(tmp_path: Path, number: int) -> None:
    module, sign = slow_to_load(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "taskengine", "serve", "--tasks", str(module)], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: sign.exists() and sign.read_text(), 20, "the module to be loaded")
        process.send_signal(number)
        assert process.wait(deadline(5)) == (-number if number == signal.SIGKILL else 0)
    wait_until(lambda: not alive(int(sign.read_text())), 2, "the end of the process that loads")


def test_what_a_task_starts_hears_signals(tmp_path: Path) -> None:
    module = tmp_path / "starts.py"
    module.write_text(
        "import subprocess\n\n"
        "def task_starts():\n"
        "    process = subprocess.Popen(['sleep', '60'])\n"
        "    process.terminate()\n"
        "    return process.wait(30)\n"
    )
    with Engine(tasks=module) as engine, Client(engine.address, timeout=deadline(20)) as client:
        assert client.call("task_starts") == -signal.SIGTERM


def test_a_worker_that_dies_while_draining_is_answered(tmp_path: Path) -> None:
    module = tmp_path / "stays.py"
    module.write_text("import os, time\n\ndef task_stay(sign):\n    os.mkdir(sign)\n    time.sleep(60)\n")
    sign = tmp_path / "sign"
    with (
        Engine(tasks=module, drain_time=deadline(20)) as engine,
        Client(engine.address, timeout=deadline(20)) as client,
    ):
        future = client.submit("task_stay", str(sign))
        wait_until(sign.exists, 20, "the task")
        engine.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Closing application" in engine.output(), 20, "the drain")
        for pid in engine.pids("task"):
            os.kill(pid, signal.SIGKILL)
        assert isinstance(future.exception(deadline(5)), WorkerLost)
        assert engine.process.wait(deadline(5)) == 0


def test_a_module_that_loads_only_once_is_named_by_the_worker_that_misses_it(tmp_path: Path) -> None:
    module = tmp_path / "once.py"
    module.write_text(f"import os\nos.mkdir({str(tmp_path / 'busy')!r})\n\ndef task_once():\n    pass\n")
    with Engine(tasks=f"{module},taskengine.tasks") as engine, Client(engine.address, timeout=deadline(20)) as client:
        wait_until(lambda: engine.output().count("(TASK)] Left out: task module") == 1, 20, "the line of one worker")
        assert [client.call("task_once") for _ in range(20)] == [None] * 20


def test_an_engine_ends_with_the_terminal_that_it_was_started_on() -> None:
    process, ours, first = serve_on_terminal()
    with Client(f"tcp://127.0.0.1:{first}", timeout=deadline(20)) as client:
        assert client.call("task_count", 2, 3) == 2.5
    pids = children(process.pid)
    os.close(ours)
    assert process.wait(deadline(20)) == 0
    wait_until(lambda: not any(map(alive, pids)), 2.0, "the end of its processes")
