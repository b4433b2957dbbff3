"""The sums: samples to summaries and ratios, and the search for the most that stays within a limit. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

QUANTILES = 100
# a finer search would only measure the noise
CLOSE = 1.1


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Samples in s. `quantiles` are the QUANTILES + 1 values from the least to the largest."""

    samples: int
    p50: float
    p99: float
    max: float
    quantiles: list[float]


Blocks = list[list[float]]
"""The samples of one system in s, a list for each round."""
Rounds = dict[str, Blocks]
"""The samples of systems that took turns, by name."""


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One system over another. `paired` is the median of the rounds' ratios, `low` and `high` are their quartiles.

    A round's ratio is of the two blocks' percentiles in it, `of_all` that of all samples.
    """

    paired: float
    low: float
    high: float
    of_all: float


def percentile(samples: Sequence[float], percent: float) -> float:
    """The least sample that `percent` of all samples do not exceed (nearest rank). Raises ValueError for no samples."""
    if not samples:
        raise ValueError("no samples, no percentile")
    rank = math.ceil(len(samples) * percent / 100)
    return sorted(samples)[max(1, rank) - 1]


def summary(samples: Sequence[float]) -> Summary:
    """The summary of samples in s. Raises ValueError for no samples."""
    ordered = sorted(samples)
    return Summary(
        samples=len(ordered),
        p50=percentile(ordered, 50),
        p99=percentile(ordered, 99),
        max=percentile(ordered, 100),
        quantiles=[percentile(ordered, 100 * step / QUANTILES) for step in range(QUANTILES + 1)],
    )


def together(blocks: Blocks) -> list[float]:
    """The samples of all rounds."""
    return [sample for block in blocks for sample in block]


def ratio(over: Blocks, under: Blocks, percent: float = 50) -> Ratio:
    """How many times `under` is `over`, round by round. Raises ValueError where they have not the same rounds."""
    rounds = [percentile(a, percent) / percentile(b, percent) for a, b in zip(over, under, strict=True)]
    return Ratio(
        paired=percentile(rounds, 50),
        low=percentile(rounds, 25),
        high=percentile(rounds, 75),
        of_all=percentile(together(over), percent) / percentile(together(under), percent),
    )


def beyond_p99(samples: int) -> int:
    """How many of so many samples may lie beyond a limit that their p99 keeps."""
    return samples - math.ceil(samples * 99 / 100)


def two_digits(number: float) -> int:
    """`number` rounded down to two significant digits, at least 1."""
    whole = max(1, int(number))
    unit: int = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit


def largest_within(probe: Callable[[int], float], limit: float, start: int, most: int) -> int:
    """The largest size, up to `most`, to two digits, whose `probe` is at most `limit`; 0 where not even 1 is.

    Grows by doubling from `start`, or shrinks where `start` is too much already, and then halves the gap. One probe
    that passes is enough, and a size beyond one that failed is not tried.
    """
    good, bad = 0, most + 1
    size = start
    while good < size < bad:
        if probe(size) <= limit:
            good, size = size, (min(2 * size, most) if bad > most else size)
        else:
            bad, size = size, (size // 2 if good == 0 else size)
    while good and bad > CLOSE * good and (size := two_digits((good + bad) / 2)) > good:
        if probe(size) <= limit:
            good = size
        else:
            bad = size
    return good
