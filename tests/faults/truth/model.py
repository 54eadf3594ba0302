"""A model that knows the truth, and says of every ``pass`` whether anybody could have known that it is one.

It hears of every reply that the API sent, together with what would have been the plain truth at that moment, of every
delivery that was acknowledged, and of every stop of the exporter. It knows nothing of the exporter's inside.

When a ``pass`` is false
------------------------

A question is asked at some moment about some servers. A ``pass`` is right only if there is one state of knowledge

* which the exporter may have had at that moment, and
* from which an honest, careful reader could say: all of these servers meet the policy.

**Which states it may have had.** A reply is *surely known* once the next call of the same kind for the same server
came in (an exporter asks about a server again only after it kept the answer), or ``LATEST`` seconds after it was sent,
unless the exporter was killed in between. A reply that was sent and is not surely known may be known or not: both are
allowed. A call that failed by its status, its ``error`` member or for want of anything readable is no reply: what was
known before stays, and gets old.

**What a careful reader could say** of one server, from the last reply that is known about its software:

* It started at most ``max_age`` ago.
* It was whole. A part of several pages of which not all were read, one that says of itself that it failed, an empty
  list, or a reply in which no software says anything about exploits vouches for nothing. A list that lost more than
  half (of four or more) without a word is believed when it was said twice, ``settle`` apart; until then what was there
  before counts too.
* It breaks no limit, beside what waivers and the baseline cover: of an exploitable software exploit by exploit, of a
  baseline only as bad as it was recorded, and not under another name of another server that had the id. An exploit
  whose risk nobody can read may be the worst. So many software in an unknown state are allowed as the policy says.
* It started in this life of the server: after the change of its name, or its return under an old id, if a list has told
  of that, or if the question uses the new name. A name that no known list has is nobody's.
* No event says otherwise. Once an acknowledged delivery's event was served, it has to have started after the delivery
  was sent (new issues, an end of a scan), and for a software that it does not show as broken, ``settle`` after that. An
  event that was not served yet may be about any server: all have to be polled ``settle`` after it. A delivery that
  claims to be a test is none, until the API says what it is about.
* With ``max_scan_age``: the world has seen a scan end under its id.

And of the account, from the last server list that is known: its credentials are not refused; the server is on it; for a
glob, it was whole. A list that is empty, or lost more than half, leaves the missing in doubt until it was said twice.

So a critical issue that the world has, and that no whole reply has shown and no delivery told of, is no false pass
until ``max_age`` is over. Everything that was served is one at once.

Times are monotonic seconds of this process, so a clock that is set for the exporter alone moves nothing here, and
``clock_slack`` says by how much its ages may be wrong.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.faults.truth.replies import (
    BROKEN,
    EXPLOIT_RISK,
    SEVERITIES,
    Exploit,
    Found,
    Outcome,
    Sheet,
    State,
    is_silent,
    read_contents,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

LATEST = 3.0
"""Seconds after which a reply is known, whatever the machine has to do besides."""
_NETWORK = 0.1
_OUT_OF_ORDER = 10.0
"""Seconds by which a delivery may be acknowledged later than one that was sent after it."""
TEST = "webhook.test"
SCAN_FINISHED = "webhook.scan_finished"
_MANY = 4
"""A list of so many that loses more than half is not believed at once."""


@dataclass(slots=True)
class Reply:
    """One call and its pages, as the API answered it."""

    arrived: float
    left: float
    outcome: Outcome
    shown: int = 0
    """Entries of all pages so far."""
    contents: tuple[Found, ...] = ()
    """Of a server's software: what a careful reader holds for possible."""
    names: dict[int, str] = field(default_factory=dict)
    """Of a server list."""
    asked_again: float | None = None
    """When the next call of the same kind came in."""
    lost: bool = False
    """The exporter was stopped before it surely knew."""
    odd_since: float | None = None
    """When the list first lost more than half."""

    def surely_known(self, at: float) -> bool:
        """Whether whoever asked has kept it by then."""
        if self.lost:
            return False
        return self.left + LATEST <= at or (self.asked_again is not None and self.asked_again <= at)


