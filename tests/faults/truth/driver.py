"""A seeded run: things happen to the world, its API, its webhooks and the exporter, and the gate is asked all along.

What is drawn depends on the seed alone; when it meets the exporter's own threads does not, so the same seed tells the
same story with other timing. ``Run.journal`` holds it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import requests
from tests.faults.truth.model import Accepted, Question, Waiver
from tests.faults.truth.replies import Exploit
from tests.harness.gate import MENDED, SOFTWARE, add_server
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.faults import Fault, FaultKind
from patrolserver_exporter.simulator.replies import Endpoint, ExploitsForm, PartForm, ReplyRule, RiskForm
from patrolserver_exporter.simulator.software import Change, Kind, exploit_from
from patrolserver_exporter.simulator.webhooks import NEVER, Telling
from patrolserver_exporter.simulator.world import NEW_ISSUES, SCAN_FINISHED, SCAN_STARTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.truth.model import Model, Objection

    from patrolserver_exporter.simulator.server import Simulator
    from patrolserver_exporter.simulator.world import Server

log = logging.getLogger(__name__)

SETTLE = 1.0
NAMES = tuple(f"web-{n}.example.org" for n in range(1, 6)) + tuple(f"db-{n}.example.org" for n in range(1, 4))
RISKS = (9.8, 8.8, 7.5, 5.3, 4.3)
ODD_EXPLOITS: tuple[Any, ...] = (
    {"risk": None},
    {"title": "no risk at all"},
    {"risk": "9.8/10"},
    {"risk": "critical"},
    {"risk": {"score": 9.8}},
    {"risk": [9.8]},
    {"risk": 98},
    {"risk": "5.3"},
)
POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"max_total": 0},
    {"max_total": 0},
    {"max_by_severity": {"high": 0}},
    {"max_by_severity": {"critical": 1, "medium": 2}},
    {"max_risk": 7.0},
    {"max_risk": 4.0},
    {"max_by_kind": {"unsupported": 0, "exploitable": 0, "outdated": 0}},
    {"max_age": 5.0},
    {"max_scan_age": 3600.0},
    {"max_unknown_software": 2},
)
CONFIG = """\
accounts:
  - name: main
    api_url: {api_url}
    key: demo
    secret: demo
    webhook_tokens: [{token}]
