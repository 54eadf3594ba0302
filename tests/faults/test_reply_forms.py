"""The table of reply forms: what the gate of a real exporter says when the API answers like this.

What a form leaves out always is what is critical, so that whoever takes a part for the whole says ``pass``. ``first``
is the verdict when the API has answered like this from the start, ``later`` when it begins to after a whole reply.
Where there is none, nobody could notice.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.replies import Endpoint, ExploitsForm, PartForm, ReplyRule, RiskForm
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.software import Change, Kind, Software
from patrolserver_exporter.simulator.webhooks import NEVER, Telling
from patrolserver_exporter.simulator.world import NEW_ISSUES, SCAN_FINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from patrolserver_exporter.simulator.world import Server

PASS, FAIL, UNKNOWN = (frozenset({verdict}) for verdict in ("pass", "fail", "unknown"))
NOT_PASS = FAIL | UNKNOWN
"""``fail`` for who reads the other pages too, or remembers; ``unknown`` for who does not."""
SOFTWARE = ("bash", "curl", "nginx", "php", "redis", "openssl")
Rule = dict[str, Any]
Verdicts = dict[tuple[str, str], tuple[frozenset[str], frozenset[str]]]
"""By row and phase: every verdict that was given, and the codes of what blocked."""


class Row(NamedTuple):
    """A form, and what the gate has to say."""

    form: str
    rule: Rule
    first: frozenset[str] | None
    later: frozenset[str] | None
    code: str | None = None
    """Of a reason, when the API answers like this from the start."""


PARTS = [
    Row("total", {"form": PartForm.TOTAL}, NOT_PASS, NOT_PASS),
    Row("meta.total", {"form": PartForm.META_TOTAL}, NOT_PASS, NOT_PASS),
    Row("truncated", {"form": PartForm.TRUNCATED}, NOT_PASS, NOT_PASS),
    Row("206 and Content-Range", {"form": PartForm.CONTENT_RANGE}, NOT_PASS, NOT_PASS),
    Row("206", {"share": 0.5, "status": 206}, UNKNOWN, NOT_PASS),
    Row("203 and partial", {"share": 0.5, "status": 203, "members": {"partial": True}}, UNKNOWN, NOT_PASS),
    Row("total_pages", {"form": PartForm.TOTAL_PAGES}, FAIL, FAIL),
    Row("Link next", {"form": PartForm.NEXT_LINK}, FAIL, FAIL),
    Row("next_page_url", {"form": PartForm.NEXT_PAGE_URL}, FAIL, FAIL),
    Row("total_pages, page 2 fails", {"form": PartForm.TOTAL_PAGES, "fail_from_page": 2}, UNKNOWN, NOT_PASS),
    Row("Link next, page 2 fails", {"form": PartForm.NEXT_LINK, "fail_from_page": 2}, UNKNOWN, NOT_PASS),
    Row("next_page_url, page 2 fails", {"form": PartForm.NEXT_PAGE_URL, "fail_from_page": 2}, UNKNOWN, NOT_PASS),
    Row("Link next, elsewhere", {"form": PartForm.NEXT_LINK, "next_base": "http://127.0.0.1:9"}, UNKNOWN, NOT_PASS),
    Row("next_page_url, elsewhere", {"form": PartForm.NEXT_PAGE_URL, "next_base": "http://x.test"}, UNKNOWN, NOT_PASS),
    Row("total_pages, without end", {"form": PartForm.TOTAL_PAGES, "endless": True}, NOT_PASS, NOT_PASS),
    Row("success: false", {"form": PartForm.SUCCESS_FALSE}, UNKNOWN, NOT_PASS),
    Row("status: error", {"form": PartForm.STATUS_ERROR}, UNKNOWN, NOT_PASS),
    Row("errors", {"form": PartForm.ERRORS}, UNKNOWN, NOT_PASS),
    Row("error: true", {"share": 0.5, "members": {"error": True}}, UNKNOWN, NOT_PASS),
    Row("hasMore", {"share": 0.5, "members": {"hasMore": True}}, UNKNOWN, NOT_PASS),
    Row("next_cursor", {"share": 0.5, "members": {"meta": {"next_cursor": "abc"}}}, UNKNOWN, NOT_PASS),
    Row("cut JSON", {"body": '{"data": ['}, UNKNOWN, NOT_PASS),
    Row("data: null", {"data": None}, UNKNOWN, NOT_PASS),
    Row("data: object without entries", {"data": {}}, UNKNOWN, NOT_PASS),
    Row("empty", {"share": 0.0}, UNKNOWN, NOT_PASS),
    Row("less than half, and nothing tells", {"share": 0.4}, None, NOT_PASS),
    Row("members that say nothing", {"members": {"total": 0, "errors": [], "status": "ok", "error": None}}, FAIL, FAIL),
    Row("all on one page", {"form": PartForm.TOTAL_PAGES, "per_page": 50}, FAIL, FAIL),
]
EXPLOITS = [
    Row("risk 9.8/10", {"risk": RiskForm.OUT_OF_TEN}, FAIL, FAIL),
    Row("risk as a vector", {"risk": RiskForm.VECTOR}, FAIL, FAIL),
    Row("risk in an object", {"risk": RiskForm.OBJECT}, FAIL, FAIL),
    Row("risk in a list", {"risk": RiskForm.LIST}, FAIL, FAIL),
    Row("risk missing", {"risk": RiskForm.MISSING}, UNKNOWN, NOT_PASS),
    Row("risk null", {"risk": RiskForm.NULL}, UNKNOWN, NOT_PASS),
    Row("risk as a word", {"risk": RiskForm.WORD}, UNKNOWN, NOT_PASS),
    Row("risk 109.8", {"risk": RiskForm.OUT_OF_RANGE}, UNKNOWN, NOT_PASS),
    Row("exploits missing everywhere", {"exploits": ExploitsForm.MISSING}, UNKNOWN, NOT_PASS, "exploits_unknown"),
    Row("exploits null everywhere", {"exploits": ExploitsForm.NULL}, UNKNOWN, NOT_PASS),
    Row("exploits wrapped", {"exploits": ExploitsForm.WRAPPED}, FAIL, FAIL),
    Row("exploits by CVE", {"exploits": ExploitsForm.KEYED}, FAIL, FAIL),
]
CONFIG = """\
poll: {{interval: 2s, max_requests_per_minute: 60000, timeout: 2s}}
webhook: {{max_event_requests_per_minute: 60000}}
issues: {{settle: {settle}}}
store: {{url: "sqlite:///{folder}/state.db"}}
accounts:
"""
ACCOUNT = (
    "  - {{name: {name}, api_url: {api_url}, key: demo, secret: demo, webhook_tokens: [token-of-account-{name}]}}\n"
)


def config(folder: Path, apis: Sequence[Simulator], settle: str) -> str:
    """An account for each API."""
    accounts = (ACCOUNT.format(name=f"a{n}", api_url=api.base_url) for n, api in enumerate(apis))
    return CONFIG.format(folder=folder, settle=settle) + "".join(accounts)


def add(simulator: Simulator, name: str, *, critical: bool) -> Server:
    """A server; what is critical is the last of its software."""
    world = simulator.world
    software = [Software(name=one, canonical_name=one, version="1.2.3", supported=True) for one in SOFTWARE]
    server = world.add_server(world.demo, name, software=software, verified=True)
    if critical:
        world.change(server, Change(Kind.EXPLOITABLE, SOFTWARE[-1], risk=9.8))
    return server


def ask(exporter: Exporter, server: str, account: str) -> tuple[str, frozenset[str]]:
    """The verdict on a server, and the codes of what blocks."""
    body = {"servers": [server], "account": account, "policy": {}}
    answer = requests.post(f"{exporter.url}/api/v1/gate", json=body, timeout=10).json()
    return answer["verdict"], frozenset(one["code"] for one in answer["reasons"] if one["blocking"])


def verdicts(exporter: Exporter, asked: dict[str, tuple[str, str]], phase: str, seconds: float) -> Verdicts:
    """Ask about each row for so long."""
    found: Verdicts = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row, (server, account) in asked.items():
            verdict, codes = ask(exporter, server, account)
            before = found.get((row, phase), (frozenset(), frozenset()))
            found[row, phase] = before[0] | {verdict}, before[1] | codes
        time.sleep(0.2)
    return found


def wait_for_hits(apis: Sequence[Simulator], hits: int) -> None:
    """Wait until every rule was applied so often, and what it altered has been kept."""

    def applied() -> bool:
        return all(int(str(rule["hits"])) >= hits for api in apis for rule in api.replies.documents())

    eventually(applied, within=60.0, what="altered replies")


def in_both_phases(
    exporter: Exporter, asked: dict[str, tuple[str, str]], rules: Sequence[tuple[Simulator, ReplyRule]]
) -> Verdicts:
    """The rules have been in force from the start; then all is well for a while; then they are again."""
    apis = list(dict.fromkeys(api for api, _ in rules))
    wait_for_hits(apis, 2)
    found = verdicts(exporter, asked, "first", 1.0)
    for api in apis:
        api.replies.clear()
    eventually(
        lambda: all(ask(exporter, *one)[0] == "fail" for one in asked.values()), within=30.0, what="the whole truth"
    )
    for api, rule in rules:
        api.replies.add(rule)
    # The second reply comes when the first was kept.
    wait_for_hits(apis, 2)
    return found | verdicts(exporter, asked, "later", 1.0)


def check(rows: Sequence[Row], found: Verdicts, form: str, phase: str) -> None:
    """What was said of a row is what it tells."""
    (row,) = (one for one in rows if one.form == form)
    wanted = row.first if phase == "first" else row.later
    said, codes = found[form, phase]
    if wanted is not None:
        assert said <= wanted, (sorted(said), sorted(codes))
    if phase == "first" and row.code is not None:
        assert row.code in codes


@pytest.fixture(scope="module")
def of_software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """Each form on a server of its own."""
    folder = tmp_path_factory.mktemp("software")
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=0)) as api:
        asked, rules = {}, []
        for number, row in enumerate([*PARTS, *EXPLOITS]):
            server = add(api, f"server-{number}.example.org", critical=True)
            asked[row.form] = server.name, "a0"
            rules.append((api, ReplyRule(endpoint=Endpoint.SOFTWARE, server=server.id, **row.rule)))
            api.replies.add(rules[-1][1])
        with Exporter(folder, config(folder, [api], "1h")) as exporter:
            yield in_both_phases(exporter, asked, rules)


@pytest.mark.parametrize("phase", ["first", "later"])
@pytest.mark.parametrize("form", [row.form for row in (*PARTS, *EXPLOITS)])
def test_a_software_list_like_this(of_software: Verdicts, form: str, phase: str) -> None:
    """A server whose software is answered so: never a pass, and a fail where everything can be read."""
    check([*PARTS, *EXPLOITS], of_software, form, phase)


@pytest.fixture(scope="module")
def of_lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """Each form on an account of its own; the last of four servers is critical."""
    folder = tmp_path_factory.mktemp("lists")
    with ExitStack() as stack:
        apis, asked, rules = [], {}, []
        for number, row in enumerate(PARTS):
            api = stack.enter_context(Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=0)))
            for place in range(4):
                add(api, f"server-{place}.example.org", critical=place == 3)
            apis.append(api)
            asked[row.form] = "*", f"a{number}"
            rules.append((api, ReplyRule(endpoint=Endpoint.SERVERS, **row.rule)))
            api.replies.add(rules[-1][1])
        with Exporter(folder, config(folder, apis, "1h")) as exporter:
            yield in_both_phases(exporter, asked, rules)


@pytest.mark.parametrize("phase", ["first", "later"])
@pytest.mark.parametrize("form", [row.form for row in PARTS])
def test_a_server_list_like_this(of_lists: Verdicts, form: str, phase: str) -> None:
    """A glob over an account whose list is answered so: never a pass, and a fail where everything can be read."""
    check(PARTS, of_lists, form, phase)


_TELNET = {"software": {"version": "1", "software": {"name": "Telnet", "canonical_name": "telnet"}}}


class EventRow(NamedTuple):
    """A delivery, and what the gate has to say of the event's server while no poll could settle it."""

    form: str
    rule: Rule
    verdict: frozenset[str]
    identifier: str = NEW_ISSUES
    telling: Telling = Telling()
    issue: Rule = _TELNET
    forged: bool = False
    """There is no such event."""
    other: frozenset[str] | None = None
    """What it has to say of another server of the account."""


