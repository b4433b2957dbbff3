from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import msgspec
import pytest

from taskengine.errors import KeysError
from taskengine.security import keys
from taskengine.security.keys import (
    KeyRing,
    Pair,
    check_encrypted,
    default_folder,
    find_membership,
    fingerprint,
    is_loopback,
    new_pair,
    not_let_in,
)

ADDRESS = "tcp://robot.local:9000"


@pytest.fixture
def robot(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "robot")


@pytest.fixture
def laptop(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "laptop")


def test_a_line_makes_two_machines_know_each_other(robot: KeyRing, laptop: KeyRing) -> None:
    line = robot.pair("laptop", ADDRESS)
    assert "\n" not in line
    membership = laptop.accept(f"  {line}\n")
    assert (membership.address, membership.name) == (ADDRESS, "laptop")
    assert membership.engine == robot.engine().public
    assert robot.allowed() == {membership.own.public: "laptop"}
    assert laptop.membership(ADDRESS) == membership
    assert laptop.memberships() == [membership]


def test_a_key_that_is_made_on_the_laptop_never_leaves_it(robot: KeyRing, laptop: KeyRing) -> None:
    own = laptop.join(ADDRESS, robot.engine().public, "laptop").own
    robot.allow("laptop", own.public)
    assert robot.allowed() == {own.public: "laptop"}
    assert own.secret not in "".join(path.read_text() for path in robot.folder.rglob("*.json"))


def test_the_engines_key_is_made_once(robot: KeyRing) -> None:
    assert robot.engine() == robot.engine() == KeyRing(robot.folder).engine()


def test_files_are_ours_alone_and_refused_otherwise(robot: KeyRing) -> None:
    robot.pair("laptop", ADDRESS)
    files = list(robot.folder.rglob("*.json"))
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    for path in files:
        path.chmod(0o640)
    with pytest.raises(KeysError, match="chmod 600"):
        robot.engine()
    with pytest.raises(KeysError, match="chmod 600"):
        robot.allowed()


def test_revoking(robot: KeyRing) -> None:
    robot.pair("laptop", ADDRESS)
    before = robot.stamp()
    robot.revoke("laptop")
    assert robot.allowed() == {}
    assert robot.stamp() != before
    with pytest.raises(KeysError, match="no client is named 'laptop'"):
        robot.revoke("laptop")


