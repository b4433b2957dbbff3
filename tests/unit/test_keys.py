from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest

from taskengine import keys
from taskengine.errors import KeysError
from taskengine.keys import KeyRing, Pair, default_folder, find_membership, fingerprint, new_pair

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


def test_a_name_and_a_key_are_given_once(robot: KeyRing) -> None:
    public = new_pair().public
    robot.allow("laptop", public)
    with pytest.raises(KeysError, match="exists already"):
        robot.allow("laptop", new_pair().public)
    with pytest.raises(KeysError, match="is client laptop's already"):
        robot.allow("other", public)


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
    with pytest.raises(KeysError, match="no line of"):
        laptop.accept(line)


def test_a_line_with_a_key_that_is_none(robot: KeyRing, laptop: KeyRing) -> None:
    data = msgspec.json.decode(base64.urlsafe_b64decode(robot.pair("laptop", ADDRESS).partition(":")[2]))
    data["engine"] = "../../etc"
    with pytest.raises(KeysError, match="no line of"):
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
    assert find_membership("tcp://robot.local:9100", None) is None
    assert find_membership("no address", None) is None


def test_fingerprints_are_short_and_differ() -> None:
    prints = {fingerprint(new_pair().public) for _ in range(20)}
    assert len(prints) == 20
    assert {len(text) for text in prints} == {39}
