"""Chromium opens the pages, wide and on a phone, in light and dark."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.harness import pages
from tests.harness.chromium import PHONE, WIDE, install, look, visit
from tests.harness.pages import Accounts, Site
from tests.harness.sizes import all_or_few
from tests.serving import serving

from patrolserver_exporter.sync.exporters import LivingExporter
from patrolserver_exporter.web.http.protocol import ConnectionLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from patrolserver_exporter.store import Store

DESK = (1600, 1000)
LOOKS = [(size, scheme) for size in (DESK, PHONE) for scheme in ("light", "dark")]
LISTS = ("/issues", "/software", "/exploits", "/changes")
OPPOSITES = [(WIDE, "light"), (PHONE, "dark")]


@pytest.fixture(scope="session")
def programs(require_program: Callable[[str], str]) -> tuple[str, str]:
    """Node and Chromium, with the packages that the lock names."""
    problem = install(require_program("npm"))
    if problem:
        pytest.skip(f"npm ci: {problem}")
    return require_program("node"), require_program("chromium")


def seen(
    programs: tuple[str, str],
    site: Site,
    paths: Sequence[str],
    folder: Path,
    looks: Sequence[tuple[tuple[int, int], str]] = OPPOSITES,
    **more: object,
) -> list[dict[str, Any]]:
    """Visit each path in each look; every visit is asserted to be free of what no page may have."""
    with serving(site.app(), limits=ConnectionLimits()) as served:
        base = f"http://127.0.0.1:{served.port}"
        visits = [
            visit(base + path, size, scheme, picture=str(folder / f"{index}-{size[0]}-{scheme}.png"), **more)
            for index, path in enumerate(paths)
            for size, scheme in looks
        ]
        found = look(*programs, visits)
    for ordered, page in zip(visits, found, strict=True):
        where = f"{ordered['url']} at {ordered['width']} px, {ordered['scheme']}"
        assert page["violations"] == [], where
        assert page["overflow"] <= 0, f"{where} scrolls sideways"
        assert page["canary"] is None, f"{where} ran a script of a name"
        assert page["requested"] == [ordered["url"]], f"{where} fetched something else"
        assert [line for line in page["console"] if "404" not in line] == [], where
    return found


def test_the_pages_are_accessible_and_fit_wide_and_phone_in_light_and_dark(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """axe-core finds no violation, nothing scrolls sideways, and nothing but the page is fetched."""
    site = Site(store, pages.realistic(store))
    paths = ["/", "/servers/1?account=main", "/?severity=critical&account=main", *LISTS]
    found = seen(programs, site, paths, tmp_path, LOOKS)
    assert {page["status"] for page in found} == {200}
    pictures = list(tmp_path.glob("*.png"))
    assert len(pictures) == len(found)
    assert len({picture.read_bytes() for picture in pictures[:4]}) == 4, "light and dark, wide and phone look the same"


@pytest.mark.sized
def test_nothing_scrolls_sideways_at_the_widths_in_between(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """From the smallest phone over tablets to a laptop, around the widths at which the layout changes."""
    widths = all_or_few((320, 768, 1024, 1030, 1280, 1400, 1412), 3)
    site = Site(store, pages.realistic(store))
    seen(
        programs,
        site,
        ["/", "/servers/1?account=main", *LISTS],
        tmp_path,
        [((width, 800), "light") for width in widths],
        only_layout=True,
    )


def test_pages_of_trouble_are_accessible_too(store: Store, programs: tuple[str, str], tmp_path: Path) -> None:
    """So are the notices, the choice between accounts and the page that was not found."""
    site = Site(store, pages.trouble(store, pages.realistic(store)))
    seen(programs, site, ["/", "/servers/3?account=main", "/servers/2", "/servers/none"], tmp_path)


def living(name: str, *accounts: str, is_this: bool = False) -> LivingExporter:
    """An exporter that works on the store."""
    return LivingExporter(name, "host", 7, "1", is_this=is_this, accounts=accounts, config_differs=not is_this)


@pytest.mark.parametrize("media", ["screen", "print"])
def test_pages_of_exporters_that_share_a_database_are_accessible_too(
    media: str, store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """Who polls which account, one of them in trouble, with long names; on screens, phones and paper."""
    accounts = pages.trouble(store, pages.realistic(store))
    exporters = (living("a", "hosting", is_this=True), living("exporter-" + "b" * 120, "main"), living("c"))
    site = Site(store, accounts, exporters=exporters)
    paths = ["/", "/?account=main"] if media == "screen" else ["/", "/servers/1?account=main", "/servers/2"]
    looks = LOOKS if media == "screen" else [(DESK, "light")]
    found = seen(programs, site, paths, tmp_path, looks, media=media, full=True)
    assert {page["status"] for page in found} <= {200, 300}


def test_an_account_that_nobody_polls_is_accessible_too(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """And an exporter that cannot follow the database, and so does not know who polls."""
    accounts = replace(pages.realistic(store), follows=False)
    seen(
        programs, Site(store, accounts, exporters=(living("a", is_this=True), living("b"))), ["/"], tmp_path, full=True
    )


def test_an_empty_fleet_is_accessible_too(store: Store, programs: tuple[str, str], tmp_path: Path) -> None:
    """The first page of all that anybody sees."""
    seen(programs, Site(store, Accounts((pages.status("main", 0),), ready=False)), ["/"], tmp_path)


def test_hostile_names_run_nothing_and_break_no_layout(store: Store, programs: tuple[str, str], tmp_path: Path) -> None:
    """A real browser makes no element of them, and 200 characters without a space fit a phone."""
    found = seen(programs, Site(store, pages.hostile(store)), ["/", "/servers/6?account=main", *LISTS], tmp_path)
    assert {page["status"] for page in found} == {200}


def test_a_phone_names_what_the_heading_of_a_column_said(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """Two exploits are no bare 2 there, nor a time one that nobody knows what of."""
    cells = [f'.fleet td[data-label="{name}"]' for name in ("Exploits", "Data from")]
    styles = [(cell, "content", "::before") for cell in cells]
    looks = [(PHONE, "light"), (DESK, "light")]
    site = Site(store, pages.realistic(store))
    phone, desk = seen(programs, site, ["/"], tmp_path, looks, styles=styles, only_layout=True)
    assert phone["styles"] == ['"Exploits "', '"Data from "']
    assert desk["styles"] == ["none", "none"]


def test_long_versions_leave_room_for_the_number_of_servers(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """Not one word in each line."""
    width = ('.list td[data-label="Servers"]', "width", "")
    looks = [(DESK, "light")]
    site = Site(store, pages.hostile(store))
    (page,) = seen(programs, site, ["/software"], tmp_path, looks, styles=[width], only_layout=True)
    assert float(page["styles"][0].removesuffix("px")) >= 120


def test_the_keyboard_reaches_everything_visibly(store: Store, programs: tuple[str, str], tmp_path: Path) -> None:
    """The first tab leads to the content, and whatever has the focus shows it."""
    page, *_ = seen(programs, Site(store, pages.realistic(store)), ["/"], tmp_path, [(WIDE, "light")], tabs=40)
    assert page["tabs"][0]["name"] == "Skip to the content"
    assert {"q", "severity", "state", "account", "Show"} <= {tab["name"].splitlines()[0] for tab in page["tabs"]} | {
        tab["field"] for tab in page["tabs"]
    }
    assert all(tab["outlined"] for tab in page["tabs"])


def test_fifty_servers_take_two_sheets_of_paper_and_keep_their_colours(
    store: Store, programs: tuple[str, str], tmp_path: Path
) -> None:
    """What the colours mean is printed, also by browsers that leave backgrounds out; filters and links are not."""
    site = Site(store, pages.realistic(store))
    (page,) = seen(programs, site, ["/"], tmp_path, [(WIDE, "light")], pdf=str(tmp_path / "fleet.pdf"), media="print")
    assert page["printed"] == 2
    assert page["chip"] == {"printed": "exact", "background": "rgb(196, 22, 42)"}
    assert page["filter"] == "none"