EVENTS = [
    EventRow("plain", {}, UNKNOWN, other=PASS),
    EventRow("an issue that names no software", {}, UNKNOWN, issue={}, other=PASS),
    *(EventRow(str(form), {"form": form}, UNKNOWN) for form in PartForm),
    EventRow("cut JSON", {"body": '{"data": {"server_id": 1'}, UNKNOWN),
    EventRow("without a server", {"data": {"new_issues": []}}, UNKNOWN),
    EventRow("empty", {"data": []}, UNKNOWN),
    EventRow("members that say nothing", {"members": {"total": 0, "errors": [], "status": "ok"}}, UNKNOWN, other=PASS),
    EventRow("late", {}, UNKNOWN, telling=Telling(late=4.0)),
    EventRow("never known", {}, UNKNOWN, telling=Telling(late=NEVER), other=UNKNOWN),
    EventRow("claims to be a scan's end", {}, UNKNOWN, telling=Telling(delivered_as=SCAN_FINISHED)),
    EventRow("claims to be a test", {}, UNKNOWN, telling=Telling(delivered_as="webhook.test"), other=PASS),
    EventRow("forged", {}, UNKNOWN, forged=True, other=UNKNOWN),
    EventRow("forged test", {}, PASS, "webhook.test", forged=True, other=PASS),
    EventRow("test", {}, PASS, "webhook.test", other=PASS),
]


