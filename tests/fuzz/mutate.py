"""Inputs drawn at random from a corpus, for machines for which there is no atheris."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from pathlib import Path


def mutated(chance: random.Random, corpus: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """One of the corpus, changed in a few places."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randrange(1, 5)):
        at, size = chance.randrange(len(data) + 1), chance.randrange(1, 9)
        kind = chance.randrange(6)
        if kind == 0:
            del data[at : at + size]
        elif kind == 1:
            data[at:at] = chance.randbytes(size)
        elif kind == 2:
            data[at : at + 1] = chance.randbytes(1)
        elif kind == 3:
            data[at : at + size * (size & 1)] = chance.choice(tokens)
        elif kind == 4:
            data[at:at] = data[at : at + 8 * size]
        else:
            other = chance.choice(corpus)
            data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)


def run(
    fuzz: Callable[[bytes], None],
    runs: int,
    seed: int,
    found: Path,
    corpora: Sequence[Path],
    tokens: Sequence[bytes],
) -> None:
    """Call `fuzz` so often; the input of a call that raises is written to `found`."""
    chance = random.Random(seed)
    corpus = [path.read_bytes() for folder in corpora for path in sorted(folder.iterdir())]
    for number in range(runs):
        data = corpus[number] if number < len(corpus) else mutated(chance, corpus, tokens)
        try:
            fuzz(data)
        except BaseException:
            (found / f"crash-{hashlib.sha256(data).hexdigest()}").write_bytes(data)
            raise
