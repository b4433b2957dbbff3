"""`python -m website [FOLDER]`: build the site into a folder (build/site), strictly, and examine it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from website.check import faults

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "website" / "mkdocs.yml"


def main() -> int:
    """Return the exit code: 0 for a site without faults."""
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # an advertisement that the theme prints
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config = load_config(str(CONFIG), site_dir=str(site))
    try:
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    except Abort as error:
        print(error, file=sys.stderr)
        return 1
    found = list(faults(site))
    print(*found, f"{len(list(site.rglob('*.html')))} pages, {len(found)} faults", sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