@dataclass(frozen=True, slots=True)
class View:
    """What the lists up to one of them say."""

    reply: Reply
    names: dict[int, str]
    missing: frozenset[int]
    """In doubt: a list that is not believed yet does not have them."""
    whole: bool
    since: dict[int, float]
    """From when on a server's own data counts."""


class Life(NamedTuple):
    """A server under an id, from some moment on; without a name there is none."""

    since: float
    name: str | None


class Delivery(NamedTuple):
    """One acknowledged delivery."""

    identifier: str
    sent: float
    acknowledged: float


@dataclass(slots=True)
class EventFacts:
    """What was said of an event."""

    deliveries: list[Delivery] = field(default_factory=list)
    served_at: float | None = None
    """When the whole truth of it was served first."""
    data: Mapping[str, Any] = field(default_factory=dict)
    named: int | None = None
    """The server that any reply named."""


class Objection(NamedTuple):
    """Why a pass is false."""

    kind: str
    text: str


class Waiver(NamedTuple):
    """Somebody accepts something, until a day that is far off."""

    server: str
    software: str
    kind: str | None = None
    exploit: str | None = None
    max_severity: str = "critical"

    def covers(self, server: str, software: str, kind: str, severity: str, exploit: Exploit | None) -> bool:
        """Whether that is what is accepted."""
        return (
            fnmatchcase(server, self.server)
            and fnmatchcase(software, self.software)
            and self.kind in (None, kind)
            and SEVERITIES.index(self.max_severity) <= SEVERITIES.index(severity)
            and (self.exploit is None or (exploit is not None and self.exploit in exploit.names))
        )


class Accepted(NamedTuple):
    """An issue of a baseline, as it was recorded."""

    server_id: int
    server: str
    software: str
    kind: str
    severity: str
    exploits: tuple[Exploit, ...]
    at: float


class Question(NamedTuple):
    """What the gate is asked."""

    asked: tuple[int | str, ...]
    policy: Mapping[str, Any]
    """As the request has it, without waivers and baseline."""
    waivers: tuple[Waiver, ...] = ()
    baseline: tuple[Accepted, ...] = ()


class WaiversInForce(NamedTuple):
    """Waivers of the configuration, from some moment on."""

    since: float
    waivers: tuple[Waiver, ...]


