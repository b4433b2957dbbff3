"""Which engine a command talks to: `--address`, TASKENGINE_ADDRESS, the settings of the folder, the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from taskengine.cli import cli
from taskengine.cli_engine import Where, find_engine
from taskengine.configuration import load
from taskengine.errors import SettingsError
from taskengine.keys import KeyRing
from tests.engine import free_ports

VARIABLE = {"TASKENGINE_ADDRESS": "tcp://127.0.0.1:9300"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "taskengine.toml").write_text(text)


def test_the_order(folder: Path) -> None:
    assert find_engine(None, {}) == Where("tcp://127.0.0.1:9000")
    write(folder, "router_frontend = 9100\n")
    found = find_engine(None, {})
    assert (found.address, found.source) == (
        "tcp://127.0.0.1:9100",
        "the address is from taskengine.toml, line 1",
    )
    found = find_engine(None, {"TASKENGINE_ROUTER_FRONTEND": "9200"})
    assert (found.address, "TASKENGINE_ROUTER_FRONTEND" in found.source) == ("tcp://127.0.0.1:9200", True)
    found = find_engine(None, VARIABLE)
    assert (found.address, "TASKENGINE_ADDRESS" in found.source) == (VARIABLE["TASKENGINE_ADDRESS"], True)
    found = find_engine("tcp://127.0.0.1:9400", VARIABLE)
    assert (found.address, "--address" in found.source) == ("tcp://127.0.0.1:9400", True)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "tcp://127.0.0.1:9000"),
        ("::", "tcp://[::1]:9000"),
        ("::1", "tcp://[::1]:9000"),
        ("robot.local", "tcp://robot.local:9000"),
    ],
)
def test_an_address_that_a_client_here_can_use(folder: Path, host: str, address: str) -> None:
    write(folder, f"host = '{host}'\n")
    assert find_engine(None, {}).address == address


def test_the_stop_port_is_that_of_the_settings(folder: Path) -> None:
    write(folder, "stop_port = 9777\n")
    assert find_engine(None, {}).stop_address is None
    write(folder, "stop_port = 9777\n[hardware.devices.lamp]\ntype = 'LED'\npin = 4\n")
    assert find_engine(None, {}).stop_address == "tcp://127.0.0.1:9777"
    assert find_engine("tcp://127.0.0.1:9000", {}).stop_address is None


def test_keys_of_this_machine_may_lie_in_the_folder_of_the_settings(folder: Path) -> None:
    write(folder, "keys = 'here'\ncurve = 'on'\n")
    assert find_engine(None, {}).keys is None
    robot = KeyRing(folder / "robot")
    KeyRing(Path("here")).accept(robot.pair("laptop", "tcp://127.0.0.1:9000"))
    assert find_engine(None, {}).keys == Path("here")
    write(folder, "keys = 'here'\n")
    assert find_engine(None, {}).keys is None, "that engine speaks in clear"


def test_settings_that_cannot_be_read_do_not_send_a_command_elsewhere(folder: Path) -> None:
    write(folder, "router_frontend = 0\n")
    with pytest.raises(SettingsError, match="router_frontend"):
        find_engine(None, {})
    done = CliRunner().invoke(cli, ["call", "task_count", "2", "3"])
    assert (done.exit_code, "or say --address" in done.stderr) == (2, True)
    assert find_engine("tcp://127.0.0.1:9400", {}).address == "tcp://127.0.0.1:9400"


def test_a_stop_goes_out_whatever_the_settings_are(folder: Path) -> None:
    write(folder, "router_frontend = 0\n")
    done = CliRunner().invoke(cli, ["stop", "--timeout", "0.2"])
    assert "trying tcp://127.0.0.1:9000" in done.stderr
    assert done.exit_code in (0, 1), "what it comes to depends on who listens there"


def test_an_engine_takes_the_variable_for_no_setting_of_its_own() -> None:
    assert load(None, VARIABLE, {}).router_frontend == 9000


@pytest.mark.parametrize("command", [["call", "task_count", "2", "3"], ["tasks"], ["stop", "--timeout", "0.2"]])
def test_the_error_says_what_the_address_is_from(
    folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskengine.cli_engine.PROBE_S", 0.2)
    port = free_ports(1)
    write(folder, f"\nrouter_frontend = {port}\n")
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1
    assert f"tcp://127.0.0.1:{port}" in done.stderr
    assert "the address is from taskengine.toml, line 2" in done.stderr


def test_a_variable_that_is_no_address_is_named(folder: Path) -> None:
    done = CliRunner(env={"TASKENGINE_ADDRESS": "robot"}).invoke(cli, ["tasks"])
    assert (done.exit_code, "TASKENGINE_ADDRESS" in done.stderr) == (2, True)
