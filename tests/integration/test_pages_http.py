from __future__ import annotations

import csv
import html
import io
import re
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec
import pytest
import requests
from tests.harness import pages
from tests.harness.pages import CANARY, NOW, Accounts, Site
from tests.harness.process import Exporter
from tests.harness.waiting import eventually
from tests.serving import serving

from patrolserver_exporter.config.schema import ApiToken, Scope
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.patrolserver.models import Server, Software
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.store import queries
from patrolserver_exporter.store.history import request_catch_up
from patrolserver_exporter.sync.account_updates import apply_list
from patrolserver_exporter.sync.exporters import LivingExporter
from patrolserver_exporter.sync.server_updates import apply_poll, find, show, with_state
from patrolserver_exporter.web.access import BearerTokens
from patrolserver_exporter.web.pages.words import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patrolserver_exporter.store import Store, Unit

BROWSER = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
READER = ApiToken(name="reader", token=Secret.literal("token-that-may-read-0123456789"), scopes=frozenset({Scope.READ}))


class Browser:
    """Asks for pages as browsers do."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **headers: str) -> requests.Response:
        """GET a path."""
        return requests.get(self.base + path, headers={**BROWSER, **headers}, timeout=20, allow_redirects=False)

    def text(self, path: str) -> str:
        """The page, which has to be there."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return response.text


@pytest.fixture
def browse() -> Iterator[Callable[[Site], Browser]]:
    with ExitStack() as stack:
        yield lambda site: Browser(stack.enter_context(serving(site.app())).port)


