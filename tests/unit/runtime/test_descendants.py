"""Processes that the engine's processes start end with them: real ones, below a process that plays the supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine._descendants import children_of, end_descendants
from taskengine.runtime.procfs import is_stopped
from tests.engine import alive, cpu_seconds, deadline, wait_until

SUPERVISOR = """
import contextlib, os, select, signal, subprocess, sys, time
from taskengine.runtime.descendants import MOST_ENDED, Adopted, orphans
from taskengine.runtime.memory import new_page
from taskengine.supervisor.child import Child

def start(target, *, page=None):
    child = Child("child", lambda control, journal: target(), (), enable_stdout=True, page=page or new_page())
    child.start()
    return child

def go_on(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        orphans.look(time.monotonic())
        time.sleep(0.001)

def leave():
    "Start what ends by itself only in a minute, in every way; say which processes they are."
    script = "echo $$; sleep 60 & echo $!; (sleep 60 & echo $!); exec sleep 60"
    subprocess.Popen(["sh", "-c", script])
    subprocess.Popen(["sh", "-c", f"trap '' TERM INT HUP; {script}"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(1, f"{os.getpid()}\\n".encode())  # at once: others write there too
        time.sleep(60)
        os._exit(0)
"""
LEFT = 7


@contextlib.contextmanager
def playing(script: str, left: int = LEFT) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A supervisor by that script, and the processes that it names first."""
    command = [sys.executable, "-c", SUPERVISOR + textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(left)]
        try:
            yield process, pids
        finally:
            process.kill()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def run(script: str) -> str:
    """Return the output of a supervisor with that script."""
    command = [sys.executable, "-c", SUPERVISOR + textwrap.dedent(script)]
    done = subprocess.run(command, input="", stdout=subprocess.PIPE, text=True, timeout=deadline(30), check=True)
    return done.stdout


def have_ended(pids: list[int]) -> None:
    wait_until(lambda: not any(map(alive, pids)), 5, f"the end of {[pid for pid in pids if alive(pid)]}")


@pytest.mark.parametrize("end", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "None", "sys.exit(1)"])
def test_what_a_worker_has_started_ends_with_it(end: str) -> None:
    script = f"""
    def target():
        leave()
        time.sleep({deadline(0.5)})
        {end}
    orphans.begin(is_init=False)
    child = start(target)
    select.select([child.pidfd], [], [])
    child.close()
    for _ in range(20):
        if orphans.is_hunting:
            go_on(0.5)
    print("hunting" if orphans.is_hunting else "done", flush=True)
    time.sleep(60)
    """
    with playing(script) as (process, pids):
        assert process.stdout is not None
        assert len(set(pids)) == LEFT
        assert process.stdout.readline() == "done\n"
        have_ended(pids)


@pytest.mark.parametrize(
    "state", ["", "os.closerange(3, 4096)", "os.kill(os.getpid(), signal.SIGSTOP)", "signal.pthread_sigmask(2, [])"]
)
def test_what_a_worker_has_started_ends_with_a_killed_supervisor(state: str) -> None:
    script = f"""
    def target():
        leave()
        {state}
        time.sleep(60)
    orphans.begin(is_init=False)
    start(target)
    time.sleep(60)
    """
    with playing(script) as (process, pids):
        assert process.stdout is not None
        [(worker, _)] = children_of(process.pid)
        assert all(map(alive, pids))
        wait_until(lambda: is_stopped(worker) or "STOP" not in state, 10, "the stop")
        process.kill()
        have_ended([worker, *pids])


def test_a_task_that_keeps_the_interpreter_keeps_nothing_alive() -> None:
    script = """
    def target():
        leave()
        import re
        re.match("(a*)*b", "a" * 40)
    start(target)
    time.sleep(60)
    """
    with playing(script) as (process, pids):
        process.kill()
        have_ended(pids)


@pytest.mark.parametrize(
    ("busy", "said"), [("time.sleep(60)", "safe before 5 ended"), ("__import__('re').match('(a*)*b', 'a' * 40)", "")]
)
def test_what_an_owner_of_pins_has_started_ends_after_its_pins_are_safe(busy: str, said: str) -> None:
    script = f"""
    from taskengine._descendants import children_of
    from taskengine.runtime.orphan import orphan
    def rest():
        living = [pid for pid, has_ended in children_of(os.getpid()) if not has_ended]
        print(f"safe before {{len(living)}} ended", flush=True)
    def target():
        leave()
        time.sleep({deadline(0.5)})
        orphan.first(rest)
        print(os.getpid(), flush=True)
        {busy}
    child = Child("owner", lambda control, journal: target(), (), enable_stdout=True, page=new_page(), rests=True)
    child.start()
    time.sleep(60)
    """
    with playing(script) as (process, pids):
        assert process.stdout is not None
        owner = int(process.stdout.readline())
        begun = cpu_seconds(owner)
        wait_until(lambda: said or cpu_seconds(owner) > begun + 0.1, 10, "an owner that keeps the interpreter")
        process.kill()
        have_ended(pids)
        assert process.stdout.readline() == (f"{said}\n" if said else "")


def test_what_forks_without_end_ends_too() -> None:
    script = """
    def target():
        print(os.getpid(), flush=True)
        while os.getppid() != 1:
            if os.fork():
                time.sleep(0.0005)
                os._exit(0)
    orphans.begin(is_init=False)
    child = start(lambda: os.fork() or target() or time.sleep(60))
    sys.stdin.readline()
    child.process.kill()
    select.select([child.pidfd], [], [])
    child.close()
    for _ in range(20):  # on a busy machine it is born anew for a while
        if orphans.is_hunting:
            go_on(1)
    print("hunting" if orphans.is_hunting else "done", flush=True)
    """
    with playing(script, left=1) as (process, _):
        assert process.stdout is not None
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "done\n"


def test_a_stranger_is_reaped_and_not_killed() -> None:
    """PID 1 has the orphans of the whole container; a program may have children before it becomes the supervisor."""
    said = run("""
    before = subprocess.Popen(["sleep", "60"]).pid
    orphans.begin(is_init=True)
    worker = start(lambda: time.sleep(60))
    stranger = subprocess.Popen(["sleep", "60"]).pid
    ended = subprocess.Popen(["true"]).pid
    time.sleep(0.2)
    orphans.due = 0.0
    go_on(0.1)
    worker.process.kill()
    select.select([worker.pidfd], [], [])
    worker.close()
    go_on(0.2)
    print([pid for pid in (before, stranger, ended) if os.path.exists(f"/proc/{pid}")] == [before, stranger])
    os.kill(before, signal.SIGKILL)
    os.kill(stranger, signal.SIGKILL)
    time.sleep(0.2)
    orphans.due = 0.0
    go_on(0.1)
    print([pid for pid in (before, stranger) if os.path.exists(f"/proc/{pid}")])
    """)
    assert said.splitlines() == ["True", "[]"]


def test_nothing_is_killed_by_a_process_that_is_no_supervisor() -> None:
    said = run("""
    other = subprocess.Popen(["sleep", "60"])
    worker = start(lambda: time.sleep(60))
    worker.process.kill()
    select.select([worker.pidfd], [], [])
    worker.close()
    go_on(0.1)
    print(other.poll())
    other.kill()
    """)
    assert said == "None\n"


def test_what_tasks_left_is_reaped_and_what_they_ask_for_is_not() -> None:
    said = run("""
    def target():
        asked = subprocess.Popen(["sh", "-c", "exit 7"])
        for _ in range(2 * MOST_ENDED):
            os.system("true &")
        time.sleep(0.3)
        Adopted().tidy()
        ended = 0
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                state, parent = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[:2]
                ended += state == "Z" and int(parent) == os.getpid()
        print(ended, asked.wait(), flush=True)
    child = start(target)
    select.select([child.pidfd], [], [])
    """)
    assert said == "1 7\n"


def test_pools_processes_and_managers_work_in_a_worker() -> None:
    said = run("""
    def target():
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with multiprocessing.Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
        with ProcessPoolExecutor(1) as executor:
            print(executor.submit(abs, -3).result())
        with multiprocessing.Manager() as manager:
            print(manager.list([4])[0])
        for _ in range(20):
            process = multiprocessing.Process(target=time.sleep, args=(60,))
            process.start()
            process.terminate()  # at once: it may not have run yet
            process.join(20)
            assert process.exitcode == -signal.SIGTERM
        print("done", flush=True)
    child = start(target)
    select.select([child.pidfd], [], [])
    child.close()
    """)
    assert said.split() == ["[1,", "2]", "3", "4", "done"]


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_process_of_its_task() -> None:
    said = run("""
    import multiprocessing
    def target():
        multiprocessing.Process(target=time.sleep, args=(60,)).start()
    orphans.begin(is_init=False)
    child = start(target)
    print(bool(select.select([child.pidfd], [], [], 20)[0]))
    child.close()
    for _ in range(20):
        if orphans.is_hunting:
            go_on(0.5)
    print(orphans.is_hunting)
    """)
    assert said.split() == ["True", "False"]


def test_a_worker_hears_nothing_of_the_terminal() -> None:
    said = run("""
    def target():
        print(os.getpgrp() != os.getpgid(os.getppid()), os.getpgrp() == os.getpid(), os.readlink("/proc/self/fd/0"))
        print(subprocess.run(["cat"]).returncode)
        print(signal.getsignal(signal.SIGTTIN) == signal.SIG_IGN, flush=True)
    child = start(target)
    select.select([child.pidfd], [], [])
    """)
    assert said.split() == ["True", "True", "/dev/null", "0", "True"]


def test_the_end_of_what_descends_leaves_its_root() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60 & wait"]) as root:
        wait_until(lambda: len(children_of(root.pid)) == 2, 5, "its children")
        below = [pid for pid, _ in children_of(root.pid)]
        assert end_descendants(root.pid)
        have_ended(below)
        assert root.wait(deadline(5)) is not None


def test_a_name_is_no_state(tmp_path: Path) -> None:
    """A process may be named as it likes."""
    name = tmp_path / ") Z 1 ("
    name.symlink_to("/bin/sleep")
    with subprocess.Popen([name, "60"]) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == ") Z 1 (\n", 5, "its name")
        assert (process.pid, False) in children_of(os.getpid())
        process.kill()
