"""The settings: four places, one precedence, and errors that name key, place and what was expected."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from taskengine.config import loading, settings
from taskengine.config.descriptions import rows
from taskengine.config.lane_size import LaneSize
from taskengine.config.loading import load
from taskengine.config.policy import Entry
from taskengine.config.settings import Settings
from taskengine.errors import SettingsError

Toml = Callable[[str], Path]
LANES = "a map of names to numbers of workers, or to {workers, concurrency}, each 1 to 1024, such as arm=1,io=1x100"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    def write(text: str) -> Path:
        path = tmp_path / "robot.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(
    config: Path | None = None, env: dict[str, str] | None = None, flags: dict[str, object] | None = None
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(config, env or {}, flags or {})
    return str(caught.value)


def test_defaults_are_the_contract() -> None:
    loaded = load(None, {"PATH": "/bin"}, {})
    assert loaded == Settings()
    assert {row.name: row.default for row in rows()} == {
        "HOST": '"127.0.0.1"',
        "TASK_WORKERS": "2",
        "DATA_WORKERS": "1",
        "RESPONSE_TIME": "0.005",
        "CHUNKING": "true",
        "CHUNKING_SIZE": "10",
        "ENABLE_STDOUT": "true",
        "LOG_LEVEL": '"info"',
        "LOG_FORMAT": '"text"',
        "RECORD_COMMANDS": "false",
        "RECORD": '""',
        "RECORD_BYTES": "1073741824",
        "TASKS": '["taskengine.tasks"]',
        "LANES": "{}",
        "ROUTER_FRONTEND": "9000",
        "ROUTER_BACKEND": "9001",
        "STARTING_PORT": "10000",
        "METRICS_PORT": "0",
        "STOP_PORT": "9002",
        "PINS": '"auto"',
        "DRAIN_TIME": "5.0",
        "HEARTBEAT_INTERVAL": "0.5",
        "HEARTBEAT_LIMIT": "3.0",
        "QUEUE_TASKS": "4194304",
        "QUEUE_BYTES": "268435456",
        "CLIENT_TASKS": "2097152",
        "CLIENT_BYTES": "134217728",
        "QUEUE_PACKAGES": "65536",
        "CLIENT_PACKAGES": "32768",
        "PACKAGE_TASKS": "2097152",
        "MESSAGE_BYTES": "68157440",
        "PIN_BYTES": "65536",
        "VALUE_DEPTH": "64",
        "CONNECTIONS": "4096",
        "HANDSHAKE_TIME": "5.0",
        "ROUTER_MEMORY": "0",
        "WORKER_MEMORY": "0",
        "CURVE": '"auto"',
        "KEYS": '""',
        "AUDIT": '""',
        "INSECURE": "false",
        "USER": '""',
        "GROUP": '""',
        "TRACEBACKS": '"auto"',
        "TRUST_CLOCK": "false",
    }


def test_default_addresses_are_the_seeds() -> None:
    assert Settings().frontend == "tcp://127.0.0.1:9000"
    assert Settings().backend == "tcp://127.0.0.1:9001"
    assert Settings().data_addresses() == ["tcp://127.0.0.1:10002"]
    assert Settings(host="::1", task_workers=4, data_workers=2).data_addresses() == [
        "tcp://[::1]:10004",
        "tcp://[::1]:10005",
    ]


def test_every_row_is_explained_and_its_default_loads(toml: Toml) -> None:
    text = "\n".join(f"{row.name.lower()} = {row.default}" for row in rows())
    assert all(row.type and row.explanation for row in rows())
    assert tomllib.loads(text)
    assert load(toml(text), {}, {}) == Settings()


def test_precedence(toml: Toml) -> None:
    config = toml("chunking_size = 20\ntask_workers = 3\ndata_workers = 4")
    env = {"TASKENGINE_CHUNKING_SIZE": "30", "TASKENGINE_TASK_WORKERS": "5"}
    loaded = load(config, env, {"chunking_size": "40", "host": None})
    assert (loaded.chunking_size, loaded.task_workers, loaded.data_workers) == (40, 5, 4)
    assert loaded.host == "127.0.0.1"


def test_the_file_of_the_folder_is_read_and_a_named_one_replaces_it(tmp_path: Path, toml: Toml) -> None:
    (tmp_path / "taskengine.toml").write_text("chunking_size = 7\ndata_workers = 0\n")
    assert load(None, {}, {}).chunking_size == 7
    assert load(toml("chunking_size = 8"), {}, {}) == Settings(chunking_size=8)


def test_tasks_in_a_file_are_meant_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "robot" / "folder").mkdir(parents=True)
    (tmp_path / "robot" / "x.toml").write_text('tasks = ["main.py", "folder", "robot.arm", "/srv/other.py"]')
    expected = ["robot/main.py", "robot/folder", "robot.arm", "/srv/other.py"]
    assert load(Path("robot/x.toml"), {}, {}).tasks == expected
    (tmp_path / "taskengine.toml").write_text('tasks = ["main.py", "robot/folder"]')
    assert load(None, {}, {}).tasks == ["main.py", "robot/folder"]
    assert load(Path("robot/x.toml"), {"TASKENGINE_TASKS": "main.py"}, {}).tasks == ["main.py"]


def test_everything_from_toml(toml: Toml) -> None:
    text = """
        host = "localhost"
        response_time = 1
        chunking = false
        tasks = ["robot.tasks", "./more"]
        [lanes]
        arm = 1
        [hardware.devices]
        pan = {type = "Servo", pin = 17}
        [policy.laptop]
        tasks = ["servo.*"]
    """
    file = toml(text)
    assert load(file, {}, {}) == Settings(
        host="localhost",
        response_time=1.0,
        chunking=False,
        tasks=["robot.tasks", str(file.parent / "more")],
        lanes={"arm": 1},
        hardware={"devices": {"pan": {"type": "Servo", "pin": 17}}},
        policy={"laptop": Entry(tasks=("servo.*",))},
    )


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "TRUE", " On "])
def test_true_in_the_environment(text: str) -> None:
    assert load(None, {"TASKENGINE_INSECURE": text}, {}).insecure is True


@pytest.mark.parametrize("text", ["false", "0", "no", "off", "Off"])
def test_false_in_the_environment(text: str) -> None:
    assert load(None, {"TASKENGINE_CHUNKING": text}, {}).chunking is False


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tasks", "a,b", ["a", "b"]),
        ("tasks", " a , ./b.py ", ["a", "./b.py"]),
        ("tasks", "", []),
        ("lanes", "arm=1,io=2", {"arm": 1, "io": 2}),
        ("lanes", " arm = 1 , io=2 ", {"arm": 1, "io": 2}),
        ("lanes", "arm=1,io=2x100", {"arm": 1, "io": LaneSize(2, 100)}),
        ("lanes", "", {}),
        ("response_time", "0.030", 0.03),
        ("response_time", "1e-3", 0.001),
        ("drain_time", "0", 0.0),
        ("task_workers", "8", 8),
        ("host", "::1", "::1"),
    ],
)
def test_text_of_environment_and_flags(name: str, text: str, value: object) -> None:
    assert getattr(load(None, {f"TASKENGINE_{name.upper()}": text}, {}), name) == value
    assert getattr(load(None, {}, {name: text}), name) == value


def test_typed_flags() -> None:
    flags = {"tasks": ("a", "b"), "chunking": False, "task_workers": 3, "lanes": {"arm": 1}, "response_time": 1}
    assert load(None, {}, flags) == Settings(
        tasks=["a", "b"], chunking=False, task_workers=3, lanes={"arm": 1}, response_time=1.0
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("task_workers", "0", "a whole number, 1 to 1024"),
        ("task_workers", "two", "a whole number, 1 to 1024"),
        ("task_workers", "2.0", "a whole number, 1 to 1024"),
        ("task_workers", "1_0", "a whole number, 1 to 1024"),
        ("task_workers", "9" * 5000, "a whole number, 1 to 1024"),
        ("data_workers", "-1", "a whole number, 0 to 1024"),
        ("chunking_size", "0", "a whole number from 1"),
        ("response_time", "0", "seconds, more than 0"),
        ("response_time", "nan", "seconds, more than 0"),
        ("response_time", "inf", "seconds, more than 0"),
        ("response_time", "1e999", "seconds, more than 0"),
        ("drain_time", "-1", "seconds, 0 to 3600"),
        ("router_frontend", "0", "a port, 1 to 65535"),
        ("router_backend", "65536", "a port, 1 to 65535"),
        ("chunking", "maybe", "true, false, 1, 0, yes, no, on or off"),
        ("enable_stdout", "", "true, false, 1, 0, yes, no, on or off"),
        ("tasks", "a,,b", "a list of module names"),
        ("lanes", "arm", LANES),
        ("lanes", "arm=1,arm=2", LANES),
        ("lanes", "arm=1x", LANES),
        ("host", "", "an address or host name"),
        ("host", "*", "an address or host name"),
        ("curve", "yes", '"auto", "on" or "off"'),
        ("host", "127.0.0.1:9000", "an address or host name"),
        ("host", "127.0.0.256", "an address or host name"),
        ("host", "tcp://127.0.0.1", "an address or host name"),
    ],
)
def test_wrong_text_names_key_place_and_what_was_expected(name: str, text: str, expected: str) -> None:
    variable = f"TASKENGINE_{name.upper()}"
    message = refused(env={variable: text})
    assert message.startswith(f"{name} in environment variable {variable}: expected {expected}")
    message = refused(flags={name: text})
    assert message.startswith(f"{name} in flag --{name.replace('_', '-')}: expected {expected}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("task_workers = '2'", "a whole number"),
        ("task_workers = true", "a whole number"),
        ("task_workers = 2.0", "a whole number"),
        ("chunking = 1", "true or false"),
        ("response_time = nan", "seconds"),
        ("response_time = inf", "seconds"),
        ("response_time = true", "seconds"),
        ("tasks = 'a,b'", "a list"),
        ("tasks = [1]", "a list"),
        ("lanes = ['arm']", "a map"),
        ("hardware = 1", "a table"),
    ],
)
def test_wrong_type_in_the_file_names_file_and_line(toml: Toml, line: str, expected: str) -> None:
    config = toml(f"\n# a comment\n{line}\n")
    message = refused(config)
    assert message.startswith(f"{line.split()[0]} in {config}, line 3: expected {expected}")


def test_wrong_entry_of_a_table_names_the_tables_line(toml: Toml) -> None:
    config = toml("chunking = true\n\n[lanes]\narm = 'one'\n")
    assert refused(config) == (
        f"lanes.arm in {config}, line 3: expected a number of workers, or a table of workers and concurrency, from 1 "
        "to 1024, not 'one'"
    )


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("{workers = 0}", "lanes.io.workers in .*: expected a whole number, from 1 to 1024, not 0"),
        ("{concurrency = 2000}", "lanes.io.concurrency in .*: expected a whole number, from 1 to 1024, not 2000"),
        ("{concurrency = true}", "lanes.io.concurrency in .*, not True"),
        ("{worker = 1}", "lanes.io in .*: expected workers and concurrency, not 'worker'"),
        ("1025", "lanes.io in .*, not 1025"),
    ],
)
def test_a_wrong_size_of_a_lane_is_named_with_its_key(toml: Toml, size: str, said: str) -> None:
    assert re.match(said, refused(toml(f"[lanes]\nio = {size}\n")))


def test_a_lane_has_workers_and_a_concurrency(toml: Toml) -> None:
    settings = load(toml("[lanes]\narm = 2\nio = {concurrency = 100}\n[lanes.net]\nworkers = 3\n"), {}, {})
    sizes = [settings.lane(name) for name in ("arm", "io", "net", "other")]
    assert sizes == [LaneSize(2), LaneSize(1, 100), LaneSize(3), LaneSize()]
    assert settings.lanes_with(["other"]) == {"": 2, "arm": 2, "io": 1, "net": 3, "other": 1}


def test_a_value_that_a_later_place_overrides_is_still_checked(toml: Toml) -> None:
    assert "task_workers in" in refused(toml("task_workers = 0"), flags={"task_workers": 2})


def test_unknown_keys_name_the_nearest_one(toml: Toml) -> None:
    config = toml("chunk_size = 5\n")
    assert refused(config) == f"chunk_size in {config}, line 1: no such setting; the nearest is chunking_size"
    assert refused(env={"TASKENGINE_TASK_WORKER": "2"}) == (
        "environment variable TASKENGINE_TASK_WORKER: no such setting; the nearest is TASKENGINE_TASK_WORKERS"
    )
    assert refused(flags={"respons_time": 1}) == (
        "flag --respons-time: no such setting; the nearest is --response-time"
    )


@pytest.mark.parametrize("name", ["xyzzy", "t", "gpio_everything_else"])
def test_no_name_is_suggested_for_what_is_like_none(toml: Toml, name: str) -> None:
    assert "`taskengine serve --help` lists the settings" in refused(toml(f"{name} = 5\n"))
    assert "`taskengine serve --help` lists the settings" in refused(env={f"TASKENGINE_{name.upper()}": "5"})
    assert "`taskengine serve --help` lists the settings" in refused(flags={name: 5})


def test_names_in_the_file_may_be_capital_as_the_documents_write_them(toml: Toml) -> None:
    text = "TASK_WORKERS = 3\nHost = '::1'\n[LANES]\narm = 1\n[Hardware.devices.lamp]\ntype = 'LED'\npin = 99\n"
    config = toml(text.replace("99", "4"))
    loaded = load(config, {}, {})
    assert (loaded.task_workers, loaded.host, loaded.lanes, list(loaded.hardware)) == (
        3,
        "::1",
        {"arm": 1},
        ["devices"],
    )
    assert f"{config}, line 7: " in refused(toml(text)), "which device it is"
    assert "TASK_WORKERS in" in refused(toml("task_workers = 2\nTASK_WORKERS = 3\n"))
    assert "the nearest is drain_time" in refused(toml("DRAIN_TIM = 3\n"))


def test_the_file_may_begin_with_the_mark_of_an_editor(toml: Toml) -> None:
    text = "\ufefftask_workers = 3\n[hardware.devices.lamp]\ntype = 'LED'\npin = 99\n"
    assert load(toml(text.replace("99", "4")), {}, {}).task_workers == 3
    config = toml(text)
    assert f"{config}, line 4: " in refused(config)
    assert f"{config}, line 1: " in refused(toml("\ufefftask_workers = 0\n"))


def test_lower_case_variables_and_tables_are_no_settings_of_the_environment() -> None:
    assert "the nearest is TASKENGINE_HOST" in refused(env={"TASKENGINE_host": "::1"})
    assert "[policy] is a table" in refused(env={"TASKENGINE_POLICY": "x"})


def test_the_time_factor_of_tests_is_no_setting() -> None:
    assert load(None, {"TASKENGINE_TEST_TIME_FACTOR": "3"}, {}) == Settings()


@pytest.mark.parametrize(
    ("text", "line"),
    [("chunking = yes\n", 1), ("host = '::1'\n[lanes\n", 2), ("host = '::1'\n\nhost = 'a'\n", 3), ("a = '''\n\nb", 3)],
)
def test_invalid_toml_names_file_and_line(toml: Toml, text: str, line: int) -> None:
    config = toml(text)
    assert refused(config).startswith(f"{config}, line {line}: not TOML: ")


def test_a_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"# one\nhost = '\xff'\n")
    assert refused(path).startswith(f"{path}, line 2: not UTF-8")


def test_unreadable_files(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.toml")
    assert str(tmp_path) in refused(tmp_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"router_backend": 9000}, "router_backend: expected another port than router_frontend's, 9000"),
        ({"metrics_port": 9001}, "metrics_port: expected another port than router_backend's, 9001"),
        ({"metrics_port": 10002}, "data worker 0 would publish on 10002, which is metrics_port's"),
        ({"router_frontend": 10002}, "data worker 0 would publish on 10002, which is router_frontend's"),
        ({"starting_port": 8998, "data_workers": 2}, "data worker 0 would publish on 9000, which is router_frontend's"),
        ({"starting_port": 8997, "data_workers": 3}, "data worker 1 would publish on 9000, which is router_frontend's"),
        ({"starting_port": 65535}, "data worker 0 would publish on 65537"),
    ],
)
def test_port_collisions(flags: dict[str, object], message: str) -> None:
    assert message in refused(flags=flags)


def test_the_stop_port_is_one_of_an_engine_with_devices(toml: Toml) -> None:
    assert load(None, {}, {"router_frontend": 9002}).stop_address == ""
    machine = toml('[hardware.devices.lamp]\ntype = "LED"\npin = 17')
    assert load(machine, {}, {}).stop_address == "tcp://127.0.0.1:9002"
    assert load(machine, {}, {"host": "::1", "stop_port": 9003}).stop_address == "tcp://[::1]:9003"
    assert load(machine, {}, {"router_frontend": 9002, "stop_port": 0}).stop_address == ""
    assert "stop_port: expected another port than router_frontend's, 9002" in refused(
        machine, flags={"router_frontend": 9002}
    )
    assert "would publish on 10002, which is stop_port's" in refused(machine, flags={"stop_port": 10002})


def test_without_data_workers_no_data_port_collides() -> None:
    assert load(None, {}, {"starting_port": 8998, "data_workers": 0}).data_addresses() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_may_be_served(host: str) -> None:
    settings = load(None, {}, {"host": host})
    settings.check_exposure(clients=0)
    assert not settings.is_curved
    assert load(None, {}, {"host": host, "curve": "on"}).is_curved


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.9", "::", "robot.local", "eth0", "localhost.evil.org"])
def test_off_loopback_is_served_only_encrypted_and_for_somebody_unless_insecure(host: str) -> None:
    exposed = load(None, {}, {"host": host})
    assert exposed.is_curved
    with pytest.raises(SettingsError, match=r"no client has a key: run `taskengine keys pair NAME`"):
        exposed.check_exposure(clients=0)
    exposed.check_exposure(clients=1)
    plain = load(None, {}, {"host": host, "curve": "off"})
    with pytest.raises(SettingsError, match=r"curve is off.*--insecure"):
        plain.check_exposure(clients=1)
    load(None, {}, {"host": host, "curve": "off", "insecure": True}).check_exposure(clients=0)


def test_names_of_the_module_hold() -> None:
    assert loading.CONFIG_FILE == "taskengine.toml"
    assert settings.TABLES == ("hardware", "policy")


def test_a_router_with_hardly_any_memory_is_none() -> None:
    assert load(None, {}, {"router_memory": 2**28}).router_memory == 2**28
    assert load(None, {}, {"worker_memory": 2**28}).worker_memory == 2**28
    assert "worker_memory in flag --worker-memory: expected 0 or from 2^28" in refused(flags={"worker_memory": 2**27})
    assert "router_memory in flag --router-memory: expected 0 or from 2^28" in refused(flags={"router_memory": 2**27})


HARDWARE = """chunking_size = 5