class Model:
    """Everything that the exporter was told. Safe to use from several threads."""

    def __init__(self, settle: float) -> None:
        self.settle = settle
        self.clock_slack = 0.0
        self._set_ahead: list[tuple[float, float]] = []
        """When the exporter's clock was set ahead, and by how many seconds."""
        self.last_scan: Callable[[int], float | None] = lambda _server_id: None
        """When the last scan of whoever had this id really ended."""
        self._lock = threading.RLock()
        self._polls: dict[int, list[Reply]] = defaultdict(list)
        self._lists: list[Reply] = []
        self._views: list[View] = []
        self._events: dict[tuple[int, int], EventFacts] = defaultdict(EventFacts)
        self._lives: dict[int, list[Life]] = defaultdict(list)
        self._waivers = [WaiversInForce(0.0, ())]
        self.outcomes: Counter[str] = Counter()

    # What happened

    def lives(self, server_id: int, name: str | None, at: float) -> None:
        """The server of this id has another name, is another one, or is gone."""
        with self._lock:
            self._lives[server_id].append(Life(at, name))

    def waivers_set(self, at: float, waivers: tuple[Waiver, ...]) -> None:
        """The configuration has these waivers."""
        with self._lock:
            self._waivers.append(WaiversInForce(at, waivers))

    def stopped(self, at: float) -> None:
        """The exporter was killed, or keeps nothing of the calls under way."""
        with self._lock:
            for replies in (*self._polls.values(), self._lists):
                for reply in replies[-2:]:
                    reply.lost = reply.lost or not reply.surely_known(at)

    def delivered(self, place: tuple[int, int], identifier: str, sent: float, acknowledged: float) -> None:
        """A delivery got its 202."""
        with self._lock:
            # The last one that was delivered stands last.
            facts = self._events.pop(place, None) or EventFacts()
            facts.deliveries.append(Delivery(identifier, sent, acknowledged))
            self._events[place] = facts

    def event_served(self, place: tuple[int, int], left: float, sheet: Sheet, true: Any) -> None:
        """The API said what an event is."""
        with self._lock:
            facts = self._events[place]
            self.outcomes[f"event {sheet.outcome}"] += 1
            if sheet.outcome in (Outcome.FAILED, Outcome.REFUSED) or not isinstance(sheet.data, dict):
                return
            if isinstance(sheet.data.get("server_id"), int):
                facts.named = sheet.data["server_id"]
            if sheet.outcome is Outcome.WHOLE and sheet.data == true and facts.served_at is None:
                facts.served_at, facts.data = left, sheet.data

    def software_served(  # noqa: PLR0917  # What a call is made of.
        self, server_id: int, page: int, arrived: float, left: float, sheet: Sheet, true: Any
    ) -> None:
        """The API said what is installed on a server."""
        with self._lock:
            polls = self._polls[server_id]
            read = _read_software(sheet, true)
            if page == 1:
                if polls:
                    polls[-1].asked_again = polls[-1].asked_again or arrived
                self.outcomes[f"software {read.outcome}"] += 1
                if read.outcome in (Outcome.FAILED, Outcome.REFUSED):
                    return
                polls.append(replace(read, arrived=arrived, left=left))
                del polls[:-50]
                if read.outcome is Outcome.WHOLE:
                    self._doubt_collapse(polls, len(true))
            elif polls and polls[-1].outcome is Outcome.PART:
                _append_page(polls[-1], left, sheet, read)

    def _doubt_collapse(self, polls: list[Reply], true: int) -> None:
        new = polls[-1]
        before = next((one for one in reversed(polls[:-1]) if one.outcome is Outcome.WHOLE), None)
        if before is None or new.shown >= true:
            return
        # Of one that was not believed yet, the entries that were there before are among its contents.
        had = len({one.name for one in before.contents})
        if had < _MANY or 2 * new.shown >= had:
            return
        new.odd_since = new.arrived if before.odd_since is None else before.odd_since
        if new.arrived < new.odd_since + self.settle:
            new.contents = (*before.contents, *new.contents)

    def list_served(self, page: int, arrived: float, left: float, sheet: Sheet) -> None:
        """The API said which servers there are."""
        with self._lock:
            names = {one["id"]: one["name"] for one in sheet.data} if isinstance(sheet.data, list) else {}
            if page > 1:
                self._append_to_list(left, sheet, names)
                return
            if self._lists:
                self._lists[-1].asked_again = self._lists[-1].asked_again or arrived
            self.outcomes[f"list {sheet.outcome}"] += 1
            reply = Reply(arrived, left, sheet.outcome, len(names), names=names)
            if not isinstance(sheet.data, list) and sheet.outcome is not Outcome.REFUSED:
                reply.outcome = Outcome.FAILED
            if reply.outcome is Outcome.WHOLE and sheet.total > len(names):
                reply.outcome = Outcome.PART
            self._lists.append(reply)
            del self._lists[:-50]
            if reply.outcome not in (Outcome.FAILED, Outcome.REFUSED):
                self._see(reply)

    def _append_to_list(self, left: float, sheet: Sheet, names: dict[int, str]) -> None:
        reply = self._lists[-1] if self._lists else None
        if reply is None or reply.outcome is not Outcome.PART or sheet.outcome in (Outcome.FAILED, Outcome.REFUSED):
            return
        new = names.keys() - reply.names.keys()
        reply.names = reply.names | names
        reply.shown, reply.left = reply.shown + len(new), left
        if new and not sheet.more and sheet.total <= reply.shown:
            reply.outcome = Outcome.WHOLE
        if self._views and self._views[-1].reply is reply:
            self._views.pop()
        self._see(reply)

    def _see(self, reply: Reply) -> None:
        """What is known of the servers' names after this list."""
        kept = [view for view in self._views if not view.reply.lost]
        before = kept[-1] if kept else None
        known = {} if before is None else before.names
        absent = frozenset(known.keys() - reply.names.keys())
        shrunk = not reply.names or (len(known) >= _MANY and 2 * len(reply.names) < len(known))
        if reply.outcome is Outcome.WHOLE and shrunk and absent:
            reply.odd_since = reply.arrived
            if before is not None and before.reply.odd_since is not None and before.reply.names == reply.names:
                reply.odd_since = before.reply.odd_since
        believed = reply.odd_since is None or reply.arrived >= reply.odd_since + self.settle
        if reply.outcome is Outcome.WHOLE and believed:
            names, missing = dict(reply.names), frozenset[int]()
        else:
            names = known | reply.names
            missing = absent if reply.outcome is Outcome.WHOLE else frozenset()
        since = {} if before is None else dict(before.since)
        for server_id, name in reply.names.items():
            if known.get(server_id) != name:
                since[server_id] = self._life(server_id, reply.left).since
        self._views.append(View(reply, names, missing, reply.outcome is Outcome.WHOLE and not missing, since))
        del self._views[:-50]

    def _life(self, server_id: int, at: float) -> Life:
        lives = [life for life in self._lives[server_id] if life.since <= at]
        return lives[-1] if lives else Life(0.0, None)

    # What may be said

    def objection(self, question: Question, began: float, ended: float) -> Objection | None:
        """Why no careful reader could say ``pass`` to this question; ``None`` if one could."""
        with self._lock:
            if _known_last(self._lists, began) is Outcome.REFUSED:
                return Objection("refused", "the API refuses the credentials")
            views = self._possible_views(began)
            if not views:
                return Objection("never listed", "no server list was served")
            objections = [self._objection_to(view, question, began, ended) for view in views]
            return None if None in objections else _either(objections)

    def _possible_views(self, at: float) -> list[View]:
        known = [place for place, view in enumerate(self._views) if view.reply.surely_known(at)]
        return self._views[known[-1] if known else 0 :]

    def _objection_to(self, view: View, question: Question, began: float, ended: float) -> Objection | None:
        policy, meant = question.policy, set[int]()
        for one in question.asked:
            found = [i for i, name in view.names.items() if one in (i, name) or fnmatchcase(name, str(one))]
            if "*" in str(one) and not view.whole:
                return Objection("glob", f"{one}: the server list was not whole, or not believed yet")
            if not found:
                return Objection("no such server", f"{one}: no known list has it")
            meant.update(found)
        if missing := meant & view.missing:
            return Objection("missing", f"server {min(missing)}: the last list does not have it")
        limits, totals = _limits(policy), Counter[str]()
        for server_id in sorted(meant):
            held = self._held(server_id, view.since.get(server_id, 0.0), policy, began)
            if isinstance(held, Objection):
                return held
            if policy.get("max_scan_age") and self.last_scan(server_id) is None:
                return Objection("scan", f"server {server_id}: no scan of it has ended")
            name = view.names[server_id]
            accepted = self._accepted(question.baseline, server_id, name)
            counted = [
                _count(_left(contents, name, waivers, accepted), policy)
                for contents in held
                for waivers in self._waivers_between(began, ended, question)
            ]
            for limit in limits:
                totals[limit] += min(one[limit] for one in counted)
        over = [f"{limit}: {totals[limit]} > {allowed}" for limit, allowed in limits.items() if totals[limit] > allowed]
        return Objection("limit", f"servers {sorted(meant)}: {', '.join(over)}") if over else None

    def _waivers_between(self, began: float, ended: float, question: Question) -> list[tuple[Waiver, ...]]:
        """All that may be in force: while the configuration is read anew, the old ones or the new ones."""
        return [
            (*one.waivers, *question.waivers)
            for one, after in zip(self._waivers, [*self._waivers[1:], None], strict=True)
            if one.since <= ended and (after is None or after.since >= began - LATEST)
        ]

    def _accepted(self, baseline: Iterable[Accepted], server_id: int, name: str) -> list[Accepted]:
        """The baseline's issues of this server: not those of another one that had its id and another name."""
        lives = self._lives[server_id]
        return [
            one
            for one in baseline
            if one.server_id == server_id
            and (one.server == name or not any(life.name is None and life.since > one.at - LATEST for life in lives))
        ]

    def _held(
        self, server_id: int, since: float, policy: Mapping[str, Any], at: float
    ) -> list[tuple[Found, ...]] | Objection:
        """What may be known of a server and vouches for it, or why nothing does."""
        polls = self._polls[server_id]
        known = [place for place, reply in enumerate(polls) if reply.surely_known(at)]
        possible = polls[known[-1] if known else 0 :]
        if not possible:
            return Objection("never polled", f"server {server_id}: its software was never served")
        verdicts = [self._doubt(server_id, reply, since, policy, at) for reply in possible]
        held = [reply.contents for reply, doubt in zip(possible, verdicts, strict=True) if doubt is None]
        return held or _either(verdicts)

    def _doubt(
        self, server_id: int, reply: Reply, since: float, policy: Mapping[str, Any], at: float
    ) -> Objection | None:
        """Why this reply does not vouch for the server."""
        who, age = f"server {server_id}", at - reply.arrived
        if reply.outcome is not Outcome.WHOLE:
            return Objection(f"software {reply.outcome}", f"{who}: its last software was {reply.outcome}")
        if reply.arrived < since:
            return Objection("predecessor", f"{who}: polled {since - reply.arrived:.2f} s before it was this server")
        if age > policy.get("max_age", 86_400.0) + self.clock_slack + _NETWORK:
            return Objection("old", f"{who}: polled {age:.1f} s ago")
        unknown = sum(one.state is State.UNKNOWN for one in reply.contents)
        if unknown > policy.get("max_unknown_software", 0):
            return Objection("unknown software", f"{who}: {unknown} in an unknown state")
        return self._doubt_of_events(server_id, reply, at)

    def clock_set(self, at: float, step: float) -> None:
        """The exporter's clock was set by so many seconds."""
        if step > 0:
            self._set_ahead.append((at, step))

    def _seems(self, start: float, end: float) -> float:
        """How long it was from one to the other by the exporter's clock, which is all that it can go by."""
        return end - start + sum(step for at, step in self._set_ahead if start <= at <= end)

    def _doubt_of_events(self, server_id: int, reply: Reply, at: float) -> Objection | None:
        for event in reversed(self._events.values()):
            if event.deliveries and event.deliveries[-1].sent + self.settle + _OUT_OF_ORDER < reply.arrived:
                break
            acknowledged = [one for one in event.deliveries if one.acknowledged <= at]
            if acknowledged and (doubt := self._doubt_of_event(server_id, reply, event, acknowledged, at)):
                return doubt
        return None

    def _doubt_of_event(
        self, server_id: int, reply: Reply, event: EventFacts, acknowledged: Sequence[Delivery], at: float
    ) -> Objection | None:
        served = event.served_at is not None and event.served_at <= at
        # What was delivered once more after the API said what it is, is no news.
        first = [one for one in acknowledged if event.served_at is None or one.sent <= event.served_at] or acknowledged
        real = [one for one in first if one.identifier != TEST]
        start = min(one.sent for one in (real or first))
        about = event.data.get("server_id") if served else event.named
        if self._seems(start, reply.arrived) >= self.settle or about not in (None, server_id) or not (real or served):
            return None
        claimed = sorted({one.identifier for one in acknowledged})
        what = f"server {server_id}: the poll began {reply.arrived - start:+.2f} s from a delivery of {claimed}"
        if not served:
            return Objection("event unconfirmed", f"{what}, whose event was not served")
        news = event.data.get("new_issues")
        if news is None and SCAN_FINISHED not in claimed:
            return None
        if reply.arrived < start:
            return Objection("event", what)
        broken = {one.name for one in reply.contents if one.broken}
        told = [name for name in map(_software_of, news or ()) if name not in broken]
        return Objection("reported", f"{what} that told of {told}, which it does not show") if told else None


