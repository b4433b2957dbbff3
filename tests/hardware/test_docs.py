"""docs/hardware.md says what is true: its tables are the code's own, its examples load and run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskengine import Client
from taskengine.config.loading import load
from taskengine_hardware.board_config import HEADER, PCA9685
from taskengine_hardware.board_config import KEYS as BOARD_KEYS
from taskengine_hardware.commands import NAMES
from taskengine_hardware.device_types import KINDS, DeviceType, Option
from tests.engine import Engine, deadline
from tests.system.test_docs import ADDRESS, ROOT, blocks, run_python

PAGE = "docs/hardware.md"
SAFETY = "docs/safety.md"
TEXT = (ROOT / PAGE).read_text()
OURS = (
    *("type", "lane", "safe", "lease", "limits", "max_age", "untimed", "on_fault", "home", "soft_start"),
    *("stop", "enable", "beat", "rate", "always", "batch"),
    *("range", "max_rate", "stuck_after", "required", "stops", "normally", "blocks"),
)


def ticked(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def pins(kind: DeviceType) -> str:
    if kind.groups:
        return f"{ticked(kind.groups)}: each a list, forward, backward, and enable if there is one"
    spare = f"{ticked(kind.spare)} where they are not the bus's own" if kind.bus else f"may have {ticked(kind.spare)}"
    return "; ".join([part for part in (ticked(kind.pins), spare if kind.spare else "") if part])


def types_table() -> str:
    """A row for each type, or for several that differ in nothing but the name."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for kind in KINDS.values():
        reads = " ".join(part for part in (kind.reads, f"({kind.unit})" if kind.unit else "") if part)
        what = kind.role.value if kind.is_output else f"input: {reads}"
        lease = "0.5 s" if kind.is_leased else "none" if kind.is_output else ""
        rows.setdefault((what, pins(kind), ticked(tuple(kind.options)), lease), []).append(kind.name)
    lines = [f"| {' | '.join([', '.join(names), *cells])} |" for cells, names in rows.items()]
    return "\n".join(["| type | role | pins | options | lease |", "|---|---|---|---|---|", *lines])


def exact(number: float) -> str:
    return f"{number:.5f}".rstrip("0").rstrip(".")


def span(option: Option) -> str:
    """The range of an option; "" where it has none."""
    if option.choices:
        return f"{', '.join(map(str, option.choices[:-1]))} or {option.choices[-1]}"
    if option.type not in (int, float):
        return ""
    least, most = exact(option.least), exact(option.most)
    return least if least == most else f"{least} to {most}"


def spans(cell: str) -> str:
    """Those of the options of a row, each with all that its types have."""
    ranges = []
    for name in cell.split("`, `"):
        each = dict.fromkeys(span(kind.options[name]) for kind in KINDS.values() if name in kind.options)
        ranges.append(", ".join(filter(None, each)))
    told = list(filter(None, ranges))
    return told[0] if told and len(set(told)) == 1 else "; ".join(told)


def signatures() -> Iterator[str]:
    """The tasks with their arguments, as the page has them."""
    for name, method in NAMES.items():
        arguments = []
        for argument in list(inspect.signature(method).parameters.values())[1:]:
            text = argument.replace(annotation=inspect.Parameter.empty)
            arguments.append(str(text).replace("'", '"'))
        yield f"{name}({', '.join(arguments)})"


def first_column(after: str, text: str = TEXT) -> list[str]:
    """The first cells of the table that follows a line, without their ticks."""
    table = text[text.index(f"\n{after}\n") :]
    rows = re.search(r"^\|.*?\n\|[-|]+\|\n((?:\|.*\n)+)", table, re.MULTILINE)
    assert rows is not None
    return re.findall(r"^\| `(.+?)` \|", rows[1], re.MULTILINE)


def test_the_types_are_the_codes() -> None:
    assert types_table() in TEXT


def test_the_tasks_are_the_codes() -> None:
    assert first_column("## Tasks") == list(signatures())


def test_every_key_of_a_device_is_told() -> None:
    assert tuple(first_column("### A device")) == OURS


def test_every_option_is_told() -> None:
    cells = first_column("### Options")
    assert {name for cell in cells for name in cell.split("`, `")} == {
        option for kind in KINDS.values() for option in kind.options
    }
    for cell in cells:
        assert f"\n| `{cell}` | {spans(cell)} |" in TEXT


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "toml"))))
def test_the_settings_load(number: int, tmp_path: Path) -> None:
    file = tmp_path / "taskengine.toml"
    file.write_text(blocks(PAGE, "toml")[number])
    settings = load(file, {}, {})
    assert settings.machine() is not None or settings.policy is not None


def test_the_pictures_are_there_and_are_pictures() -> None:
    pictures = re.findall(r"!\[.+?\]\((hardware/[\w-]+\.svg)\)", TEXT)
    assert {f"hardware/{path.name}" for path in (ROOT / "docs/hardware").iterdir()} == set(pictures)
    for picture in pictures:
        text = (ROOT / "docs" / picture).read_text()
        assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
        assert text.endswith("</svg>\n")


def anchors(page: Path) -> set[str]:
    """Return the names of the parts of a page, to which links may lead."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [PAGE, SAFETY, "examples/arm/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^):#]*)#?([^):]*)\)", (ROOT / page).read_text()):
        there = (ROOT / page).parent.joinpath(target) if target else ROOT / page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), anchor


@pytest.mark.system
def test_the_examples_run(tmp_path: Path) -> None:
    """All of them with the first settings, which are those of the first steps."""
    (tmp_path / "taskengine.toml").write_text(blocks(PAGE, "toml")[0])
    modules = [block for block in blocks(PAGE, "python") if "@task" in block]
    scripts = [block for block in blocks(PAGE, "python") if "@task" not in block]
    assert modules
    assert scripts
    for number, module in enumerate(modules):
        (tmp_path / f"example{number}.py").write_text(module)
    tasks = ",".join(f"example{number}.py" for number in range(len(modules)))
    with Engine(cwd=tmp_path, pins="mock", tasks=tasks) as engine:
        for script in scripts:
            ran = run_python(script.replace(ADDRESS, engine.address))
            assert (ran.returncode, ran.stderr) == (0, ""), script
        with Client(engine.address, timeout=deadline(5.0)) as client:
            assert [task.name for task in client.tasks() if task.name == "pan.nod"]
            assert client.call("pan.nod", 2) == 2.0


def test_every_key_of_a_board_is_told() -> None:
    assert tuple(first_column("### PCA9685")) == ("type", *BOARD_KEYS[PCA9685])


def test_the_devices_of_the_header_are_told() -> None:
    row = next(line for line in TEXT.splitlines() if line.startswith("| the chip's device |"))
    assert set(re.findall(r"`(.+?)`", row)) == set(HEADER)