[hardware]
chip = 0

[hardware.devices.pan]
type = "Servo"
pin = 18

[hardware.devices.'lamp']
type = "LED"
pin = 17

[lanes]
io = 2
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ("pin = 18", "pin = 28", 8, "hardware.devices.pan.pin: there is no pin 28"),
        ("pin = 17", "pin = 18", 10, "hardware.devices.lamp: GPIO18 is pan's already"),
        ('"LED"', '"LDE"', 11, "hardware.devices.lamp.type: 'LDE' is no type of device"),
        ("chip = 0", "chop = 0", 4, "hardware.chop: no such key"),
        ("pin = 17", "pin = 17\nlimits = {}", 13, "hardware.devices.lamp.limits: a LED has no limits"),
        ("pin = 17", 'pin = 17\nlane = "io"', 15, "lanes in .*: lane 'io' has pins, and thus one worker"),
    ],
)
def test_a_device_that_cannot_be_is_named_with_its_line(toml: Toml, old: str, new: str, line: int, text: str) -> None:
    config = toml(HARDWARE)
    load(config, {}, {})
    error = refused(toml(HARDWARE.replace(old, new)))
    assert re.search(text, error)
    assert f"robot.toml, line {line}" in error


def test_a_pin_backend_is_one_of_few() -> None:
    assert load(None, {}, {"pins": "mock"}).pins == "mock"
    assert 'pins in flag --pins: expected "auto", "lgpio", "pigpio" or "mock"' in refused(flags={"pins": "wiringpi"})


def test_a_lane_with_pins_runs_one_task_at_a_time(toml: Toml) -> None:
    config = HARDWARE.replace("io = 2", "io = {concurrency = 2}").replace("pin = 17", 'pin = 17\nlane = "io"')
    assert "lane 'io' has pins, and thus runs one task at a time" in refused(toml(config))


def test_the_data_workers_lanes_are_their_own() -> None:
    assert "lanes in flag --lanes: names that begin with data: or denied:" in refused(flags={"lanes": "data:0=1"})


def test_a_heartbeat_limit_has_three_intervals() -> None:
    assert load(None, {}, {"heartbeat_interval": 1.0}).heartbeat_limit == 3.0
    assert "heartbeat_limit in flag --heartbeat-limit" in refused(flags={"heartbeat_limit": 1.0})
    text = refused(env={"TASKENGINE_HEARTBEAT_INTERVAL": "1.5"})
    assert "heartbeat_interval in environment variable TASKENGINE_HEARTBEAT_INTERVAL" in text
    assert "4.5 s, not 3" in text
