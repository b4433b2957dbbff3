"""Tests that run at the same time keep out of each other's way."""

from __future__ import annotations

import pytest

from tests.engine import share_of_ports


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_share_the_ports_and_no_two_have_the_same(workers: int) -> None:
    shares = [share_of_ports(f"gw{number}", workers) for number in range(workers)]
    assert len({len(share) for share in shares}) == 1
    assert len(set().union(*shares)) == sum(map(len, shares)) > 11_000
    assert min(map(min, shares)) == 20_000
    assert max(map(max, shares)) < 32_000, "the kernel gives away those from 32768 on"