def names(text: str) -> list[str]:
    found = re.findall(r'<th scope="row" role="rowheader"><a href="/servers/[^"]*"><bdi>(.*?)</bdi>', text)
    return [name.replace("<wbr>", "") for name in found]


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
def test_the_fleet_is_shown_worst_first_and_paged(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Every server is on exactly one page, none after a better one, and the last page stands in for those behind it."""
    site = Site(store, pages.realistic(store, servers=60))
    browser = browse(site)
    first, second = browser.text("/"), browser.text("/?page=2")
    assert (len(names(first)), len(names(second))) == (50, 10)
    assert "1–50 of 60 servers" in first
    assert len(set(re.findall(r'href="(/servers/\d+\?account=\w+)"', first + second))) == 60
    counts = re.findall(r'rowheader.*?<td role="cell" class="number count[^>]*>(.*?)</td>', first + second, re.DOTALL)
    critical = [int(found[0]) if (found := re.findall(r">(\d+)<", f">{count}<")) else 0 for count in counts]
    assert critical[0] > 0
    assert critical == sorted(critical, reverse=True)
    assert names(browser.text("/?page=999")) == names(second)


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
def test_search_and_filters_leave_what_was_asked_for(store: Store, browse: Callable[[Site], Browser]) -> None:
    """By part of a name in any case, by id, software or CVE, by account, by severity, and all of it together."""
    browser = browse(Site(store, pages.realistic(store, servers=60)))
    assert all("web-0" in name for name in names(browser.text("/?q=WEB-0")))
    assert "/servers/12?account=" in browser.text("/?q=12&account=main")
    assert "account=main" not in re.sub(r"<form.*?</form>", "", browser.text("/?account=hosting"), flags=re.DOTALL)
    critical = browser.text("/?severity=critical")
    high = browser.text("/?severity=high")
    both = browser.text("/?severity=high&severity=critical")
    assert names(critical)
    assert set(names(both)) == {*names(critical), *names(high)}
    assert set(names(browser.text("/?severity=critical&q=web"))) == {n for n in names(critical) if "web" in n}
    assert "No server fits." in browser.text("/?q=%25")  # A percent sign is one, and no wildcard.
    (cve, *_) = re.findall(r"CVE-2099-\d{4}", browser.text("/exploits"))
    assert names(browser.text(f"/?q={cve.lower()}")) == names(browser.text(f"/?exploit={cve}")) != []
    assert set(names(browser.text("/?q=OpenSS"))) >= set(names(browser.text("/?software=openssl"))) != set()


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
def test_a_server_shows_issues_software_history_and_waivers(store: Store, browse: Callable[[Site], Browser]) -> None:
    """What is known of a server is on its page."""
    browser = browse(Site(store, pages.realistic(store)))
    text = browser.text("/servers/1?account=main")
    assert "<bdi>web-01.<wbr>example.<wbr>org</bdi>" in text
    assert "Your OpenSSH can be exploited." in text
    assert "scanning now" in text
    assert "Opened:" in text
    assert "was to be gone by the end of the year" in text
    assert "expired: covers nothing any more" in text


def shown_number(text: str, noun: str) -> int:
    """What a list says of its length."""
    if (found := re.search(rf"([\d,]+) {noun}s?\. <a class=\"csv\"", text)) is None:
        assert f"No {noun} fits" in text
        return 0
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
def test_every_number_of_a_tile_is_that_of_the_list_behind_it(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Issues and servers of each severity, clean and unknown servers, waived issues: the list has just as many."""
    accounts = pages.trouble(store, pages.realistic(store))
    browser = browse(Site(store, accounts))
    text = browser.text("/")
    tiles = re.findall(
        r'class="count" href="([^"]*)"><span class="figure">([\d,]+)</span> <span class="name">(.*?)</span>', text
    )
    assert [name for _, _, name in tiles[4:]] == ["clean servers", "unknown servers", "waived issues"]
    for link, figure, name in tiles:
        noun = "server" if "servers" in name else "issue"
        assert shown_number(browser.text(html.unescape(link)), noun) == int(figure.replace(",", "")), name
    for link, figure in re.findall(r'class="on"><a href="([^"]*)">on ([\d,]+) server', text):
        assert shown_number(browser.text(html.unescape(link)), "server") == int(figure.replace(",", ""))


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize(
    "path", ["/software", "/exploits", "/software?account=main&severity=high", "/exploits?waived=both"]
)
def test_every_number_of_servers_leads_to_as_many(store: Store, browse: Callable[[Site], Browser], path: str) -> None:
    """Of each software and exploit, waived ones too."""
    browser = browse(Site(store, pages.realistic(store, servers=40)))
    text = browser.text(path)
    found = re.findall(r'<a href="([^"]*)">(?:([\d,]+) servers?|waived on ([\d,]+))</a>', text)
    assert found
    for link, count, waived in found[:12]:
        assert shown_number(browser.text(html.unescape(link)), "server") == int((count or waived).replace(",", ""))


def test_what_is_written_from_right_to_left_turns_nothing_else_around(
    store: Store, browse: Callable[[Site], Browser]
) -> None:
    """A version, a name of an account and a label stand for themselves, apart from the words around them."""
    labels = {"*": {"team": "\u05e9\u05e8\u05ea"}}
    browser = browse(Site(store, pages.hostile(store), labels=labels))
    software = browser.text("/software")
    assert re.search(r"<bdi>\u05e9\u05e8\u05ea[^<]*</bdi> on 10<", software)
    assert '<span class="label"><bdi>team: \u05e9\u05e8\u05ea</bdi></span>' in browser.text("/")
    for path in ("/", "/issues", "/changes"):
        assert re.search(
            r'<span class="sub">(<span class="hidden">account </span>)?<bdi>main</bdi>', browser.text(path)
        )


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
def test_what_changed_is_counted_and_listed(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Today and in seven days, with a line; each number is that of the list behind it."""
    browser = browse(Site(store, pages.realistic(store, servers=40)))
    text = browser.text("/")
    assert "<polyline" in text
    links = re.findall(r'<a href="(/changes\?days=[^"]*)">([\d,]+)</a>', text)
    assert len(links) == 10
    assert any(count != "0" for _, count in links)
    for link, count in links:
        path = html.unescape(link)
        rows = csv.DictReader(io.StringIO(browser.get(f"{path}&format=csv").text))
        assert len(list(rows)) == int(count.replace(",", ""))
        assert browser.text(path).count('<th scope="row" role="rowheader"><bdi>') == min(
            int(count.replace(",", "")), 100
        )


@pytest.mark.parametrize("prepared_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("sort", ["name", "critical", "medium", "software", "exploits", "polled", "scanned", "worst"])
def test_every_column_sorts_the_whole_list_both_ways(
    store: Store, browse: Callable[[Site], Browser], sort: str
) -> None:
    """No server is lost or doubled by an order, and the last page of one way begins the other."""
    browser = browse(Site(store, pages.realistic(store, servers=60)))
    ways = [
        [name for page in (1, 2) for name in links_of(browser.text(f"/?sort={way}{sort}&page={page}"))]
        for way in ("", "-")
    ]
    assert len(set(ways[0])) == len(ways[0]) == 60
    assert set(ways[1]) == set(ways[0])
    assert ways[0] != ways[1]
    if sort == "name":
        found = [name for page in (1, 2) for name in names(browser.text(f"/?sort=name&page={page}"))]
        assert found == sorted(found)


def links_of(text: str) -> list[str]:
    return re.findall(r'<th scope="row" role="rowheader"><a href="(/servers/[^"]*)"', text)


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("/?severity=high&q=web", {"id", "unknown_because"}),
        ("/?state=unknown", {"id", "unknown_because"}),
        ("/?state=scanning&q=nosuch", {"id"}),
        ("/issues?severity=critical", {"fingerprint"}),
        ("/issues?q=openssl&state=all", {"fingerprint"}),
        ("/software?q=open", {"servers"}),
        ("/exploits", {"cve"}),
        ("/changes?days=1", {"change"}),
    ],
)
def test_every_list_comes_as_csv_with_just_its_rows(
    store: Store, browse: Callable[[Site], Browser], path: str, columns: set[str]
) -> None:
    """What the page filters and searches, its CSV has whole."""
    browser = browse(Site(store, pages.realistic(store)))
    response = browser.get(f"{path}{'&' if '?' in path else '?'}format=csv")
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    header = response.text.splitlines()[0].split(",")
    assert columns <= set(header)
    noun = {"/": "server", "/issues": "issue", "/exploits": "exploit"}.get(path.partition("?")[0])
    if noun:
        assert len(rows) == shown_number(browser.text(path), noun)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/?severity=High", "severity cannot be 'High'; it is one of critical, high, medium, low."),
        ("/?state=fixed", "state cannot be 'fixed'; it is one of open, clean, unknown, never, scanning."),
        ("/issues?sverity=high", "There is no parameter 'sverity' here; there are: q,"),
        ("/issues?kind=foo", "kind cannot be 'foo'"),
        ("/issues?account=nope", "There is no account 'nope'; there are: hosting, main."),
        ("/software?account=nope", "There is no account 'nope'; there are: hosting, main."),
        ("/software?state=open", "There is no parameter 'state' here"),
        ("/issues?label=teem%3Dweb", "There is no label 'teem'; there are: "),
        ("/exploits?sort=risk", "sort cannot be 'risk'; it is one of worst, name, servers, with a minus"),
        ("/exploits?page=x", "page cannot be 'x'"),
        ("/changes?days=3", "days cannot be '3'; it is one of 1, 7."),
        ("/changes?before=x", "before cannot be 'x'"),
    ],
)
def test_a_misspelt_filter_is_told_and_never_means_everything(
    store: Store, browse: Callable[[Site], Browser], path: str, said: str
) -> None:
    """As a page with a way to the whole list; as a problem for programs, and where the list was wanted as CSV."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    page, program, table = browser.get(path), browser.get(path, accept="*/*"), browser.get(f"{path}&format=csv")
    assert [one.status_code for one in (page, program, table)] == [400, 400, 400]
    assert said in html.unescape(page.text)
    assert f'<a href="{path.partition("?")[0]}">Show the whole list</a>' in page.text
    for problem in (program, table):
        assert problem.headers["content-type"] == "application/problem+json"
        assert said in problem.json()["detail"]


def test_a_misspelt_format_is_told(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Nobody takes the page for the table."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    for path in ("/", "/issues", "/software", "/exploits", "/changes"):
        response = browser.get(f"{path}?format=cvs")
        assert response.status_code == 400
        assert "format cannot be &#39;cvs&#39;; it is csv or left out." in response.text


def sent(form: str) -> Iterator[str]:
    """Where a form leads: as it stands, and with each of its options and boxes."""
    (action,) = re.findall(r'<form[^>]*action="([^"#]*)', form)
    boxes = re.findall(r'<input type="checkbox" name="(\w+)" value="(\w+)"', form)
    texts = re.findall(r'<input(?! type="checkbox")[^>]*name="(\w+)"[^>]*value="([^"]*)"', form)
    selects = re.findall(r'<select[^>]*name="(\w+)">(.*?)</select>', form, re.DOTALL)
    fields = texts + [(name, "") for name, _ in selects]
    options = [(name, value) for name, inside in selects for value in re.findall(r'<option value="([^"]+)"', inside)]
    for choices in ([], *([one] for one in boxes + options)):
        pairs = [field for field in fields if field[0] not in dict(choices)] + choices
        yield f"{action}?{urlencode([(name, html.unescape(value)) for name, value in pairs])}"


@pytest.mark.parametrize("fleet", ["realistic", "hostile"])
def test_every_link_and_form_of_the_lists_leads_to_a_list(
    store: Store, browse: Callable[[Site], Browser], fleet: str
) -> None:
    """Two steps from the first page, every address that a page makes is one that a page takes."""
    accounts = pages.hostile(store) if fleet == "hostile" else pages.trouble(store, pages.realistic(store, servers=60))
    browser = browse(Site(store, accounts, labels={"web-*": {"team": "web"}}))
    seen, step = set[str](), ["/"]
    for _ in range(3):
        ahead: dict[str, None] = {}
        for path in step:
            text = browser.text(path)
            seen.add(path)
            links = [html.unescape(link).partition("#")[0] for link in re.findall(r'href="(/[^"]*)"', text)]
            forms = [where for form in re.findall(r"<form.*?</form>", text, re.DOTALL) for where in sent(form)]
            ahead |= dict.fromkeys(
                one for one in (*links, *forms) if not one.startswith(("/api/", "/servers/", "/metrics", "/-/"))
            )
        step = sorted(set(ahead) - seen, key=lambda one: (len(one), one))[:120]
    assert len(seen) > 120


@pytest.mark.parametrize(("software", "cell"), [("known", "0"), ("none", ""), ("never polled", "")])
def test_a_server_at_which_nobody_looked_has_no_numbers(
    store: Store, browse: Callable[[Site], Browser], software: str, cell: str
) -> None:
    """Zeros would look like good news: a dash on the page, an empty cell in its CSV."""
    if software == "never polled":
        listed = [Server(id=1, name="web-01")]
        store.run(partial(apply_list, account="main", listed=listed, complete=True, now=NOW, rules=pages.RULES))
    else:
        store.run(lambda unit: polled(unit, *([SUPPORTED] if software == "known" else [])))
    browser = browse(Site(store, Accounts((pages.status("main", 1),))))
    assert browser.text("/").count('<span class="hidden">not known</span>') == (0 if cell else 4)
    (row,) = csv.DictReader(io.StringIO(browser.get("/?format=csv").text))
    assert [row[name] for name in ("critical", "high", "medium", "low", "waived")] == [cell] * 5


def test_a_page_is_jumped_to_with_all_filters(store: Store, browse: Callable[[Site], Browser]) -> None:
    """The small form keeps search, filters and order as hidden fields."""
    browser = browse(Site(store, pages.realistic(store)))
    text = browser.text("/?severity=medium&sort=name&account=main&account=hosting")
    form = re.search(r'<form[^>]*class="jump".*?</form>', text, re.DOTALL)
    assert form
    hidden = re.findall(r'type="hidden" name="(\w+)" value="(\w+)"', form[0])
    assert hidden == [("account", "main"), ("account", "hosting"), ("severity", "medium"), ("sort", "name")]


def test_the_page_of_a_server_takes_nothing_but_the_account(store: Store, browse: Callable[[Site], Browser]) -> None:
    """A mistyped one would show the server of another account."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    refused = browser.get("/servers/1?acount=hosting")
    assert refused.status_code == 400
    assert "There is no parameter 'acount' here; there are: account." in html.unescape(refused.text)
    assert browser.get("/servers/1?account=main&utm_source=mail").status_code == 200


def test_labels_filter_and_are_shown(store: Store, browse: Callable[[Site], Browser]) -> None:
    """A select for each label of the configuration; servers without it can be asked for."""
    browser = browse(Site(store, pages.realistic(store), labels={"web-*": {"team": "web"}, "db-*": {"team": "data"}}))
    text = browser.text("/?label=team%3Dweb")
    assert names(text)
    assert all(name.startswith("web-") for name in names(text))
    assert '<option value="team=web" selected>web</option>' in text
    assert "team: web" in text
    nobody = browser.text("/?label=team%3D&account=main")
    assert not [name for name in names(nobody) if name.startswith(("web-", "db-"))]
    assert "<dt>team</dt>" in browser.text("/servers/1?account=main")


def test_lists_tell_what_they_cannot_speak_for(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Servers that nobody can vouch for may have more than a list names, and it says so with their number."""
    browser = browse(Site(store, pages.trouble(store, pages.realistic(store))))
    for path in ("/issues", "/software", "/exploits"):
        text = browser.text(path)
        count, total = re.findall(r'class="gap">(\d+) of (\d+) servers', text)[0]
        assert (int(count) > 0, int(total)) == (True, 80)
        assert "2 of them never polled" in text
        total = store.read(lambda connection: len(queries.named_servers(connection, lambda _: True, ["hosting"])))
        for filters in ("account=hosting", "account=hosting&severity=low"):
            (found,) = re.findall(r'class="gap">\d+ of (\d+) servers?', browser.text(f"{path}?{filters}"))
            assert int(found) == total


def test_a_cve_is_a_link_to_what_is_told_of_it(store: Store, browse: Callable[[Site], Browser]) -> None:
    """On the pages of exploits, issues and servers."""
    browser = browse(Site(store, pages.realistic(store)))
    (link, *_) = re.findall(r'href="(https://nvd.nist.gov/vuln/detail/CVE-2099-\d{4})"', browser.text("/exploits"))
    assert link in browser.text("/issues?severity=critical") + browser.text("/issues?severity=critical&page=2")


def test_trouble_stands_at_the_top_with_what_to_do(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Refused credentials, old data, failed polls and a full inbox are all told, and no secret with them."""
    accounts = pages.trouble(store, pages.realistic(store))
    text = browse(Site(store, accounts)).text("/")
    for words in ("refuses the credentials of account main", "older than 24 hours", "last poll of 3 servers failed"):
        assert words in text
    assert "overflowed 1 hour ago" in text
    assert text.index("Needs attention") < text.index("Open issues by severity")
    assert CANARY not in text


def test_who_polls_an_account_stands_on_the_page(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Where several exporters share a database; a name is text there, too. One alone says nothing of it."""

    def living(name: str, *accounts: str, is_this: bool = False) -> LivingExporter:
        return LivingExporter(name, "h", 7, "1", is_this=is_this, accounts=accounts, config_differs=False)

    accounts = pages.realistic(store)
    shared = browse(
        Site(store, accounts, exporters=(living("a", "hosting", is_this=True), living(pages.SCRIPT, "main")))
    ).text("/")
    cards = dict(re.findall(r"<h3><bdi>(\w+)</bdi>.*?<dt>Polled by</dt><dd><bdi>(.*?)</bdi></dd>", shared, re.DOTALL))
    assert pages.SCRIPT not in cards["main"]
    assert html.unescape(cards["main"]) == f"{pages.SCRIPT!r}, process 7 on host h"
    assert cards["hosting"] == "this exporter"
    nobody = browse(Site(store, accounts, exporters=(living("a", "hosting", is_this=True),))).text("/")
    assert "no exporter at the moment" in nobody
    alone = browse(Site(store, accounts, exporters=(living("a", "hosting", "main", is_this=True),))).text("/")
    assert "Polled by" not in alone


def test_a_fleet_without_an_answer_says_what_to_wait_for(store: Store, browse: Callable[[Site], Browser]) -> None:
    """The very first page after a start helps too: it tells how to connect."""
    text = browse(Site(store, Accounts((pages.status("main", 0),), ready=False))).text("/")
    assert "Waiting for the first answer of PatrolServer" in text
    assert "scrape_configs" in text


def test_who_cannot_be_reached_said_nothing(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Neither in the notice nor in the health of the account; the page waits for no answer that came."""
    trouble = {"trouble": "account main: servers: Connection refused", "trouble_reason": FailureReason.CONNECT}
    text = browse(Site(store, Accounts((pages.status("main", 0, **trouble),), ready=False))).text("/")
    assert "<h1>No server list was read yet</h1>" in text
    assert text.count('<span class="quiet">What happened:</span> servers: Connection refused') == 2
    assert "The API says" not in text


def test_hostile_names_stay_text(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Names of servers, software, accounts and advice cannot make an element, leave an attribute or reach a link."""
    browser = browse(Site(store, pages.hostile(store)))
    hostile = quote(pages.HOSTILE[1])
    lists = ("/issues", "/software", "/exploits", "/changes", f"/issues?q={hostile}", f"/software?software={hostile}")
    for path in ("/", "/servers/1?account=main", "/servers/5?account=main", f"/?q={hostile}", *lists):
        text = browser.text(path)
        assert "window.pwned" in text
        assert "<script" not in text
        assert not re.search(r"<(img|svg(?! viewBox))\b", text)
        assert not re.search(r'href="(?!/|#|data:image/svg|https://nvd.nist.gov/)', text)


def test_an_id_in_several_accounts_asks_which(store: Store, browse: Callable[[Site], Browser]) -> None:
    """A small page links both; the account decides."""
    browser = browse(Site(store, pages.realistic(store)))
    asked = browser.get("/servers/2")
    assert asked.status_code == 300
    assert 'href="/servers/2?account=hosting"' in asked.text
    assert 'href="/servers/2?account=main"' in asked.text
    assert "hosting" in browser.text("/servers/2?account=hosting")


def test_a_server_that_is_gone_says_so(store: Store, browse: Callable[[Site], Browser]) -> None:
    """It leaves the list at once, and its page stays for a while, as a 410 that tells since when."""
    accounts = pages.realistic(store)
    kept = [Server(id=1, name="web-01.example.org")]
    for now in (NOW - pages.RULES.settle, NOW):
        store.run(partial(apply_list, account="main", listed=kept, complete=True, now=now, rules=pages.RULES))
    browser = browse(Site(store, accounts))
    assert "/servers/30?account=main" not in browser.text("/")
    for asked in (browser.get("/servers/30?account=main"), browser.get("/servers/30", accept="*/*")):
        assert asked.status_code == 410
        assert "This server is no longer watched" in asked.text
        assert f"no longer has this server since {moment(NOW, NOW).shown}" in asked.text


REASSURED = "None. Nothing to do here."
SUPPORTED = Software(name="nginx", canonical_name="nginx", version="1.26.2", supported=True, exploits=())


def polled(unit: Unit, *software: Software, complete: bool = True) -> None:
    """The one server of the account main is listed, and polled with what is given."""
    apply_list(unit, "main", [Server(id=1, name="web-01")], complete=True, now=NOW - 60, rules=pages.RULES)
    apply_poll(
        unit,
        "main",
        1,
        software,
        complete=complete,
        started_at=NOW - 30,
        next_poll_at=NOW + 900,
        now=NOW - 29,
        rules=pages.RULES,
    )


def test_a_server_beyond_doubt_is_told_to_need_nothing(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Its software is known, and fine."""
    store.run(lambda unit: polled(unit, SUPPORTED))
    assert REASSURED in browse(Site(store, Accounts((pages.status("main", 1),)))).text("/servers/1")


@pytest.mark.parametrize("case", ["empty", "unknown", "partial", "event", "delivery", "refused"])
def test_where_something_is_unknown_nobody_is_told_that_there_is_nothing_to_do(
    store: Store, browse: Callable[[Site], Browser], case: str
) -> None:
    """No software, software in a state that nobody knows, a part, an event, a delivery, or credentials in doubt."""
    found = {"empty": (), "unknown": (SUPPORTED, msgspec.structs.replace(SUPPORTED, version=None, supported=None))}
    store.run(lambda unit: polled(unit, *found.get(case, (SUPPORTED,)), complete=case != "partial"))
    if case == "event":
        store.run(note_event)
    if case == "delivery":
        store.run(lambda unit: request_catch_up(unit.connection, "main", NOW))
    status = pages.status("main", 1, credentials_refused=case == "refused")
    text = browse(Site(store, Accounts((status,)))).text("/servers/1")
    assert "Nothing to do here" not in text
    assert "None is known; see above what is not." in text
    assert "Needs attention" in text or "Good to know" in text


def note_event(unit: Unit) -> None:
    record = find(unit, "main", 1)
    assert record is not None
    show(unit, with_state(record, msgspec.structs.replace(record.state, event_received_at=NOW - 5)))


def test_what_is_said_of_the_servers_of_a_software_stays_apart(store: Store, browse: Callable[[Site], Browser]) -> None:
    """How many, on how many its state is not known, and how many are in doubt; a version of unknown state says so."""
    outdated = msgspec.structs.replace(SUPPORTED, version="1.26.0", supported=False, newest_bugfix_release="1.26.2")
    unknown = msgspec.structs.replace(SUPPORTED, supported=None)
    store.run(lambda unit: polled(unit, outdated, unknown))
    text = browse(Site(store, Accounts((pages.status("main", 1),)))).text("/software")
    (cell,) = re.findall(r'data-label="Servers">(.*?)</td>', text, re.DOTALL)
    assert re.sub(r"<.*?>", "", cell) == "1 server; state unknown on 1; 1 with doubtful data"
    (versions,) = re.findall(r'data-label="Versions">(.*?)</td>', text)
    assert re.findall(r'<span class="line"><bdi>(.*?)</bdi> (.*?)</span>', versions) == [
        ("1.26.0", "on 1"),
        ("1.26.2", "on 1 (state unknown)"),
    ]


def test_a_server_that_is_gone_had_no_issue_when_it_was_last_seen(
    store: Store, browse: Callable[[Site], Browser]
) -> None:
    """What it has now, nobody knows."""
    store.run(lambda unit: polled(unit, SUPPORTED))
    for now in (NOW - pages.RULES.settle, NOW):
        store.run(partial(apply_list, account="main", listed=[], complete=True, now=now, rules=pages.RULES))
    gone = browse(Site(store, Accounts((pages.status("main", 0),)))).get("/servers/1")
    assert gone.status_code == 410
    assert "None when it was last seen." in gone.text
    assert "Nothing to do here" not in gone.text


@pytest.mark.parametrize(
    "path", ["/servers/99999", "/servers/none", "/servers/9999999999999999999999", "/servers/1?account=x"]
)
def test_an_unknown_server_is_a_404_in_the_form_that_was_asked_for(
    store: Store, browse: Callable[[Site], Browser], path: str
) -> None:
    """A page for browsers, a problem document for programs."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    page, problem = browser.get(path), browser.get(path, accept="*/*")
    assert (page.status_code, problem.status_code) == (404, 404)
    assert page.headers["content-type"].startswith("text/html")
    assert problem.headers["content-type"] == "application/problem+json"
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/nope", "/issues/", "/servers", "/api/v2/servers", "/webhook/token"])
def test_where_there_is_nothing_browsers_are_shown_the_first_page(
    store: Store, browse: Callable[[Site], Browser], path: str
) -> None:
    """Programs get a problem document; neither repeats the path, which may hold a token."""
    browser = browse(Site(store, pages.realistic(store, servers=4), route_prefix="/patrol"))
    page, problem = browser.get(f"/patrol{path}"), browser.get(f"/patrol{path}", accept="application/json")
    assert (page.status_code, problem.status_code) == (404, 404)
    assert page.headers["content-type"].startswith("text/html")
    assert '<a href="/patrol/">See the first page</a>' in page.text
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["detail"] == "There is nothing here; the exporter's first page leads to what there is."
    assert "token" not in page.text + problem.text


def test_links_respect_the_prefix(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Behind a prefix every link of the page leads to somewhere behind it."""
    site = Site(store, pages.realistic(store), route_prefix="/patrol")
    text = browse(site).text("/patrol/")
    links = re.findall(r'(?:href|action)="([^"]*)"', text)
    assert links
    assert all(link.startswith(("/patrol/", "#", "data:")) for link in links)


def test_a_proxy_that_strips_a_path_is_known_by_the_external_url(
    store: Store, browse: Callable[[Site], Browser]
) -> None:
    """Links are as browsers see them, not as the exporter does."""
    site = Site(store, pages.realistic(store), external_url="https://mon.example.org/ps")
    text = browse(site).text("/")
    assert 'href="/ps/servers/1?account=main"' in text
    assert "https://mon.example.org/ps/webhook/&lt;token&gt;" in text


def test_reading_that_needs_a_token_is_refused_with_what_to_do(store: Store, browse: Callable[[Site], Browser]) -> None:
    """A browser cannot send a token, so the refusal tells what else there is; with a token the page comes."""
    browser = browse(Site(store, pages.realistic(store), tokens=BearerTokens([READER])))
    refused = browser.get("/")
    assert refused.status_code == 401
    assert "basic_auth_users" in refused.text
    assert "web-01" not in refused.text
    allowed = browser.get("/", authorization=f"Bearer {READER.token.reveal()}")
    assert allowed.status_code == 200


def test_pages_do_not_wait_for_the_writer(store: Store, browse: Callable[[Site], Browser]) -> None:
    """While a unit of work takes its time, all pages are shown."""
    browser, held = browse(Site(store, pages.realistic(store, servers=4))), threading.Event()
    slow = store.submit(lambda _: held.wait(30))
    try:
        assert browser.get("/").status_code == 200
        assert browser.get("/servers/1?account=main").status_code == 200
        assert not slow.done()
    finally:
        held.set()


def test_a_store_that_is_closed_is_a_503(store: Store, browse: Callable[[Site], Browser]) -> None:
    """The page says that the state cannot be read, instead of an empty fleet."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    store.close()
    response = browser.get("/")
    assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)
    assert "The state cannot be read right now." in response.text


def test_a_page_answers_heads_and_refuses_posts(store: Store, browse: Callable[[Site], Browser]) -> None:
    """Nothing on a page changes anything."""
    browser = browse(Site(store, pages.realistic(store, servers=4)))
    assert requests.head(browser.base + "/", timeout=10).status_code == 200
    assert requests.post(browser.base + "/", timeout=10).status_code == 405


def test_what_is_old_by_the_clock_becomes_old_on_the_page(store: Store, browse: Callable[[Site], Browser]) -> None:
    """A day later, without any poll, the page says so by itself, and that the account is silent."""
    site = Site(store, pages.realistic(store))
    browser = browse(site)
    assert "older than 24 hours" not in browser.text("/")
    site.clock.at += 2 * pages.DAY
    site.clock.ticks += 2 * pages.DAY
    text = browser.text("/")
    assert "older than 24 hours" in text
    assert "PatrolServer has not answered for account main" in text


def test_the_service_shows_the_fleet_that_it_watches(tmp_path: Path) -> None:
    """Simulator, poller, store and pages together: the demo's servers are on the page, each with a page of its own."""
    options = SimulatorOptions(listen_address="127.0.0.1:0", servers=5, software=6)
    with Simulator(options) as simulator, Exporter.watching(tmp_path, simulator.base_url) as exporter:
        browser = Browser(int(exporter.url.rpartition(":")[2]))
        eventually(lambda: len(names(browser.text("/"))) == 5, what="the fleet on the page")
        eventually(lambda: "not polled yet" not in browser.text("/"), what="the first polls")
        (link, *_) = re.findall(r'href="(/servers/\d+\?account=main)"', browser.text("/"))
        assert "Software" in browser.text(link)
        assert "test-token" not in browser.text("/")
        assert "See the first page" in browser.get("/nope").text


def test_a_page_whose_account_is_in_trouble_shows_its_answer_masked(
    store: Store, browse: Callable[[Site], Browser]
) -> None:
    """Whatever an API answers with our key in it, the key is masked."""
    accounts = pages.realistic(store, servers=4)
    broken = replace(accounts, all=(pages.status("main", 3, trouble=f"bad key {CANARY}"),))
    text = browse(Site(store, broken)).text("/")
    assert "bad key" in text
    assert CANARY not in text
