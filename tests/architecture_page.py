"""`python -m tests.architecture_page`: make the tables of docs/architecture.md from the modules' first lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_layering import PURE

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/architecture.md"
FOLDERS = (
    *("protocol", "broker", "config", "registry", "security", "runtime", "client", "router", "worker", "recording"),
    *("supervisor", "doctor", "cli"),
)
"""From the bottom up: a folder imports only from those before it."""
BEGIN, END = "<!-- begin: python -m tests.architecture_page -->\n", "<!-- end -->\n"
HEAD = "| file | what it holds | |\n|---|---|---|"
TOP = "the public modules and the compiled ones"
HARDWARE = "what owns pins, installed as `taskengine_hardware`; uses only what `taskengine` exports"


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring, without its period and the word Pure."""
    found = re.match(r'(?:#.*\n)*"""(.*?)(?:"""|\n)', path.read_text("utf-8"))
    assert found is not None, f"{path} has no docstring"
    return re.sub(r"[. ]*(Pure\b.*)?$", "", found[1])


def mark(name: str) -> str:
    """Return what the last column says of a module, such as `broker/lane.py`."""
    if name.endswith(".pyx"):
        return "compiled"
    return "pure" if name.removesuffix(".py") in PURE else ""


def rows(folder: Path, within: Path) -> Iterator[str]:
    for path in sorted([*folder.glob("*.py"), *folder.glob("*.pyx")]):
        if not path.name.startswith("__"):
            name = path.relative_to(ROOT)
            yield f"| `{name}` | {first_line(path)} | {mark(str(path.relative_to(within)))} |"


def tables() -> str:
    """Return every table, each with its heading."""
    package = ROOT / "taskengine"
    parts = [f"### The top of `taskengine/`: {TOP}", HEAD, *rows(package, package), ""]
    for name in FOLDERS:
        says = first_line(package / name / "__init__.py")
        parts += [f"### `taskengine/{name}/`: {says[0].lower()}{says[1:]}", HEAD, *rows(package / name, package), ""]
    parts += [f"### `hardware/`: {HARDWARE}", HEAD, *rows(ROOT / "hardware", ROOT / "hardware")]
    return "\n".join([*parts, ""])


def page() -> str:
    """Return the text of docs/architecture.md with its tables made anew."""
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