poll: {{interval: 2s, max_requests_per_minute: 60000, timeout: 2s}}
webhook: {{max_event_requests_per_minute: 60000}}
issues: {{settle: {settle:.0f}s, waivers: [{waivers}]}}
store: {{url: "sqlite:///{folder}/state.db"}}
"""


class FalsePass(NamedTuple):
    """A ``pass`` that nobody could vouch for."""

    number: int
    question: Question
    objection: Objection
    journal: tuple[str, ...]

    def __str__(self) -> str:
        story = "\n    ".join(self.journal)
        return f"question {self.number}, {self.question}: {self.objection.text}\n    {story}"


@dataclass
class Tally:
    """What the gate answered."""

    verdicts: Counter[str] = field(default_factory=Counter)
    needless: Counter[str] = field(default_factory=Counter)
    """Reasons of ``unknown`` where a pass would have been right: often nobody had time to know that."""
    unanswered: int = 0
    false: list[FalsePass] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    """Reasons of ``unknown``."""

    @property
    def asked(self) -> int:
        """Questions that were answered."""
        return self.verdicts.total()

    def examples(self, of_each: int = 2) -> str:
        """Some false passes of each kind."""
        kinds = dict.fromkeys(one.objection.kind for one in self.false)
        chosen = [[one for one in self.false if one.objection.kind == kind][:of_each] for kind in kinds]
        return "\n\n".join(f"[{one.objection.kind}] {one}" for some in chosen for one in some)

    def __str__(self) -> str:
        shares = ", ".join(f"{count / max(self.asked, 1):.1%} {name}" for name, count in self.verdicts.most_common())
        kinds = Counter(one.objection.kind for one in self.false)
        return (
            f"{self.asked} questions: {shares}; {len(self.false)} false passes {dict(kinds)}; "
            f"unknown for {dict(self.codes.most_common())}; "
            f"{self.needless.total()} unknown where a pass would have been right too, for "
            f"{dict(self.needless.most_common())}; {self.unanswered} not answered"
        )


@dataclass
class Run:
    """One exporter and one simulator, and all that happens to them."""

    seed: int
    simulator: Simulator
    exporter: Exporter
    model: Model
    set_clock: Callable[[float], None] | None = None
    """Sets the exporter's clock so many seconds off."""
    tally: Tally = field(default_factory=Tally)
    journal: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self._began = time.monotonic()
        self._session = requests.Session()
        self._names = len(NAMES)
        self._former: list[str] = []
        self._removed: list[Server] = []
        self._offset = 0.0
        self._items: dict[Accepted, dict[str, Any]] = {}
        self.model.last_scan = self._last_scan
        world = self.simulator.world
        for name in NAMES:
            self._add(name)
        world.outbox.add_webhook(world.demo.id, f"{self.exporter.url}/webhook/{TOKEN}")

    def _last_scan(self, server_id: int) -> float | None:
        """A new server under an old id looks like one with a new name, as long as no list lacks it."""
        scans = {one.id: one.last_scan for one in (*self._removed, *self._servers()) if one.last_scan is not None}
        return scans.get(server_id)

    # The story

    def play(self, questions: int, *, a_second: float, length: float) -> None:
        """Rounds of ``length`` seconds until so many questions are answered."""
        self.settle_down()
        rounds = 0
        while self.tally.asked < questions:
            rounds += 1
            if self.draw.random() < 0.4:
                self.heal()
            if self.draw.random() < 0.4:
                self._mend()
            for _ in range(self.draw.choice((1, 1, 2, 3))):
                name, act = self.draw.choice(_ACTIONS)
                self.say(f"{name}: {act(self) or ''}")
            self._ask_for(length * self.draw.uniform(0.6, 1.4), a_second, questions)
        log.info("seed %d, %d rounds, %s", self.seed, rounds, self.tally)
        log.info("served: %s", dict(self.model.outcomes.most_common()))

    def say(self, what: str) -> None:
        """Note it in the journal."""
        self.journal.append(f"{time.monotonic() - self._began:8.3f} {what}")
        log.debug("%s", self.journal[-1])

    def settle_down(self) -> None:
        """Wait until every server was polled."""
        eventually(
            lambda: all(self.ask(Question((name,), {}))[0] in ("pass", "fail") for name in self._present()),
            within=60.0,
            what="known servers",
        )

    def _ask_for(self, seconds: float, a_second: float, questions: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.tally.asked < questions:
            pause = time.monotonic() + self.draw.uniform(0.0, 2.0) / a_second
            self.question()
            time.sleep(max(pause - time.monotonic(), 0.0))

    def question(self, *, healthy: bool = False) -> None:
        """Ask a random question, and count what is answered; ``healthy``: only what can be answered at any time."""
        question = self._question()
        if healthy and question.policy.keys() & {"max_age", "max_scan_age"}:
            question = question._replace(policy={})
        began = time.monotonic()
        try:
            verdict, codes = self.ask(question)
        except requests.RequestException:
            self.tally.unanswered += 1
            return
        objection = self.model.objection(question, began, time.monotonic())
        self.tally.verdicts[verdict] += 1
        if verdict == "pass" and objection is not None:
            story = (*self.journal[-12:], f"{began - self._began:8.3f} asked")
            self.tally.false.append(FalsePass(self.tally.asked, question, objection, story))
        if verdict == "unknown":
            self.tally.codes.update(codes)
            if objection is None:
                self.tally.needless[min(codes)] += 1

    def ask(self, question: Question) -> tuple[str, frozenset[str]]:
        """The gate's verdict, and the codes of what blocks."""
        waivers, accepted = list(map(_written, question.waivers)), [self._items[one] for one in question.baseline]
        policy = {**question.policy, **({"waivers": waivers} if waivers else {})}
        policy |= {"baseline": accepted} if accepted else {}
        answer = self._session.post(
            f"{self.exporter.url}/api/v1/gate", json={"servers": list(question.asked), "policy": policy}, timeout=10
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        return told["verdict"], frozenset(one["code"] for one in told["reasons"] if one["blocking"])

    def write_baseline(self) -> str:
        """All that is open now is accepted, as it is."""
        at = time.monotonic()
        answer = self._session.get(f"{self.exporter.url}/api/v1/issues", params={"limit": 1000}, timeout=10).json()
        self._items = {}
        for item in answer["items"]:
            exploits = item.get("exploits") or ()
            kept = {name: item[name] for name in ("fingerprint", "kind", "severity", "risk")}
            kept["exploits"] = [{name: one.get(name) for name in ("id", "cve", "title", "risk")} for one in exploits]
            named = tuple(
                Exploit(frozenset(str(one[name]) for name in ("id", "cve") if one.get(name)), one.get("risk"))
                for one in exploits
            )
            what = item["server_id"], item["server"], item["canonical_name"], item["kind"], item["severity"]
            self._items[Accepted(*what, named, at)] = kept
        return f"{[one[:5] for one in self._items]}"

    def _selection(self) -> tuple[int | str, ...]:
        names, kind = self._present(), self.draw.random()
        if kind < 0.5:
            return (self.draw.choice(names),)
        if kind < 0.7:
            return (self.draw.choice([server.id for server in self._servers()]),)
        if kind < 0.8:
            return tuple(self.draw.sample(names, min(len(names), 3)))
        if kind < 0.95 or not self._former:
            return (self.draw.choice(("web-*", "db-*", "*")),)
        return (self.draw.choice(self._former[-5:]),)

    def _question(self) -> Question:
        waivers = (self._waiver(),) if self.draw.random() < 0.15 else ()
        baseline = tuple(self._items) if self.draw.random() < 0.2 else ()
        return Question(self._selection(), self.draw.choice(POLICIES), waivers, baseline)

    def _waiver(self) -> Waiver:
        """For some software, or for one of its exploits, as it is now; with or without an end at what is worse."""
        server = self.draw.choice(("*", "web-*", self._server().name))
        exploits = [
            (one.software.canonical_name, exploit.cve or str(exploit.id))
            for there in self._servers()
            for one in self.simulator.world.installed(there)
            for exploit in one.software.exploits
        ]
        worst = self.draw.choice(("critical", "critical", "high", "medium"))
        if exploits and self.draw.random() < 0.5:
            software, exploit = self.draw.choice(exploits)
            return Waiver(server, software, None, exploit, worst)
        kind = self.draw.choice((None, None, "exploitable", "outdated"))
        return Waiver(server, self.draw.choice(SOFTWARE), kind, None, worst)

    # The world

    def _servers(self) -> list[Server]:
        world = self.simulator.world
        return world.servers(world.demo)

    def _present(self) -> list[str]:
        return [server.name for server in self._servers()]

    def _server(self) -> Server:
        return self.draw.choice(self._servers())

    def _new_name(self) -> str:
        self._names += 1
        return f"{self.draw.choice(('web', 'db'))}-{self._names}.example.org"

    def _add(self, name: str, server_id: int | None = None, *, broken: bool = False) -> Server:
        at, world = time.monotonic(), self.simulator.world
        server = add_server(self.simulator, name, server_id)
        self.model.lives(server.id, name, at)
        if broken:
            world.change(server, Change(Kind.EXPLOITABLE, self.draw.choice(SOFTWARE), risk=9.8))
        return server

    def _remove(self, server: Server) -> None:
        at = time.monotonic()
        self.simulator.world.remove_server(server)
        self.model.lives(server.id, None, at)
        self._former.append(server.name)
        self._removed.append(server)

    def heal(self) -> None:
        """The API is honest and well again."""
        self.simulator.faults.clear()
        self.simulator.replies.clear()
        self.simulator.world.outbox.delay(0.0)
        self.say("heal")

    def _mend(self) -> None:
        for server in self._servers():
            if self.draw.random() < 0.7:
                self.simulator.world.change(server, MENDED)
                self.simulator.world.install(
                    server,
                    [one for one in self.simulator.world.installed(server) if one.software.supported is not None],
                )
        self.say("mend many")

    def break_software(self) -> str:
        """Something breaks; a webhook tells, or not."""
        server, name, world = self._server(), self.draw.choice(SOFTWARE), self.simulator.world
        kind = self.draw.choice((Kind.EXPLOITABLE, Kind.EXPLOITABLE, Kind.OUTDATED, Kind.UNSUPPORTED, Kind.UNKNOWN))
        tell, at_scan, risk = self.draw.random() < 0.5, self.draw.random() < 0.2, self.draw.choice(RISKS)
        if name not in {one.software.canonical_name for one in world.installed(server)}:
            return "nothing"
        world.change(server, Change(kind, name, risk=risk), tell=tell, at_scan=at_scan)
        if at_scan:
            world.start_scan(server, self.draw.uniform(0.2, 3.0))
        return f"{server.name} {name} {kind} {risk} {tell=} {at_scan=}"

    def break_oddly(self) -> str:
        """An exploit that is written so, for good."""
        server, name, written = self._server(), self.draw.choice(SOFTWARE), self.draw.choice(ODD_EXPLOITS)
        world, number = self.simulator.world, self.simulator.world.new_exploit_id()
        exploit = exploit_from({"id": number, **written}, number)
        if name not in {one.software.canonical_name for one in world.installed(server)}:
            return "nothing"
        world.change(server, Change(Kind.EXPLOITABLE, name, found=exploit), tell=self.draw.random() < 0.5)
        return f"{server.name} {name} {written}"

    def come_back(self) -> str:
        """An id goes to another server, or comes back as it was."""
        server = self._server()
        name = self.draw.choice((server.name, self._new_name(), self._new_name()))
        self._remove(server)
        time.sleep(self.draw.choice((0.0, 0.0, 2.5)))
        broken = self.draw.random() < 0.5
        self._add(name, server.id, broken=broken)
        fails = self.draw.random() < 0.5
        if fails:
            self._fail(f"servers/{server.id}/software", None)
        return f"{server.id} {server.name} is now {name} {broken=} {fails=}"

    def rename(self) -> str:
        """A server has another name; its software may not be readable just then."""
        server, name, at = self._server(), self._new_name(), time.monotonic()
        former = server.name
        if self.draw.random() < 0.5:
            self._fail(f"servers/{server.id}/software", None)
        self.simulator.world.rename(server, name)
        self.model.lives(server.id, name, at)
        self._former.append(former)
        return f"{server.id} {former} is now {name}"

    def swap_names(self) -> str:
        """Two servers have each other's names."""
        one, other = self.draw.sample(self._servers(), 2)
        names, at = (one.name, other.name), time.monotonic()
        for server, name in ((one, f"swap-{self._names}"), (other, names[0]), (one, names[1])):
            self.simulator.world.rename(server, name)
        self.model.lives(one.id, names[1], at)
        self.model.lives(other.id, names[0], at)
        return f"{one.id} and {other.id}"

    def add(self) -> str:
        """A new server, or one less."""
        if len(self._servers()) >= len(NAMES):
            server = self._server()
            self._remove(server)
            return f"{server.name} is gone"
        broken = self.draw.random() < 0.5
        return f"{self._add(self._new_name(), broken=broken).name} {broken=}"

    def scan(self) -> str:
        """A scan, of which some is told."""
        told = frozenset(one for one in (SCAN_STARTED, NEW_ISSUES, SCAN_FINISHED) if self.draw.random() < 0.7)
        server = self._server()
        self.simulator.world.start_scan(server, self.draw.uniform(0.2, 4.0), events=told)
        return f"{server.name} {sorted(told)}"

    # The API

    def _rule(self, **fields: Any) -> str:
        rule = ReplyRule(**fields)
        self.simulator.replies.add(rule)
        return ", ".join(f"{name}={value}" for name, value in fields.items())

    def _times(self) -> int | None:
        return self.draw.choice((None, None, 1, 3))

    def _one_or_all(self) -> int | None:
        return self.draw.choice((None, self._server().id, self._server().id))

    def cut_software(self) -> str:
        """Nothing, or too little, and nothing tells."""
        return self._rule(
            endpoint=Endpoint.SOFTWARE,
            server=self._one_or_all(),
            share=self.draw.choice((0.0, 0.0, 0.4)),
            count=self._times(),
        )

    def part_of_software(self) -> str:
        """A part of the whole, in some form."""
        return self._rule(
            endpoint=Endpoint.SOFTWARE,
            server=self._one_or_all(),
            form=self.draw.choice(list(PartForm)),
            count=self._times(),
            fail_from_page=self.draw.choice((None, 2)),
            endless=self.draw.random() < 0.2,
        )

    def odd_exploits(self) -> str:
        """Exploits in some form that is not the usual."""
        forms: dict[str, Any] = {"risk": self.draw.choice(list(RiskForm))}
        if self.draw.random() < 0.5:
            forms = {"exploits": self.draw.choice((ExploitsForm.MISSING, ExploitsForm.WRAPPED, ExploitsForm.KEYED))}
        return self._rule(endpoint=Endpoint.SOFTWARE, server=self._one_or_all(), count=self._times(), **forms)

    def harmless(self) -> str:
        """Members that say nothing."""
        members = {"total": 0, "errors": [], "status": "ok", "success": True}
        return self._rule(endpoint=Endpoint.SOFTWARE, server=self._one_or_all(), members=members)

    def cut_list(self) -> str:
        """A server list that is empty or too short, and nothing tells."""
        share = self.draw.choice((0.0, 0.3))
        return self._rule(endpoint=Endpoint.SERVERS, share=share, count=self.draw.choice((1, 1, 2, None)))

    def part_of_list(self) -> str:
        """A server list that is a part, in some form."""
        return self._rule(
            endpoint=Endpoint.SERVERS,
            form=self.draw.choice(list(PartForm)),
            count=self._times(),
            per_page=self.draw.choice((None, 3)),
            fail_from_page=self.draw.choice((None, 2)),
        )

    def part_of_events(self) -> str:
        """Events that cannot be read whole."""
        return self._rule(endpoint=Endpoint.EVENT, form=self.draw.choice(list(PartForm)), count=self._times())

    def garbled(self) -> str:
        """A reply that is none."""
        endpoint = self.draw.choice((Endpoint.SOFTWARE, Endpoint.SOFTWARE, Endpoint.SERVERS, Endpoint.EVENT))
        body = self.draw.choice(('{"data": [', '{"data": null}', "[]x", '{"data": "none"}'))
        return self._rule(endpoint=endpoint, body=body, count=self._times())

    def _fail(self, path: str, count: int | None) -> str:
        kind = self.draw.choice((FaultKind.STATUS, FaultKind.HTML, FaultKind.HALF_BODY, FaultKind.ERROR_200))
        self.simulator.faults.add(Fault(kind=kind, path=path, count=count, status=503 if kind == "status" else None))
        return f"{path} {kind} {count}"

    def fail(self) -> str:
        """Calls fail."""
        one = f"servers/{self._server().id}/software"
        path = self.draw.choice((one, one, "servers/*/software", "servers", "webhooks/*", "*"))
        return self._fail(path, self._times())

    def ask_to_wait(self) -> str:
        """A call is refused for a while, or for a day."""
        path, wait = f"servers/{self._server().id}/software", self.draw.choice((1, 2, 86_400))
        self.simulator.faults.add(Fault(kind=FaultKind.RATE_LIMIT, path=path, retry_after=wait, count=1))
        return f"{path} {wait}"

    # Webhooks

    def late_events(self) -> str:
        """The API knows of what happens only later, or never."""
        late, count = self.draw.choice((1.5, 4.0, 20.0, NEVER)), self.draw.choice((1, 3))
        self.simulator.world.outbox.delay(late, count)
        return f"{late} {count}"

    def event(self) -> str:
        """New issues that no list shows; the delivery may claim to be something else."""
        world, server = self.simulator.world, self._server()
        issue: dict[str, Any] = {"title": "Close port 23."}
        if self.draw.random() < 0.5:
            issue["software"] = {"version": "1", "software": {"name": "Telnet", "canonical_name": "telnet"}}
        telling = Telling(
            delivered_as=self.draw.choice((None, None, "webhook.test", SCAN_FINISHED)),
            late=self.draw.choice((None, None, 2.0)),
        )
        (event,) = world.outbox.emit(
            world.demo.id, NEW_ISSUES, {"server_id": server.id, "new_issues": [issue]}, telling=telling
        )
        return f"{event.id} {server.name} {issue} {telling}"

    def forge(self) -> str:
        """Deliveries of events that are none, or not yet, or are delivered again under another name."""
        world = self.simulator.world
        webhook = world.outbox.webhooks()[-1]
        identifier = self.draw.choice((NEW_ISSUES, SCAN_FINISHED, SCAN_STARTED, "webhook.test"))
        event_id = self.draw.choice(
            (10**9 + self.draw.randrange(10**6), max(len(world.outbox), 1), len(world.outbox) + 1)
        )
        payload = {"webhook_patrolserver": 1, "identifier": identifier, "event_id": event_id, "webhook_id": webhook.id}
        self.simulator.postman.post(webhook, payload)
        return f"{identifier} {event_id}"

    # The exporter

    def kill(self) -> str:
        """It dies in the middle of whatever it does."""
        self._restart(self.exporter.kill)
        return ""

    def stop(self) -> str:
        """It is stopped and started."""
        self._restart(self.exporter.terminate)
        return ""

    def _restart(self, end: Callable[[], object]) -> None:
        end()
        self.model.stopped(time.monotonic())
        time.sleep(0.05)
        self.model.stopped(time.monotonic())
        self.exporter.start()

    def reload(self) -> str:
        """Waivers come and go."""
        waivers = tuple(self._waiver() for _ in range(self.draw.choice((0, 0, 1, 2))))
        # JSON's objects are YAML's.
        written = ", ".join(json.dumps(_written(one)) for one in waivers)
        text = config(self.simulator.base_url, self.exporter, written)
        self.exporter.write_config(text)
        with contextlib.suppress(requests.RequestException):
            at = time.monotonic()
            answer = self._session.post(f"{self.exporter.url}/-/reload", headers=self.exporter.operator, timeout=10)
            self.model.waivers_set(at, waivers)
            assert answer.status_code == 200, answer.text
        return f"{waivers}"

    def lose_credentials(self) -> str:
        """The key is revoked for a while; whoever notices waits for minutes, so it starts anew then."""
        demo = self.simulator.world.demo
        demo.secret = "another"
        self._ask_for(4.0, 10.0, 10**9)
        demo.secret = "demo"
        self._restart(self.exporter.kill)
        return "and back"

    def step_clock(self) -> str:
        """The exporter's clock is set by a little, back and forth."""
        if self.set_clock is None:
            return "not on this machine"
        step = self.draw.choice((-4.0, -4.0, 3.0, 4.0)) if abs(self._offset) < 8 else -self._offset
        self._offset += step
        self.model.clock_set(time.monotonic(), step)
        self.set_clock(self._offset)
        self.model.clock_slack = max(self.model.clock_slack, 12.0)
        return f"{step:+} s, now {self._offset:+} s off"


def _written(waiver: Waiver) -> dict[str, str]:
    """As the configuration and a request have it."""
    until = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)).isoformat()
    limits = {"kind": waiver.kind, "exploit": waiver.exploit}
    limits["max_severity"] = None if waiver.max_severity == "critical" else waiver.max_severity
    given = {name: value for name, value in limits.items() if value is not None}
    return {"server": waiver.server, "software": waiver.software, "until": until, "reason": "known", **given}


