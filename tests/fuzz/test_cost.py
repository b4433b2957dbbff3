"""The count of work is the same each time, and finds work that is not linear."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskengine.broker.binary import BinaryPackage
from taskengine.broker.package import Package, Urgency
from taskengine.router.frontend import Frontend
from taskengine.router.permissions import KnownClient
from tests.fuzz import mutate
from tests.fuzz.cost import Cost, Meter, TooExpensive, check_linear
from tests.fuzz.run import CORPUS
from tests.fuzz.targets import cost as target
from tests.sanitized import environment

RUNS = 200


def cost_of(act: Callable[[], object]) -> Cost:
    meter = Meter()
    with meter:
        act()
    return meter.cost


def in_pairs(data: bytes) -> int:
    return sum(one == other for one in data for other in data)


def by_method(data: bytes) -> int:
    return sum(data.count(bytes([one])) for one in data)


def in_order(data: bytes) -> int:
    return sum(data)


@pytest.mark.parametrize("act", [in_pairs, by_method, in_order])
def test_the_count_is_the_same_each_time(act: Callable[[bytes], int]) -> None:
    assert len({cost_of(lambda: act(bytes(100))) for _ in range(5)}) == 1


@pytest.mark.parametrize("act", [in_pairs, by_method])
def test_work_that_grows_with_the_square_is_too_expensive(act: Callable[[bytes], int]) -> None:
    check_linear(cost_of(lambda: act(bytes(10))), 1, 10)
    with pytest.raises(TooExpensive, match="1 messages of 512 bytes took"):
        check_linear(cost_of(lambda: act(bytes(512))), 1, 512)


def test_linear_work_is_not() -> None:
    for size in (0, 10, 1000, 100_000):
        check_linear(cost_of(lambda size=size: in_order(bytes(size))), 1, size)  # type: ignore[misc]


def test_the_target_finds_a_look_through_the_package_for_each_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router once looked for urgent names so."""

    def heed(self: Frontend, package: Package, visitor: KnownClient) -> None:
        for name in package.request.names if isinstance(package, BinaryPackage) else ():
            for position in range(package.count):
                package.urgency = Urgency(is_urgent=package.name_of(position) == name)

    mutate.run(target.fuzz, RUNS, 1, tmp_path, [CORPUS / "cost"], target.TOKENS)
    monkeypatch.setattr(Frontend, "_act_at_once", heed)
    with pytest.raises(TooExpensive):
        mutate.run(target.fuzz, RUNS, 1, tmp_path, [CORPUS / "cost"], target.TOKENS)
    assert list(tmp_path.glob("crash-*"))


@pytest.mark.long
def test_the_build_with_sanitizers_counts_blocks() -> None:
    program = (
        "from taskengine import _fastpath; from tests.fuzz.cost import Meter; meter = Meter()\n"
        "with meter: _fastpath.pack_map([range(100)])\nprint(meter.cost.blocks)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert int(output) > 100
