"""The table of reply forms: what the gate of a real exporter says when the API answers like this.

What a form leaves out always is what is critical, so that whoever takes a part for the whole says ``pass``. There are
three phases: ``first``: the API has answered like this from the start; ``later``: it begins to after a whole reply;
``unseen``: it begins to before anybody has seen what is critical. Where there is no verdict, nobody could notice, or
the call just failed and the old data is not old yet.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.harness.gate import CRITICAL, MENDED, add_server, ask
from tests.harness.process import Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.replies import Endpoint, ExploitsForm, PartForm, ReplyRule, RiskForm
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.simulator.webhooks import NEVER, Telling
from patrolserver_exporter.simulator.world import NEW_ISSUES, SCAN_FINISHED, SCAN_STARTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.promise("never-fine")]


PASS, FAIL, UNKNOWN = (frozenset({verdict}) for verdict in ("pass", "fail", "unknown"))
NOT_PASS = FAIL | UNKNOWN
"""``fail`` for who reads the other pages too, or remembers; ``unknown`` for who does not."""
Rule = dict[str, Any]
Verdicts = dict[tuple[str, str], tuple[frozenset[str], frozenset[str]]]
"""By row and phase: every verdict that was given, and the codes of what blocked."""


class Row(NamedTuple):
    """A form, and what the gate has to say."""

    form: str
    rule: Rule
    first: frozenset[str] | None
    later: frozenset[str] | None
    unseen: frozenset[str] | None
    code: str | None = None
    """Of a reason, when the API answers like this from the start."""


PAGE_2_FAILS: Rule = {"fail_from_page": 2}
ELSEWHERE: Rule = {"next_base": "http://elsewhere.test"}
HALF: Rule = {"share": 0.5}
NOTHING_SAID: Rule = {"members": {"total": 0, "errors": [], "status": "ok", "error": None}}
PARTS = [
    Row("total", {"form": PartForm.TOTAL}, NOT_PASS, NOT_PASS, NOT_PASS),
    Row("meta.total", {"form": PartForm.META_TOTAL}, NOT_PASS, NOT_PASS, NOT_PASS),
    Row("truncated", {"form": PartForm.TRUNCATED}, NOT_PASS, NOT_PASS, NOT_PASS),
    Row("206 and Content-Range", {"form": PartForm.CONTENT_RANGE}, NOT_PASS, NOT_PASS, NOT_PASS),
    Row("206", {"status": 206, **HALF}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("203 and partial", {"status": 203, "members": {"partial": True}, **HALF}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("hasMore", {"members": {"hasMore": True}, **HALF}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("next_cursor", {"members": {"meta": {"next_cursor": "abc"}}, **HALF}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("total_pages", {"form": PartForm.TOTAL_PAGES}, FAIL, FAIL, FAIL),
    Row("Link next", {"form": PartForm.NEXT_LINK}, FAIL, FAIL, FAIL),
    Row("next_page_url", {"form": PartForm.NEXT_PAGE_URL}, FAIL, FAIL, FAIL),
    Row("total_pages, 2 fails", {"form": PartForm.TOTAL_PAGES, **PAGE_2_FAILS}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("Link next, 2 fails", {"form": PartForm.NEXT_LINK, **PAGE_2_FAILS}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("next_page_url, 2 fails", {"form": PartForm.NEXT_PAGE_URL, **PAGE_2_FAILS}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("Link next, elsewhere", {"form": PartForm.NEXT_LINK, **ELSEWHERE}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("next_page_url, elsewhere", {"form": PartForm.NEXT_PAGE_URL, **ELSEWHERE}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("total_pages, endless", {"form": PartForm.TOTAL_PAGES, "endless": True}, NOT_PASS, NOT_PASS, NOT_PASS),
    Row("success: false", {"form": PartForm.SUCCESS_FALSE}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("status: error", {"form": PartForm.STATUS_ERROR}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("errors", {"form": PartForm.ERRORS}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("error: true", {"members": {"error": True}, **HALF}, UNKNOWN, NOT_PASS, None),
    Row("cut JSON", {"body": '{"data": ['}, UNKNOWN, NOT_PASS, None),
    Row("data: null", {"data": None}, UNKNOWN, NOT_PASS, None),
    Row("data: an empty object", {"data": {}}, UNKNOWN, NOT_PASS, None),
    Row("empty", {"share": 0.0}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("less than half, and nothing tells", {"share": 0.4}, None, NOT_PASS, None),
    Row("members that say nothing", NOTHING_SAID, FAIL, FAIL, FAIL),
    Row("all on one page", {"form": PartForm.TOTAL_PAGES, "per_page": 50}, FAIL, FAIL, FAIL),
]
EXPLOITS = [
    Row("risk 9.8/10", {"risk": RiskForm.OUT_OF_TEN}, FAIL, FAIL, FAIL),
    Row("risk as a vector", {"risk": RiskForm.VECTOR}, FAIL, FAIL, FAIL),
    Row("risk in an object", {"risk": RiskForm.OBJECT}, FAIL, FAIL, FAIL),
    Row("risk in a list", {"risk": RiskForm.LIST}, FAIL, FAIL, FAIL),
    Row("risk missing", {"risk": RiskForm.MISSING}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("risk null", {"risk": RiskForm.NULL}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("risk as a word", {"risk": RiskForm.WORD}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("risk 109.8", {"risk": RiskForm.OUT_OF_RANGE}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("no exploits anywhere", {"exploits": ExploitsForm.MISSING}, UNKNOWN, NOT_PASS, UNKNOWN, "exploits_unknown"),
    Row("exploits null", {"exploits": ExploitsForm.NULL}, UNKNOWN, NOT_PASS, UNKNOWN),
    Row("exploits wrapped", {"exploits": ExploitsForm.WRAPPED}, FAIL, FAIL, FAIL),
    Row("exploits by CVE", {"exploits": ExploitsForm.KEYED}, FAIL, FAIL, FAIL),
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


def verdicts(exporter: Exporter, asked: dict[str, tuple[str, str]], phase: str, seconds: float) -> Verdicts:
    """Ask about each row for so long."""
    found: Verdicts = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row, (server, account) in asked.items():
            verdict, codes = ask(exporter, server, account=account)
            before = found.get((row, phase), (frozenset(), frozenset()))
            found[row, phase] = before[0] | {verdict}, before[1] | codes
        time.sleep(0.2)
    return found


def wait_for_hits(apis: Sequence[Simulator], hits: int) -> None:
    """Wait until every rule was applied so often, and what it altered has been kept."""

    def applied() -> bool:
        return all(int(str(rule["hits"])) >= hits for api in apis for rule in api.replies.documents())

    eventually(applied, within=180.0, what="altered replies")


class Stage(NamedTuple):
    """Rows that are played together."""

    exporter: Exporter
    asked: dict[str, tuple[str, str]]
    """By row: the server or glob, and the account."""
    rules: Sequence[tuple[Simulator, ReplyRule]]
    mend: Callable[[], object]
    """Nothing is critical any more."""
    break_again: Callable[[], object]
    """Something becomes critical that the forms leave out."""

    def play(self) -> Verdicts:
        """All three phases."""
        apis = list(dict.fromkeys(api for api, _ in self.rules))
        found = self._altered(apis, "first")
        self._wait_for("fail")
        found |= self._altered(apis, "later")
        self.mend()
        self._wait_for("pass")
        return found | self._altered(apis, "unseen", self.break_again)

    def _altered(self, apis: Sequence[Simulator], phase: str, then: Callable[[], object] = lambda: None) -> Verdicts:
        if phase != "first":
            for api, rule in self.rules:
                api.replies.add(rule)
        then()
        # When a second reply comes, the first was kept; what broke meanwhile is in the second.
        wait_for_hits(apis, 3 if phase == "unseen" else 2)
        found = verdicts(self.exporter, self.asked, phase, 1.0)
        for api in apis:
            api.replies.clear()
        return found

    def _wait_for(self, verdict: str) -> None:
        def all_say_so() -> bool:
            return all(ask(self.exporter, one[0], account=one[1]).verdict == verdict for one in self.asked.values())

        eventually(all_say_so, within=120.0, what=f"{verdict} everywhere")


def check(rows: Sequence[Row], found: Verdicts, form: str, phase: str) -> None:
    """What was said of a row is what it tells."""
    (row,) = (one for one in rows if one.form == form)
    wanted: frozenset[str] | None = getattr(row, phase)
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
        servers = [add_server(api, f"server-{n}.example.org", critical=True) for n in range(len(PARTS) + len(EXPLOITS))]
        for row, server in zip([*PARTS, *EXPLOITS], servers, strict=True):
            asked[row.form] = server.name, "a0"
            rules.append((api, ReplyRule(endpoint=Endpoint.SOFTWARE, server=server.id, **row.rule)))
            api.replies.add(rules[-1][1])
        with Exporter(folder, config(folder, [api], "1h")) as exporter:
            yield Stage(
                exporter,
                asked,
                rules,
                mend=lambda: [api.world.change(server, MENDED) for server in servers],
                break_again=lambda: [api.world.change(server, CRITICAL) for server in servers],
            ).play()


PHASES = ["first", "later", "unseen"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("form", [row.form for row in (*PARTS, *EXPLOITS)])
def test_a_software_list_like_this(of_software: Verdicts, form: str, phase: str) -> None:
    """A server whose software is answered so: never a pass, and a fail where everything can be read."""
    check([*PARTS, *EXPLOITS], of_software, form, phase)


@pytest.fixture(scope="module")
def of_lists(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    """Each form on an account of its own; the last of four servers is critical, or of five."""
    folder = tmp_path_factory.mktemp("lists")
    with ExitStack() as stack:
        apis, asked, rules = [], {}, []
        for number, row in enumerate(PARTS):
            api = stack.enter_context(Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=0)))
            for place in range(4):
                add_server(api, f"server-{place}.example.org", critical=place == 3)
            apis.append(api)
            asked[row.form] = "*", f"a{number}"
            rules.append((api, ReplyRule(endpoint=Endpoint.SERVERS, **row.rule)))
            api.replies.add(rules[-1][1])
        with Exporter(folder, config(folder, apis, "1h")) as exporter:
            yield Stage(
                exporter,
                asked,
                rules,
                mend=lambda: [api.world.change(api.world.servers(api.world.demo)[3], MENDED) for api in apis],
                break_again=lambda: [add_server(api, "server-4.example.org", critical=True) for api in apis],
            ).play()


@pytest.mark.parametrize("phase", PHASES)
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
    EventRow("a part of a scan's start", {"form": PartForm.TOTAL_PAGES}, UNKNOWN, SCAN_STARTED),
    EventRow("late", {}, UNKNOWN, telling=Telling(late=4.0)),
    EventRow("never known", {}, UNKNOWN, telling=Telling(late=NEVER), other=UNKNOWN),
    EventRow("claims to be a scan's end", {}, UNKNOWN, telling=Telling(delivered_as=SCAN_FINISHED)),
    EventRow("claims to be a test", {}, UNKNOWN, telling=Telling(delivered_as="webhook.test"), other=PASS),
    EventRow("forged", {}, UNKNOWN, forged=True, other=UNKNOWN),
    EventRow("forged test", {}, PASS | UNKNOWN, "webhook.test", forged=True, other=PASS),
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
            add_server(api, "told.example.org")
            add_server(api, "other.example.org")
        # So long that nothing is settled while the test asks.
        exporter = stack.enter_context(Exporter(folder, config(folder, apis, "1h")))
        asked = {row.form: ("told.example.org", f"a{n}") for n, row in enumerate(EVENTS)}
        others = {row.form: ("other.example.org", f"a{n}") for n, row in enumerate(EVENTS)}
        eventually(
            lambda: all(
                ask(exporter, one[0], account=one[1]).verdict == "pass" for one in (*asked.values(), *others.values())
            ),
            within=180.0,
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
            within=60.0,
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
    data: Rule = {"message": "This is a test."} if row.identifier == "webhook.test" else {"server_id": told.id}
    if row.identifier == NEW_ISSUES:
        data["new_issues"] = [{"title": "Something is wrong.", **row.issue}]
    world.outbox.emit(world.demo.id, row.identifier, data, telling=row.telling)


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
