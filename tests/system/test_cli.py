"""The `taskengine` command as a user, or a script, sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from taskengine import NotAllowed
from taskengine.protocol.messages import RequestKind
from taskengine.security.keys import new_pair
from tests.engine import Engine, deadline, free_ports, wait_until
from tests.integration.listener import Listener

Result = subprocess.CompletedProcess[str]


def run(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None, said: str | None = None) -> Result:
    return subprocess.run(
        [sys.executable, "-m", "taskengine", *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=deadline(30),
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def one_line(result: Result) -> str:
    """The one line on stderr of a command that said no."""
    (line,) = result.stderr.splitlines()
    assert line.startswith("taskengine: ")
    assert result.stdout == ""
    return line


@pytest.fixture
def at(engine: Engine) -> list[str]:
    return ["--address", engine.address]


def test_call(at: list[str]) -> None:
    assert run("call", "task_count", "2", "3", *at).stdout == "2.5\n"


def test_arguments_are_json_where_they_parse_as_json(at: list[str]) -> None:
    result = run("call", "task_echo", '{"a": [1, null]}', "plain text", "-5", "-k", "x=true", "-k", "y=word", *at)
    assert json.loads(result.stdout) == {"x": True, "y": "word", "args": [{"a": [1, None]}, "plain text", -5]}


def test_count_repeats_the_call_as_one_package(at: list[str]) -> None:
    assert json.loads(run("call", "task_count", "2", "3", "--count", "4000", *at).stdout) == [2.5] * 4000
    assert run("call", "task_count", "2", "3", "--count", "0", *at).stdout == "[]\n"


def test_stop_needs_nothing_but_an_answer() -> None:
    with Listener(lambda heard: None) as engine:
        stopped = run("stop", "--address", engine.address, "--why", "smoke")
        assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
        assert engine.heard[0].request.kind == RequestKind.STOP
        assert b"smoke" in engine.heard[0].body[0]
        assert not engine.requests(RequestKind.INFO)


def test_stop_goes_by_the_stop_port_where_no_router_answers() -> None:
    with Listener(lambda heard: None) as port:
        nowhere = f"tcp://127.0.0.1:{free_ports(1)}"
        assert run("stop", "--address", nowhere, "--stop-address", port.address).returncode == 0


def test_stop_says_why_it_did_not() -> None:
    refused = NotAllowed("you may not call system.stop")
    with Listener(lambda heard: refused) as engine:
        result = run("stop", "--address", engine.address)
        assert (result.returncode, one_line(result)) == (1, f"taskengine: NotAllowed: {refused}")
    result = run("stop", "--address", f"tcp://127.0.0.1:{free_ports(1)}", "--timeout", "0.3")
    assert result.returncode == 1
    assert "no engine answers" in one_line(result)
    assert run("stop", "--address", "foo").returncode == 2


def test_an_engine_without_hardware_has_nothing_to_stop(at: list[str]) -> None:
    result = run("stop", *at)
    assert result.returncode == 1
    assert "UnknownTask" in one_line(result)


def test_an_arm_by_hand_names_the_stop_that_it_undoes() -> None:
    with Listener(lambda heard: None) as engine:
        engine.stop = 4
        run("call", "system.arm", "--address", engine.address)
        run("call", "system.arm", "3", "--address", engine.address)
        calls = [msgspec.msgpack.decode(heard.body[1]) for heard in engine.heard if heard.request.names]
        assert [call[1:] for call in calls] == [[[], {"stop": 4}], [[3]]]


def test_what_is_no_address_is_wrong_usage() -> None:
    result = run("call", "task_count", "2", "3", "--address", "foo")
    assert result.returncode == 2
    assert "tcp://HOST:PORT" in one_line(result)


def test_task_modules_may_lie_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("def task_here():\n    pass\n")
    command = Path(sys.executable).with_name("taskengine")
    result = subprocess.run(
        [command, "check", "--tasks", "here"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "task task_here()" in result.stdout


def test_a_task_that_says_no(at: list[str]) -> None:
    failed = run("call", "task_fail", "boom", *at)
    assert (failed.returncode, one_line(failed)) == (1, "taskengine: TaskFailed: RuntimeError: boom")
    unknown = run("call", "task_cont", *at)
    assert unknown.returncode == 1
    assert "did you mean task_count" in one_line(unknown)
    some = run("call", "task_fail", "--count", "3", *at)
    assert (some.returncode, "3 of 3 failed" in one_line(some)) == (1, True)


def test_a_timeout(at: list[str]) -> None:
    late = run("call", "task_sleep", "5", "--timeout", "1", *at)
    assert (late.returncode, one_line(late)) == (1, "taskengine: TaskTimeout: no reply in 1 s")


def test_no_engine() -> None:
    alone = run("call", "task_count", "2", "3", "--address", f"tcp://127.0.0.1:{free_ports(1)}")
    assert alone.returncode == 1
    assert "`taskengine serve` starts one" in one_line(alone)


def test_tasks(at: list[str]) -> None:
    assert "task_count(a: float, b: float)" in run("tasks", *at).stdout
    assert "task_sleep" in {task["name"] for task in json.loads(run("tasks", "--json", *at).stdout)}


def test_publish_and_subscribe(at: list[str]) -> None:
    assert run("publish", "arm.left", '{"angle": 2.5}', *at).returncode == 0
    assert run("subscribe", "arm.left", "--count", "1", *at).stdout == '{"angle":2.5}\n'
    assert run("subscribe", "arm.*", "--newest", "--count", "1", *at).stdout == '{"arm.left":{"angle":2.5}}\n'


def test_check_says_what_would_be_served(tmp_path: Path) -> None:
    fine = run("check", cwd=tmp_path)
    assert fine.returncode == 0
    assert all(line.startswith("taskengine: warning: ") for line in fine.stderr.splitlines())
    assert "task task_count(a: float, b: float) -> float\n" in fine.stdout
    assert "source cpu.load\n" in fine.stdout


def test_check_warns_of_what_weakens_the_engine(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "robot.py").write_text("def task_x(): pass\n")
    (tmp_path / "taskengine.toml").write_text('tasks = ["robot.py"]\n')
    before = run("check", cwd=tmp_path).stderr
    if os.geteuid():  # root refuses to load those
        for name in ("robot.py", "taskengine.toml"):
            (tmp_path / name).chmod(0o666)
    weak = run("check", "--host", "0.0.0.0", "--curve", "off", "--insecure", "--tracebacks", "on", cwd=tmp_path)
    assert weak.returncode == 0, "a warning is no error"
    of_modes = ("change the settings", "what tasks do", str(tmp_path / "robot.py")) if os.geteuid() else ()
    for text in ("INSECURE: anybody", "CURVE is off", "TRACEBACKS", *of_modes):
        assert text in weak.stderr
        assert text not in before
    assert ("tasks run as root" in before) == (os.geteuid() == 0)


def test_check_names_a_module_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def task_x(:\n")
    broken = run("check", "--tasks", "broken.py,taskengine.tasks", cwd=tmp_path)
    assert broken.returncode == 2
    assert "broken.py: SyntaxError" in broken.stderr
    assert "task task_count" in broken.stdout


def test_check_survives_a_module_that_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)\ndef task_x(): ...\n")
    deadly = run("check", "--tasks", "deadly.py,taskengine.tasks", cwd=tmp_path)
    assert deadly.returncode == 2
    assert "task module deadly.py: it ended the process that loaded it (exit code 3)" in deadly.stderr
    assert "task task_count" in deadly.stdout


def test_settings_come_from_four_places(tmp_path: Path) -> None:
    (tmp_path / "taskengine.toml").write_text("chunking_size = 0\n")
    wrong = run("check", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "chunking_size" in one_line(wrong)
    assert "taskengine.toml, line 1" in one_line(wrong)
    assert run("check", cwd=tmp_path, env={"TASKENGINE_CHUNKING_SIZE": "5"}).returncode == 2
    assert run("--chunking-siz", "5", cwd=tmp_path).returncode == 2
    wrong = run("check", cwd=tmp_path, env={"TASKENGINE_CHUNKNG_SIZE": "5"})
    assert (wrong.returncode, "TASKENGINE_CHUNKING_SIZE" in one_line(wrong)) == (2, True)
    wrong = run("serve", "--config", "nowhere.toml", cwd=tmp_path)
    assert (wrong.returncode, "nowhere.toml" in one_line(wrong)) == (2, True)


@pytest.mark.parametrize("command", ["serve", "call", "tasks", "subscribe", "publish", "check", "bench"])
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: taskengine {command}")


def test_wrong_usage() -> None:
    for arguments in (["dance"], ["keys"], ["call"], ["call", "x", "-k", "novalue"], ["call", "x", "--count", "-1"]):
        result = run(*arguments)
        assert result.returncode == 2, arguments
        assert one_line(result).endswith("--help` says how")


def test_start_engine_starts_the_same() -> None:
    script = Path(__file__).resolve().parents[2] / "start_engine.py"
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=False)
    assert (result.returncode, "serve" in result.stdout) == (0, True)


@pytest.mark.parametrize("command", [["call", "task_sleep", "60"], ["call", "task_sleep", "60", "--count", "2"]])
def test_ctrl_c_does_not_wait(command: list[str]) -> None:
    with Engine(drain_time="0.1") as engine:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskengine", *command, "--address", engine.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: "Chunking: " in engine.output(), 20, "the call")
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        assert process.communicate(timeout=deadline(30)) == (b"", b"")
        assert process.returncode == 130
        assert time.monotonic() - started < deadline(3), "it waited for the reply"


def test_a_reader_that_leaves_early_is_no_error(at: list[str]) -> None:
    command = f"{sys.executable} -m taskengine call task_count 2 3 --count 100000 {' '.join(at)} | head -c 10"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=deadline(30), check=False)
    assert (result.stdout, result.stderr) == ("[2.5,2.5,2", "")


def test_the_setting_keys_is_where_the_keys_are(tmp_path: Path) -> None:
    env = {"TASKENGINE_KEYS": str(tmp_path / "keys")}
    assert run("keys", "pair", "laptop", "--line", "--address", "tcp://robot:9000", env=env).returncode == 0
    assert (tmp_path / "keys").is_dir()
    assert run("keys", "list", env=env).stdout.startswith("client laptop ")


def test_a_key_may_begin_as_an_option_does(tmp_path: Path) -> None:
    public = next(key for key in iter(lambda: new_pair().public, "") if key.startswith("-"))
    folder = ["--keys", str(tmp_path / "robot")]
    assert run("keys", "allow", "desk", public, *folder).returncode == 0
    assert run("keys", "list", *folder).stdout.startswith("client desk ")
    assert run("keys", "allow", "desk2", public[1:], *folder).returncode == 2


def test_keys_from_the_robot_to_the_laptop(tmp_path: Path) -> None:
    robot, laptop = (["--keys", str(tmp_path / name)] for name in ("robot", "laptop"))
    with Engine(curve="on", keys=tmp_path / "robot") as engine:
        paired = run("keys", "pair", "laptop", "--line", "--address", engine.address, *robot)
        assert "secret key" in paired.stderr
        accepted = run("keys", "accept", *laptop, said=paired.stdout)
        assert accepted.stdout == f"{engine.address} knows this machine as laptop\n"
        call = ["call", "task_count", "2", "3", "--address", engine.address]
        assert run(*call, *laptop).stdout == "2.5\n"
        refused = run(*call)
        assert refused.returncode == 1
        assert "keys pair" in one_line(refused)
        listed = run("keys", "list", *robot).stdout
        assert listed.startswith("client laptop ")
        fingerprint = run("keys", "list", *laptop).stdout.split()[-1]
        assert listed.split()[-1] == fingerprint
        assert run("keys", "revoke", "laptop", *robot).returncode == 0
        assert run("keys", "list", *robot).stdout == ""
        refused = run(*call, *laptop)
        assert "keys pair" in one_line(refused)
    shown = run("keys", "show", *robot).stdout.split()
    made = subprocess.run(
        [sys.executable, "-m", "taskengine", "keys", "new", "desk", "--address", engine.address, *laptop],
        input=f"{shown[0]}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert run("keys", "allow", "desk", made.stdout.strip(), *robot).returncode == 0
    assert run("keys", "list", *robot).stdout.startswith("client desk ")
    audit = [json.loads(line) for line in (tmp_path / "robot" / "audit.jsonl").read_text().splitlines()]
    told = [(line["event"], line["client"]) for line in audit if line["event"].startswith("keys ")]
    assert told == [("keys pair", "laptop"), ("keys revoke", "laptop"), ("keys allow", "desk")]


def test_wrong_keys_are_one_line_and_wrong_usage(tmp_path: Path) -> None:
    folder = ["--keys", str(tmp_path / "keys")]
    for command in (["accept", "nonsense"], ["revoke", "nobody"], ["allow", "../x", "y"]):
        result = run("keys", *command, *folder)
        assert result.returncode == 2
        one_line(result)
    result = run("call", "task_count", "2", "3", *folder)
    assert result.returncode == 2
    assert "has no key for" in one_line(result)
