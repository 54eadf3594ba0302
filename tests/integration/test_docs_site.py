"""The documentation as a site: built without a warning, complete, whole, and of use without a network."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytestmark = pytest.mark.turn(0)

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("https:", "http:", "mailto:", "data:")
LOADED = {"script", "link", "img", "source", "iframe"}


class Page(HTMLParser):
    """What a page links to, what a browser loads for it, and the places in it that can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.navigation: list[str] = []
        self.places: set[str] = set()
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        given = {name: value or "" for name, value in attributes}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if "reference internal" in given.get("class", ""):
                self.navigation.append(given["href"])
        if tag in LOADED:
            self.loaded += [given[name] for name in ("href", "src", "srcset") if name in given]


def built(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "docs", site], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("docs") / "site"
    done = built(site)
    assert done.returncode == 0, done.stdout + done.stderr
    return site


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def sources() -> list[str]:
    """Every page that a reader may be sent to."""
    outside = ["README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "grafana/runbooks", "ansible_collection/README"]
    return [f"docs/{file.stem}" for file in sorted((ROOT / "docs").glob("*.md"))] + outside


@pytest.mark.parametrize("source", sources())
def test_every_page_is_reached_from_the_navigation(site: Path, pages: dict[Path, Page], source: str) -> None:
    """Each page of docs/ and each one beside it is in the menu of the first page."""
    first = site / "docs" / "index.html"
    reached = {(first.parent / urldefrag(link).url).resolve() for link in pages[first].navigation}
    assert (site / f"{source}.html").resolve() in reached | {first.resolve()}


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Pages, places in them, pictures in both their forms, the OpenAPI document."""
    lost = []
    for file, page in pages.items():
        for link in page.links + page.loaded:
            if link.startswith(ELSEWHERE):
                continue
            target, place = urldefrag(link)
            there = (file.parent / unquote(target.partition("?")[0])).resolve() if target else file
            if not there.is_file() or (place and there in pages and unquote(place) not in pages[there].places):
                lost.append((str(file.relative_to(site)), link))
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    """It can be read in a network without a way out."""
    assert [link for page in pages.values() for link in page.loaded if link.startswith(ELSEWHERE)] == []


def test_the_search_knows_every_page(site: Path) -> None:
    """The index is a script, so that it is found on a disk, too."""
    text = (site / "searchindex.js").read_text("utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert set(sources()) <= set(index["docnames"])
    assert index["terms"]["fingerprint"]


def test_the_openapi_document_comes_along(site: Path) -> None:
    """As a running exporter serves it."""
    described = json.loads((site / "docs" / "openapi.json").read_text("utf-8"))
    assert "/api/v1/gate" in described["paths"]


def test_what_is_no_page_is_shown_by_the_repository(site: Path, pages: dict[Path, Page]) -> None:
    """Tests that prove a promise, examples and folders."""
    links = [
        link for link in pages[site / "docs" / "guarantees.html"].links if link.endswith("tests/faults/test_kill.py")
    ]
    assert links
    assert all(link.startswith("https://github.com/") for link in links)
