"""Examines a built site: links lead somewhere, nothing comes from another server, the reference has every name."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from website.reference import REFERENCE


class Built(HTMLParser):
    """A built page: the places that links may lead to, its links, and what a browser fetches to show it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "src" in values:
            self.fetched.add(values["src"])
        if "href" in values:
            is_shown = tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon", "preconnect")
            (self.fetched if is_shown else self.links).add(values["href"])


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong with the site in a folder, one line each."""
    pages = {path: Built(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        yield f"{site} has no pages"
    for path, page in pages.items():
        name = path.relative_to(site)
        for target in sorted(page.fetched | page.links):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.fetched and parts.scheme != "data":
                    yield f"{name} fetches {target}"
                continue
            # 404.html is shown at any address, so its links begin at the root
            there = site / parts.path.lstrip("/") if name.name == "404.html" else path.parent / unquote(parts.path)
            there = path if not parts.path else there.resolve()
            if not there.exists():
                yield f"{name} links to {target}, which is not there"
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
                yield f"{name} links to {target}, a part that the page does not have"
    for uri, described in REFERENCE.items():
        page = pages.get(site / uri.replace(".md", ".html"), Built(""))
        yield from (f"{uri} lacks {full}" for full in described.names if full not in page.anchors)
