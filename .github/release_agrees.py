"""`python .github/release_agrees.py TAG REPOSITORY`: exit 1 where a release differs from its tag or its repository.

A package that names another repository would send its users to strangers.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def differences(root: Path, tag: str, repository: str) -> Iterator[str]:
    """Yield what differs, one line each; `repository` is the address of the one that releases."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    version = project["version"]
    if tag != f"v{version}":
        yield f"pyproject.toml has version {version}, but the tag is {tag}"
    module = re.search(r'^__version__ = "(.*)"$', (root / "taskengine/__init__.py").read_text("utf-8"), re.MULTILINE)
    if module is None or module[1] != version:
        yield f"taskengine/__init__.py has another __version__ than {version}"
    if not re.search(
        rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", (root / "CHANGELOG.md").read_text("utf-8"), re.M
    ):
        yield f"CHANGELOG.md has no line `## [{version}] - YEAR-MONTH-DAY`"
    for name, address in project["urls"].items():
        is_same = address == repository if name == "Repository" else ".invalid" not in address
        if not is_same:
            yield f"[project.urls] {name} of pyproject.toml is {address}; the repository that releases is {repository}"


def main() -> int:
    found = list(differences(ROOT, *sys.argv[1:]))
    print(*found, sep="\n", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
