"""Where the repository's pages are on the site, and how their links lead there. Pure."""

from __future__ import annotations

import posixpath
import re

PAGES = {
    "README.md": "index.md",
    **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")},
    **{name: name for name in (f"examples/{folder}README.md" for folder in ("", "arm/", "rover/", "first_tasks/"))},
}
"""Pages of the site by their paths in the repository, for those outside of docs/."""
DOCS = "docs/"
_LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
_REMOTE_PICTURE = re.compile(r"!\[[^\]]*\]\(https?://[^)]*\) ?")
_FENCE = re.compile(r"^( *(?:```|~~~).*?^ *(?:```|~~~)$)", re.DOTALL | re.MULTILINE)


def site_uri(path: str) -> str:
    """Return where the site has a file of the repository."""
    return PAGES.get(path, path.removeprefix(DOCS))


def in_repository(uri: str) -> str:
    """Return the file of the repository that the site has at `uri`."""
    paths = {there: path for path, there in PAGES.items()}
    return paths.get(uri, uri if uri.startswith("api/") else DOCS + uri)


def rewrite(text: str, uri: str) -> tuple[str, set[str]]:
    """Return the text of the page at `uri` with links as the site needs them, and the files that they lead to.

    Pictures of other servers are left out, so that a reader of the site tells nobody of it.
    """
    linked: set[str] = set()
    page = in_repository(uri)

    def turn(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[2]))
        linked.add(path)
        return f"{found[1]}{posixpath.relpath(site_uri(path), posixpath.dirname(uri) or '.')}{found[3]}"

    parts = _FENCE.split(text)
    for number in range(0, len(parts), 2):  # between the fences
        parts[number] = _LINK.sub(turn, _REMOTE_PICTURE.sub("", parts[number]))
    return "".join(parts), linked
