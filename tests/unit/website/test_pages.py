"""Links of the repository's pages, as they are on the site."""

from __future__ import annotations

import pytest

from website.pages import in_repository, rewrite, site_uri


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("README.md", "index.md"),
        ("docs/tasks.md", "tasks.md"),
        ("docs/images/overview.svg", "images/overview.svg"),
        ("SECURITY.md", "SECURITY.md"),
        ("examples/arm/README.md", "examples/arm/README.md"),
    ],
)
def test_where_a_file_is_on_the_site(path: str, uri: str) -> None:
    assert site_uri(path) == uri
    assert in_repository(uri) == path


@pytest.mark.parametrize(
    ("uri", "text", "turned", "linked"),
    [
        ("index.md", "[t](docs/tasks.md#types)", "[t](tasks.md#types)", {"docs/tasks.md"}),
        ("index.md", "![p](docs/images/overview.svg)", "![p](images/overview.svg)", {"docs/images/overview.svg"}),
        ("tasks.md", "[c](clients.md)", "[c](clients.md)", {"docs/clients.md"}),
        ("tasks.md", "[s](../SECURITY.md)", "[s](SECURITY.md)", {"SECURITY.md"}),
        ("tasks.md", "[r](../README.md)", "[r](index.md)", {"README.md"}),
        ("examples/README.md", "[n](../docs/network.md)", "[n](../network.md)", {"docs/network.md"}),
        ("examples/arm/README.md", "[d](drive.py)", "[d](drive.py)", {"examples/arm/drive.py"}),
        ("api/client.md", "[c](../clients.md#errors)", "[c](../clients.md#errors)", {"clients.md"}),
        ("tasks.md", "[here](#types) [there](https://example.org/a)", None, set()),
        ("tasks.md", "```text\n[t](docs/tasks.md)\n```\n", None, set()),
    ],
)
def test_links(uri: str, text: str, turned: str | None, linked: set[str]) -> None:
    assert rewrite(text, uri) == (text if turned is None else turned, linked)


def test_pictures_of_other_servers_are_left_out() -> None:
    assert rewrite("# A\n![b](https://example.org/b.svg) ![c](c.svg)", "tasks.md")[0] == "# A\n![c](c.svg)"