def _either(objections: Sequence[Objection | None]) -> Objection:
    """One of several, whichever state of knowledge holds; the kind is that of what is surely known."""
    each = dict.fromkeys(one for one in objections if one is not None)
    return Objection(next(iter(each)).kind, "; or ".join(one.text for one in each))


def _software_of(issue: Mapping[str, Any]) -> str | None:
    software = issue.get("software")
    named = software.get("software") if isinstance(software, dict) else None
    return named.get("canonical_name") if isinstance(named, dict) else None


class _Left(NamedTuple):
    """What of a software nobody has accepted."""

    kind: str | None
    """Of its version."""
    severity: str
    exploits: tuple[Exploit, ...]


def _left(
    contents: Iterable[Found], server: str, waivers: Sequence[Waiver], accepted: Sequence[Accepted]
) -> list[_Left]:
    left = []
    for one in contents:
        kind, severity = (one.state.value, BROKEN[one.state]) if one.state in BROKEN else (None, "low")
        if kind and (
            any(waiver.covers(server, one.name, kind, severity, None) for waiver in waivers)
            or any(old[2:5] == (one.name, kind, severity) for old in accepted)
        ):
            kind = None
        exploits = tuple(
            exploit
            for exploit in one.exploits
            if not any(waiver.covers(server, one.name, "exploitable", _shown(exploit), exploit) for waiver in waivers)
            and not any(old.software == one.name and _is_covered(exploit, old.exploits) for old in accepted)
        )
        left.append(_Left(kind, severity, exploits))
    return left


