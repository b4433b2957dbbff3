from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from taskengine.errors import KeysError
from taskengine.security import private_files
from taskengine.security.private_files import read_private, write_private


def refuse(number: int) -> Any:
    def call(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_links_will_do_and_nothing_there_is_replaced(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse(number))
    file = tmp_path / "keys"
    write_private(file, b"one", replace=False)
    assert read_private(file) == b"one"
    with pytest.raises(KeysError, match="exists already"):
        write_private(file, b"two", replace=False)
    assert file.read_bytes() == b"one"
    assert [each.name for each in tmp_path.iterdir()] == ["keys"]


def test_another_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EIO))
    with pytest.raises(KeysError, match="Input/output error"):
        write_private(tmp_path / "keys", b"one", replace=False)
    assert list(tmp_path.iterdir()) == []


def test_what_the_system_lacks_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    write_private(file, b"one", replace=False)
    monkeypatch.setattr(Path, "open", refuse(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        read_private(file)


@pytest.mark.parametrize("replace", [False, True])
def test_secrets_are_not_written_where_others_could_read_them(
    replace: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_files, "_is_open", lambda found: True)
    with pytest.raises(KeysError, match="keeps no modes"):
        write_private(tmp_path / "keys", b"one", replace=replace)
    assert list(tmp_path.iterdir()) == []
    write_private(tmp_path / "sealed", b"encrypted", replace=replace, is_secret=False)
    assert (tmp_path / "sealed").read_bytes() == b"encrypted"