def config(api_url: str, exporter: Exporter | None, waivers: str = "", folder: str = "") -> str:
    """The exporter's configuration."""
    where = folder if exporter is None else str(exporter.folder)
    return CONFIG.format(api_url=api_url, token=TOKEN, folder=where, settle=SETTLE, waivers=waivers)


_WEIGHTS: dict[Callable[[Run], str], int] = {
    Run.break_software: 12,
    Run.break_oddly: 4,
    Run.come_back: 4,
    Run.rename: 3,
    Run.swap_names: 2,
    Run.add: 3,
    Run.scan: 4,
    Run.cut_software: 4,
    Run.part_of_software: 7,
    Run.odd_exploits: 5,
    Run.harmless: 1,
    Run.cut_list: 3,
    Run.part_of_list: 4,
    Run.part_of_events: 2,
    Run.garbled: 3,
    Run.fail: 4,
    Run.ask_to_wait: 2,
    Run.late_events: 3,
    Run.event: 4,
    Run.forge: 3,
    Run.kill: 3,
    Run.stop: 1,
    Run.reload: 4,
    Run.write_baseline: 4,
    Run.lose_credentials: 1,
    Run.step_clock: 2,
}
_ACTIONS = tuple((act.__name__.replace("_", " "), act) for act, weight in _WEIGHTS.items() for _ in range(weight))
