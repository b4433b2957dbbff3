"""What the examination of a built site finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from website import check
from website.reference import Page

GOOD = '<h1 id="top">A</h1><a href="b.html#part">b</a><a href="https://example.org/">out</a><img src="p.svg">'
OTHER = '<h2 id="part">B</h2><a href="../a.html">a</a><a href="#part">here</a><img src="data:image/png;base64,AA==">'


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "REFERENCE", {"a.md": Page("A", "", ("top",))})


def faults(folder: Path, **pages: str) -> list[str]:
    (folder / "p.svg").touch()
    for name, text in pages.items():
        path = folder / f"{name.replace('_', '/')}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return list(check.faults(folder))


def test_a_site_without_faults(tmp_path: Path) -> None:
    assert faults(tmp_path, a=GOOD, b=OTHER.replace("../", ""), sub_c=OTHER) == []


@pytest.mark.parametrize(
    ("tag", "fault"),
    [
        ('<a href="c.html">', "a.html links to c.html, which is not there"),
        ('<a href="b.html#none">', "a.html links to b.html#none, a part that the page does not have"),
        ('<a href="#none">', "a.html links to #none, a part that the page does not have"),
        ('<img src="q.svg">', "a.html links to q.svg, which is not there"),
        ('<script src="https://example.org/x.js">', "a.html fetches https://example.org/x.js"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "a.html fetches //example.org/x.css"),
    ],
)
def test_a_fault(tag: str, fault: str, tmp_path: Path) -> None:
    assert faults(tmp_path, a=GOOD + tag, b=OTHER.replace("../", "")) == [fault]


def test_a_name_that_the_reference_lacks(tmp_path: Path) -> None:
    assert faults(tmp_path, a="", b=OTHER.replace("../", "")) == ["a.md lacks top"]


def test_a_site_without_pages(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"{tmp_path} has no pages", "a.md lacks top"]