def _shown(exploit: Exploit) -> str:
    """What somebody who wrote a waiver has seen: of unknown risk is shown as high."""
    return "high" if exploit.risk is None else exploit.severity


def _is_covered(exploit: Exploit, accepted: Iterable[Exploit]) -> bool:
    return any(
        bool(exploit.names & old.names)
        and (exploit.risk == old.risk or (None not in (exploit.risk, old.risk) and exploit.worst <= old.worst))
        for old in accepted
    )


def _limits(policy: Mapping[str, Any]) -> dict[str, int]:
    """Each limit of a policy, and how much it allows."""
    limits = {
        f"severity {name}": count for name, count in ({"critical": 0} | policy.get("max_by_severity", {})).items()
    }
    limits |= {f"kind {name}": count for name, count in policy.get("max_by_kind", {}).items()}
    if "max_total" in policy:
        limits["total"] = policy["max_total"]
    if "max_risk" in policy:
        limits["risk"] = 0
    return limits


def _count(left: Iterable[_Left], policy: Mapping[str, Any]) -> Counter[str]:
    """How much counts against each limit, by the rules of the documentation."""
    counts: Counter[str] = Counter()
    for one in left:
        issues = [] if one.kind is None else [(one.kind, one.severity)]
        if any(exploit.worst >= EXPLOIT_RISK for exploit in one.exploits):
            issues.append(("exploitable", min((e.severity for e in one.exploits), key=SEVERITIES.index)))
        for kind, severity in issues:
            counts["total"] += 1
            counts[f"kind {kind}"] += 1
            counts.update(f"severity {worse}" for worse in SEVERITIES[SEVERITIES.index(severity) :])
        counts["risk"] += sum(exploit.worst > policy.get("max_risk", 10.0) for exploit in one.exploits)
    return counts


