"""What needs a thread sanitizer and compilers for other machines: `make test-claims`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.claims.programs import HEADERS, compiled, race

ROUNDS = 3000


def test_the_thread_sanitizer_finds_nothing(tmp_path: Path) -> None:
    told = race(compiled("races.c", tmp_path / "races", "-pthread", "-fsanitize=thread", "-g"), "threads", ROUNDS)
    assert told.startswith("exit code 0:"), told
    assert "WARNING" not in told


@pytest.mark.parametrize(
    ("ours", "broken", "seen"),
    [
        pytest.param(
            "memory_order_release);\n            }",
            "memory_order_relaxed);\n            }",
            "data race",
            id="results published without release",
        ),
        pytest.param(
            "claimed = claim_tasks(&board->word, 1 + drawn(&state) % 4)",
            "claimed = claim_unclaimed(&board->word) ? (sched_yield(), 1) : 0, "
            "atomic_fetch_add(&board->word, claimed), claimed",
            "lost or doubled",
            id="a claim in two steps",
        ),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, ours: str, broken: str, seen: str) -> None:
    source = (Path(__file__).parent / "races.c").read_text()
    assert ours in source
    (tmp_path / "broken.c").write_text(source.replace(ours, broken))
    program = tmp_path / "broken"
    flags = ("-std=gnu11", "-O2", f"-I{HEADERS}", "-pthread", "-fsanitize=thread", "-g")
    subprocess.run(["gcc", *flags, str(tmp_path / "broken.c"), "-o", str(program)], check=True)
    for seed in range(20):
        told = race(program, "threads", 20 * ROUNDS, seed)
        if not told.startswith("exit code 0:") and seen in told:
            return
    raise AssertionError(told)


@pytest.mark.parametrize(
    ("compiler", "flags", "exclusive"),
    [
        ("aarch64-linux-gnu-gcc", ("-march=armv8-a", "-mno-outline-atomics"), ("ldaxr", "stlxr")),
        ("aarch64-linux-gnu-gcc", ("-march=armv8.1-a",), ("casal",)),
        ("arm-linux-gnueabihf-gcc", ("-march=armv7-a", "-mfpu=vfpv3-d16"), ("ldrex", "strex", "dmb")),
    ],
)
def test_other_machines_swap_in_one_instruction_pair(
    tmp_path: Path, compiler: str, flags: tuple[str, ...], exclusive: tuple[str, ...]
) -> None:
    assert shutil.which(compiler), f"{compiler} is missing: apt-get install gcc-{compiler.removesuffix('-gcc')}"
    text = compiled("words.c", tmp_path / "words.s", "-S", *flags, compiler=compiler).read_text()
    for instruction in exclusive:
        assert instruction in text, text
    assert "__atomic_" not in text, "a call into libatomic"
    assert "__aarch64_" not in text
