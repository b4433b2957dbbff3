"""What mkdocs calls: pages of the repository outside of docs/, the files that pages link to, and the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.pages import DOCS, PAGES, rewrite, site_uri
from website.reference import REFERENCE, markdown

ROOT = Path(__file__).resolve().parents[1]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of the reference in the navigation."""
    sections: list[dict[str, Any]] = config.nav or []
    for section in sections:
        if "API" in section:
            section["API"] = [{page.title: uri} for uri, page in REFERENCE.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/, and each file that a page links to."""
    for uri, page in REFERENCE.items():
        files.append(File.generated(config, uri, content=markdown(page)))
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text("utf-8")))
    linked: set[str] = set()
    for file in files.documentation_pages():
        linked |= rewrite(file.content_string, file.src_uri)[1]
    for path in sorted(linked - PAGES.keys()):
        if not path.startswith(DOCS) and (ROOT / path).is_file() and not files.get_file_from_path(site_uri(path)):
            files.append(File.generated(config, site_uri(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of the repository into those of the site."""
    return rewrite(text, page.file.src_uri)[0]