def _known_last(replies: Sequence[Reply], at: float) -> Outcome | None:
    """Of the last reply that is surely known; ``None`` if a later one may be known, or there is none."""
    known = [place for place, reply in enumerate(replies) if reply.surely_known(at)]
    return replies[-1].outcome if known and known[-1] == len(replies) - 1 else None


def _read_software(sheet: Sheet, true: Any) -> Reply:
    if sheet.outcome in (Outcome.FAILED, Outcome.REFUSED):
        return Reply(0.0, 0.0, sheet.outcome)
    if not isinstance(sheet.data, list):
        return Reply(0.0, 0.0, Outcome.FAILED)
    outcome = Outcome.PART if sheet.outcome is Outcome.PART or sheet.total > len(sheet.data) else Outcome.WHOLE
    if outcome is Outcome.WHOLE and not sheet.data:
        outcome = Outcome.EMPTY
    elif outcome is Outcome.WHOLE and is_silent(sheet.data):
        outcome = Outcome.SILENT
    return Reply(0.0, 0.0, outcome, len(sheet.data), read_contents(sheet.data, true))


def _append_page(reply: Reply, left: float, sheet: Sheet, read: Reply) -> None:
    """Another page of the same reply; one that brings nothing new ends nothing."""
    if sheet.outcome in (Outcome.FAILED, Outcome.REFUSED) or not isinstance(sheet.data, list):
        return
    new = tuple(one for one in read.contents if one not in reply.contents)
    reply.contents = (*reply.contents, *new)
    reply.shown, reply.left = reply.shown + len(new), left
    if new and not sheet.more and sheet.total <= reply.shown:
        reply.outcome = Outcome.WHOLE