def test_a_folder_is_listed_until_it_has_not_changed_for_a_while(
    robot: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a file system has ticks: two files that come in one leave the folder with the same time."""
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    robot.allow("laptop", new_pair().public)
    tick = keys._state_of(robot.folder / "clients")
    assert len(robot.stamp()) == 1
    now[0] += keys.SETTLED_S / 2
    robot.allow("phone", new_pair().public)
    monkeypatch.setattr(keys, "_state_of", lambda folder: tick)
    assert len(robot.stamp()) == 2
    now[0] += keys.SETTLED_S / 2
    assert len(robot.stamp()) == 2
    monkeypatch.setattr(os, "listdir", lambda path: [])
    assert len(robot.stamp()) == 2, "it is not listed any more"
    monkeypatch.setattr(keys, "_state_of", lambda folder: (*tick, 1))
    assert robot.stamp() == ()


def test_a_name_and_a_key_are_given_once(robot: KeyRing) -> None:
    public = new_pair().public
    robot.allow("laptop", public)
    with pytest.raises(KeysError, match="exists already"):
        robot.allow("laptop", new_pair().public)
    with pytest.raises(KeysError, match="is client laptop's already"):
        robot.allow("other", public)


def test_no_key_has_the_name_of_the_client_that_calls_periodic_tasks(robot: KeyRing) -> None:
    with pytest.raises(KeysError, match="the engine's own client"):
        robot.pair("schedule", ADDRESS)
    assert robot.allowed() == {}


@pytest.mark.parametrize("name", ["", "../engine", ".hidden", "a/b", "a" * 65, "a b", "a\n"])
def test_names_that_are_none(robot: KeyRing, name: str) -> None:
    with pytest.raises(KeysError, match="a client's name"):
        robot.allow(name, new_pair().public)


@pytest.mark.parametrize("public", ["", "short", "x" * 41, "~" * 40])
def test_keys_that_are_none(robot: KeyRing, laptop: KeyRing, public: str) -> None:
    with pytest.raises(KeysError, match="40 characters"):
        robot.allow("laptop", public)
    with pytest.raises(KeysError, match="40 characters"):
        laptop.join(ADDRESS, public, "laptop")


@pytest.mark.parametrize("line", ["", "nonsense", "taskengine-pair:", "taskengine-pair:e30=", "taskengine-pair:%%"])
def test_lines_that_are_none(laptop: KeyRing, line: str) -> None:
    with pytest.raises(KeysError, match="expected a line of"):
        laptop.accept(line)


def test_a_line_with_a_key_that_is_none(robot: KeyRing, laptop: KeyRing) -> None:
    data = msgspec.json.decode(base64.urlsafe_b64decode(robot.pair("laptop", ADDRESS).partition(":")[2]))
    data["engine"] = "../../etc"
    with pytest.raises(KeysError, match="expected a line of"):
        laptop.accept("taskengine-pair:" + base64.urlsafe_b64encode(msgspec.json.encode(data)).decode())


@pytest.mark.parametrize("address", ["robot", "tcp://robot", "tcp://robot:0", "tcp://robot:65536", "tcp://a/b:1"])
def test_an_address_that_is_none(robot: KeyRing, address: str) -> None:
    with pytest.raises(KeysError, match="tcp://HOST:PORT"):
        robot.pair("laptop", address)
    assert robot.allowed() == {}


def test_a_client_whose_file_is_no_good_is_left_out_alone(robot: KeyRing) -> None:
    for name in ("one", "two", "three", "four"):
        robot.pair(name, ADDRESS)
    clients = robot.folder / "clients"
    (clients / "two.json").chmod(0o644)
    (clients / "three.json").write_text("{")
    (clients / "four.json").unlink()
    (clients / "five.json").symlink_to(clients / "nowhere.json")
    names, left_out = robot.admitted()
    assert list(names.values()) == ["one"]
    assert [str(error).count("chmod 600") for error in left_out] == [0, 1]
    with pytest.raises(KeysError, match=r"three\.json"):
        robot.allowed()


def test_a_key_may_be_forgotten(robot: KeyRing, laptop: KeyRing) -> None:
    laptop.accept(robot.pair("laptop", ADDRESS))
    laptop.forget(ADDRESS)
    assert laptop.membership(ADDRESS) is None
    with pytest.raises(KeysError, match="there is no key"):
        laptop.forget(ADDRESS)


def test_of_two_first_starts_at_once_both_have_one_key(robot: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    other = KeyRing(robot.folder)
    made: list[Pair] = []

    def later() -> Pair:
        monkeypatch.undo()
        made.append(other.engine())
        return new_pair()

    monkeypatch.setattr(keys, "new_pair", later)
    assert [robot.engine()] == made


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"public": 1}'])
def test_files_that_are_no_keys(robot: KeyRing, text: str) -> None:
    robot.engine()
    (robot.folder / "engine.json").write_text(text)
    with pytest.raises(KeysError, match="no key file"):
        robot.engine()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysError, match="file"):
        KeyRing(tmp_path / "file" / "keys").engine()


def test_which_key_a_client_uses(robot: KeyRing, laptop: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(laptop.folder.parent / "config"))
    assert find_membership(ADDRESS, None) is None
    with pytest.raises(KeysError, match="has no key for"):
        find_membership(ADDRESS, laptop.folder)
    line = robot.pair("laptop", ADDRESS)
    assert KeyRing().accept(line) == laptop.accept(line)
    assert KeyRing().folder == default_folder()
    assert find_membership(ADDRESS, None) == find_membership(ADDRESS, laptop.folder) is not None
    assert find_membership("no address", None) is None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyRing:
    """The keys of a user, who knows the engine robot.local."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    ring = KeyRing()
    ring.join("tcp://robot.local:9000", new_pair().public, "laptop")
    return ring


@pytest.mark.parametrize("address", ["tcp://10.0.0.7:9000", "tcp://robot.local:9100", "tcp://[fe80::1]:9000"])
def test_an_engine_called_by_another_address_is_the_only_one_that_is_known(home: KeyRing, address: str) -> None:
    assert find_membership(address, None) == find_membership(address, home.folder) == home.memberships()[0]


def test_who_says_insecure_means_no_engine_at_another_address(home: KeyRing) -> None:
    assert find_membership("tcp://10.0.0.7:9000", None, insecure=True) is None
    known = home.memberships()[0]
    assert find_membership(known.address, None, insecure=True) == known, "where a key is known, it is used"
    assert find_membership("tcp://10.0.0.7:9000", None, "robot", insecure=True) == known
    assert find_membership("tcp://10.0.0.7:9000", home.folder, insecure=True) == known


def test_an_engine_on_this_machine_is_none_that_is_known_elsewhere(home: KeyRing) -> None:
    assert find_membership("tcp://127.0.0.1:9000", None) is None
    assert find_membership("tcp://127.0.0.1:9000", home.folder) == home.memberships()[0], "but with a folder named"
    assert find_membership("tcp://127.0.0.1:9000", None, "robot") == home.memberships()[0], "or an engine"


def test_of_several_engines_a_client_says_which(home: KeyRing) -> None:
    second = home.join("tcp://10.0.0.9:9000", new_pair().public, "laptop")
    assert find_membership("tcp://10.0.0.9:9000", None) == second
    with pytest.raises(KeysError, match=r"10\.0\.0\.9:9000, tcp://robot\.local:9000: say which, .*engine="):
        find_membership("tcp://10.0.0.7:9000", None)
    first = next(found for found in home.memberships() if found != second)
    own_names = (first.address, "robot", "robot.local", "robot.local:9000", first.engine, fingerprint(first.engine))
    for engine in own_names:
        assert find_membership("tcp://10.0.0.7:9000", None, engine) == first
    assert find_membership(first.address, None, "10.0.0.9") == second, "what is said counts more than the address"
    for engine in ("10", "local", "robo", "laptop"):
        with pytest.raises(KeysError, match=f"no key for engine '{engine}'"):
            find_membership("tcp://10.0.0.7:9000", None, engine)


def test_one_engine_by_two_addresses_is_one(home: KeyRing) -> None:
    (known,) = home.memberships()
    line = base64.urlsafe_b64encode(msgspec.json.encode(msgspec.structs.replace(known, address="tcp://10.0.0.9:9000")))
    home.accept("taskengine-pair:" + line.decode())
    found = find_membership("tcp://10.0.0.7:9000", None)
    assert found is not None
    assert found.engine == known.engine


LOCAL = ("tcp://127.0.0.1:9000", "tcp://127.9.9.9:1", "tcp://localhost:9000", "tcp://[::1]:9000", "ipc:///run/x")
REMOTE = ("tcp://robot.local:9000", "tcp://10.0.0.7:9000", "tcp://[fe80::1]:9000", "tcp://127.0.0.1.evil.org:9000")
ELSEWHERE = ("tcp://0.0.0.0:9000", "tcp://127.0.0.1;10.0.0.7:9000", "udp://127.0.0.1:9000", "tcp://127.1:9000", "")


@pytest.mark.parametrize("address", LOCAL)
def test_on_loopback_a_client_may_speak_in_clear(address: str) -> None:
    assert is_loopback(address)
    check_encrypted(address, None, insecure=False)


@pytest.mark.parametrize("address", REMOTE + ELSEWHERE)
def test_off_loopback_it_may_not(home: KeyRing, address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(KeysError, match=r"`taskengine keys pair NAME` there and .* or say insecure=True"):
        check_encrypted(address, None, insecure=False)
    check_encrypted(address, None, insecure=True)
    check_encrypted(address, home.memberships()[0], insecure=False)


def test_a_handshake_that_fails_tells_whom_we_expected(home: KeyRing) -> None:
    (known,) = home.memberships()
    told = not_let_in("tcp://10.0.0.7:9000", known)
    assert "key may have changed" in told
    assert fingerprint(known.engine) in told
    assert known.own.secret not in told
    assert "keys pair" in not_let_in("tcp://10.0.0.7:9000", None)


def test_a_token_for_the_metrics_is_made_once_and_nobody_else_reads_it(robot: KeyRing) -> None:
    assert robot.metrics_token() is None
    token = robot.make_metrics_token()
    assert len(token) > 40
    assert robot.make_metrics_token() == robot.metrics_token() == token
    (robot.folder / "metrics.token").chmod(0o644)
    with pytest.raises(KeysError, match="chmod 600"):
        robot.metrics_token()


def test_fingerprints_are_short_and_differ() -> None:
    prints = {fingerprint(new_pair().public) for _ in range(20)}
    assert len(prints) == 20
    assert {len(text) for text in prints} == {39}