@pytest.fixture(scope="module")
def of_events(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """Each delivery on an account of its own with two servers, both fine."""
    folder = tmp_path_factory.mktemp("events")
    with ExitStack() as stack:
        apis = [
            stack.enter_context(Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=0))) for _ in EVENTS
        ]
        for api in apis:
            add(api, "told.example.org", critical=False)
            add(api, "other.example.org", critical=False)
        # So long that nothing is settled while the test asks.
        exporter = stack.enter_context(Exporter(folder, config(folder, apis, "1h")))
        asked = {row.form: ("told.example.org", f"a{n}") for n, row in enumerate(EVENTS)}
        others = {row.form: ("other.example.org", f"a{n}") for n, row in enumerate(EVENTS)}
        eventually(
            lambda: all(ask(exporter, *one)[0] == "pass" for one in (*asked.values(), *others.values())),
            within=60.0,
            what="servers that are fine",
        )
        for number, (api, row) in enumerate(zip(apis, EVENTS, strict=True)):
            if row.rule:
                api.replies.add(ReplyRule(endpoint=Endpoint.EVENT, **row.rule))
            url = f"{exporter.url}/webhook/token-of-account-a{number}"
            _deliver(api, api.world.outbox.add_webhook(api.world.demo.id, url).id, url, row)
        for api in apis:
            assert api.postman.drain(10.0)
            assert api.postman.counts() == {"202": 1, "waiting": 0}
        eventually(
            lambda: all(api.requests.count("GET webhooks/:webhook/events/:event") for api in apis),
            within=20.0,
            what="calls for the events",
        )
        # What was answered has to be kept before others' servers can be beyond doubt.
        time.sleep(1.0)
        yield verdicts(exporter, asked, "told", 6.0) | verdicts(exporter, others, "other", 1.0)


