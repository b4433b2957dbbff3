"""Every target takes its kept corpus, and some inputs on the build with sanitizers; and what is wrong is found."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fuzz import mutate, planted, run
from tests.fuzz.run import ATHERIS, CORPUS, RANDOM, TARGETS
from tests.sanitized import FOLDER, environment

RUNS = 2_000
"""Of each target, in `make test-long`; `make test-fuzz` runs 100 000."""
MOST_KEPT_BYTES = 300_000


def has_atheris() -> bool:
    """There is an atheris for this machine, by what the extra `fuzz` asks for."""
    wanted = [Requirement(text) for text in requires("taskengine-robot") or []]
    [atheris] = [requirement for requirement in wanted if requirement.name == "atheris"]
    return atheris.marker is not None and atheris.marker.evaluate({"extra": "fuzz"})


def test_the_kept_corpora_are_those_of_the_targets_and_small() -> None:
    kept = [path for path in CORPUS.glob("*/*") if path.is_file()]
    assert {path.parent.name for path in kept} == set(TARGETS)
    assert sum(path.stat().st_size for path in kept) < MOST_KEPT_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_lie_in_the_corpus(target: str) -> None:
    kept = {path.read_bytes() for path in (CORPUS / target).iterdir()}
    assert set(importlib.import_module(run.module_of(target)).seeds()) <= kept


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_corpus_on_the_build_in_place(target: str) -> None:
    fuzz = importlib.import_module(run.module_of(target)).fuzz
    for path in sorted((CORPUS / target).iterdir()):
        fuzz(path.read_bytes())


def test_atheris_guides_where_there_is_one() -> None:
    assert run.engine() == (ATHERIS if has_atheris() else RANDOM), "pip install '.[fuzz]'"


def test_the_build_with_sanitizers_is_what_runs() -> None:
    program = "import taskengine._fastpath as f, taskengine._socket as s; print(f.__file__, s.__file__)"
    maps = "print(open('/proc/self/maps').read())"
    env = environment()
    command = [sys.executable, "-c", f"{program}\n{maps}"]
    output = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    files, _, loaded = output.partition("\n")
    assert all(Path(file).is_relative_to(FOLDER) for file in files.split())
    assert "libasan" in loaded
    assert "libubsan" in loaded


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "module_of", lambda target: planted.__name__)
    result = run.run_target("planted", 10, 1, tmp_path, None, environment())
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in result.problem
    assert result.inputs < 10


def test_an_exception_that_is_not_ours_is_found(tmp_path: Path) -> None:
    def fuzz(data: bytes) -> None:
        if b"x" in data:
            raise MemoryError

    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(b"abc")
    with pytest.raises(MemoryError):
        mutate.run(fuzz, 10_000, 1, tmp_path, [corpus], [b"x"])
    [crash] = tmp_path.glob("crash-*")
    assert b"x" in crash.read_bytes()


def test_inputs_at_random_are_the_same_for_a_seed() -> None:
    def drawn(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        return [mutate.mutated(chance, [b"abc", b"defg"], [b"x"]) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.long
def test_inputs_that_nobody_thought_of_find_nothing(tmp_path: Path) -> None:
    results = run.run(TARGETS, RUNS, 1, tmp_path)
    assert [result.target for result in results] == list(TARGETS)
    assert {result.target: result.problem for result in results if result.problem} == {}
    assert all(result.inputs >= RUNS // run.SLOWER.get(result.target, 1) for result in results)