def _deliver(api: Simulator, webhook_id: int, url: str, row: EventRow) -> None:
    world = api.world
    if row.forged:
        payload = {"webhook_patrolserver": 1, "identifier": row.identifier, "event_id": 77, "webhook_id": webhook_id}
        (hook,) = (one for one in world.outbox.webhooks() if one.url == url)
        api.postman.post(hook, payload)
        return
    told = world.servers(world.demo)[0]
    data = {"server_id": told.id, "new_issues": [{"title": "Something is wrong.", **row.issue}]}
    world.outbox.emit(
        world.demo.id,
        row.identifier,
        data if row.identifier == NEW_ISSUES else {"message": "This is a test."},
        telling=row.telling,
    )


@pytest.mark.parametrize("form", [row.form for row in EVENTS])
def test_an_event_like_this(of_events: Verdicts, form: str) -> None:
    """What an event says, or does not say, is doubted until polls could settle it, and a test disturbs nobody."""
    (row,) = (one for one in EVENTS if one.form == form)
    said, codes = of_events[form, "told"]
    assert said <= row.verdict, (sorted(said), sorted(codes))


@pytest.mark.parametrize("form", [row.form for row in EVENTS if row.other is not None])
def test_an_event_like_this_and_other_servers(of_events: Verdicts, form: str) -> None:
    """Other servers are in doubt only while nobody knows whom an event is about."""
    (row,) = (one for one in EVENTS if one.form == form)
    said, codes = of_events[form, "other"]
    assert row.other is not None
    assert said <= row.other, (sorted(said), sorted(codes))
