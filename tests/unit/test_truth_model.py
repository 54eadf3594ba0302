"""The model that judges the gate in ``tests/faults``: it objects to what nobody could know, and to nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.faults.truth.model import LATEST, TEST, Accepted, Model, Question, Waiver
from tests.faults.truth.replies import FAILED, Exploit, Outcome, Sheet, read_sheet

SETTLE = 5.0
NEW_ISSUES = "webhook.new_server_issues"
NAMES = ("openssl", "php", "nginx", "bash")


def software(*, broken: str | None = None, **fields: Any) -> list[dict[str, Any]]:
    """Four software, of which one may be broken."""
    return [
        {"canonical_name": name, "location": "/", "version": "1", "supported": "yes", "exploits": []}
        | (fields if name == broken else {})
        for name in NAMES
    ]


def critical() -> list[dict[str, Any]]:
    return software(broken="bash", exploits=[{"id": 1, "risk": 9.8}])


class World:
    """A model with two servers that were listed and polled at 100 and are fine; what follows is served one by one."""

    def __init__(self) -> None:
        self.model = Model(SETTLE)
        self.model.lives(1, "web", 0.0)
        self.model.lives(2, "db", 0.0)
        self.list(100.0, {1: "web", 2: "db"})
        for server_id in (1, 2):
            self.poll(100.0, software(), server_id=server_id)

    def poll(self, at: float, true: Any, served: Any = ..., server_id: int = 1, **envelope: Any) -> None:
        """A server's software; ``served``: what is sent instead of the truth."""
        body = json.dumps({"data": true if served is ... else served} | envelope).encode()
        self.model.software_served(server_id, 1, at, at + 0.01, read_sheet(200, {}, body, cut=False), true)

    def list(self, at: float, names: dict[int, str], outcome: Outcome = Outcome.WHOLE) -> None:
        """A server list."""
        self.model.list_served(
            1, at, at + 0.01, Sheet(outcome, [{"id": number, "name": name} for number, name in names.items()])
        )

    def deliver(self, at: float, identifier: str = NEW_ISSUES) -> None:
        """Event 7, acknowledged."""
        self.model.delivered((1, 7), identifier, at, at + 0.01)

    def serve_event(self, at: float, data: dict[str, Any]) -> None:
        """What event 7 is."""
        self.model.event_served((1, 7), at, Sheet(Outcome.WHOLE, data), data)

    def objection(self, at: float, *asked: int | str, **fields: Any) -> str | None:
        """The kind of objection to a pass on web."""
        baseline, waivers = fields.pop("baseline", ()), fields.pop("waivers", ())
        found = self.model.objection(Question(asked or ("web",), fields, waivers, baseline), at, at + 0.05)
        return None if found is None else found.kind


@pytest.fixture
def world() -> World:
    return World()


def test_a_server_that_is_fine_may_pass(world: World) -> None:
    """By name, by id and by glob."""
    assert [world.objection(110.0, one) for one in ("web", 1, "*", "w*")] == [None] * 4


@pytest.mark.parametrize(
    ("true", "envelope", "kind"),
    [
        (critical(), {}, "limit"),
        (software(), {"data": software()[:2], "total": 4}, "software a part"),
        (software(), {"data": software()[:2], "success": False}, "software a part"),
        (software(), {"data": []}, "software empty"),
        (
            software(),
            {"data": [{**one, "exploits": None} for one in software()]},
            "software without a word on exploits",
        ),
        (software(broken="php", exploits=[{"id": 1, "risk": None}]), {}, "limit"),
        (software(broken="php", supported=None), {}, "unknown software"),
        (software(), {"total": 4, "errors": [], "status": "ok"}, None),
        (software(broken="php", exploits=[{"id": 1, "risk": "6.0/10"}]), {}, None),
    ],
)
def test_the_last_reply_counts(world: World, true: Any, envelope: dict[str, Any], kind: str | None) -> None:
    """Once it is surely known, and not before: until then what was there before may be all that is known."""
    world.poll(120.0, true, **envelope)
    assert world.objection(120.5) is None
    assert world.objection(120.1 + LATEST) == kind


def test_a_reply_is_known_once_the_next_call_came_in(world: World) -> None:
    """The next one may then be all that is known."""
    world.poll(120.0, critical())
    world.poll(120.3, critical())
    assert world.objection(120.4) == "limit"
    world.poll(120.5, software())
    assert world.objection(120.6) is None


def test_what_was_served_before_a_kill_may_be_lost(world: World) -> None:
    """Nobody has to know it; what came before is not lost by that."""
    world.poll(120.0, critical())
    world.model.stopped(120.5)
    assert world.objection(130.0) is None


def test_a_failed_call_changes_nothing_but_the_age(world: World) -> None:
    """Old data stays until it is too old."""
    world.model.software_served(1, 1, 120.0, 120.01, FAILED, None)
    assert world.objection(130.0) is None
    assert world.objection(130.0, max_age=20.0) == "old"


def test_pages_make_a_whole(world: World) -> None:
    """When all of them came."""
    world.poll(120.0, software(), software()[:2], total=4)
    assert world.objection(125.0) == "software a part"
    sheet = Sheet(Outcome.WHOLE, software()[2:], total=4)
    world.model.software_served(1, 2, 120.2, 120.3, sheet, software())
    assert world.objection(125.0) is None


def test_a_list_that_lost_most_is_believed_when_it_was_said_twice(world: World) -> None:
    """Until then what was there before counts as well."""
    world.poll(120.0, critical())
    for at in (130.0, 132.0):
        world.poll(at, critical(), software()[:1])
    assert world.objection(136.0) == "limit"
    world.poll(130.0 + SETTLE, critical(), software()[:1])
    assert world.objection(140.0) is None


def test_an_event_is_doubted_until_a_poll(world: World) -> None:
    """Of every server until it is known whose it is; what no poll shows is doubted until it settled."""
    world.deliver(120.0)
    assert [world.objection(121.0, one) for one in ("web", "db")] == ["event unconfirmed"] * 2
    world.serve_event(121.5, {"server_id": 1, "new_issues": [{"software": {"software": {"canonical_name": "php"}}}]})
    assert [world.objection(122.0, one) for one in ("web", "db")] == ["event", None]
    world.poll(123.0, software())
    assert world.objection(130.0) == "reported"
    world.poll(120.0 + SETTLE, software())
    assert world.objection(130.0) is None


def test_an_event_that_a_poll_shows_is_confirmed(world: World) -> None:
    """Then it counts as the poll has it."""
    world.deliver(120.0)
    world.serve_event(120.5, {"server_id": 1, "new_issues": [{"software": {"software": {"canonical_name": "php"}}}]})
    world.poll(121.0, software(broken="php", supported="no", newest_bugfix_release="2"))
    assert [world.objection(125.0), world.objection(125.0, max_total=0)] == [None, "limit"]


def test_a_test_is_none_until_the_api_says_more(world: World) -> None:
    """A delivery that claims to be one disturbs nobody."""
    world.deliver(120.0, TEST)
    assert world.objection(121.0) is None
    world.serve_event(121.5, {"server_id": 1, "new_issues": [{"title": "Close port 23."}]})
    assert world.objection(122.0) == "event"


def test_a_new_name_is_in_doubt_until_it_was_polled(world: World) -> None:
    """From when a list told of it; nobody knows the name before."""
    world.model.lives(1, "new", 120.0)
    assert [world.objection(121.0, one) for one in (1, "new")] == [None, "no such server"]
    world.list(122.0, {1: "new", 2: "db"})
    assert [world.objection(126.0, one) for one in (1, "new", "web")] == [
        "predecessor",
        "predecessor",
        "no such server",
    ]
    world.poll(127.0, software())
    assert world.objection(131.0, "new") is None


def test_a_short_list_leaves_the_missing_in_doubt(world: World) -> None:
    """An empty one until it was said twice, and then they are gone; one that is a part only spoils globs."""
    world.list(120.0, {})
    assert [world.objection(124.0, one) for one in ("web", "*")] == ["missing", "glob"]
    world.list(130.0, {})
    assert world.objection(134.0) == "no such server"
    world.list(140.0, {1: "web"}, Outcome.PART)
    world.list(141.0, {1: "web"}, Outcome.PART)
    assert [world.objection(145.0, one) for one in ("db", "*")] == ["no such server", "glob"]


def test_refused_credentials(world: World) -> None:
    """Nothing passes until a list is served again."""
    world.model.list_served(1, 120.0, 120.1, Sheet(Outcome.REFUSED))
    assert world.objection(124.0) == "refused"
    world.list(125.0, {1: "web", 2: "db"})
    assert world.objection(125.5) is None


def test_a_scan_has_to_have_ended(world: World) -> None:
    """The world's own word counts."""
    assert world.objection(110.0, max_scan_age=60) == "scan"
    world.model.last_scan = lambda _server_id: 1.0
    assert world.objection(110.0, max_scan_age=60) is None


def test_a_waiver_covers_what_it_says(world: World) -> None:
    """That software, that exploit, up to that severity."""
    world.poll(120.0, critical())
    waivers = (
        Waiver("web", "bash"),
        Waiver("*", "bash", exploit="1"),
        Waiver("*", "bash", exploit="2"),
        Waiver("*", "bash", max_severity="high"),
        Waiver("*", "bash", kind="outdated"),
        Waiver("db", "bash"),
    )
    found = [world.objection(125.0, waivers=(one,)) for one in waivers]
    assert found == [None, None, "limit", "limit", "limit", "limit"]


def test_a_baseline_covers_what_was_recorded(world: World) -> None:
    """The same exploit, not another one, and not on another server under the same id."""
    world.poll(120.0, critical())

    def accepted(exploit: Exploit) -> Accepted:
        return Accepted(1, "web", "bash", "exploitable", "critical", (exploit,), 124.0)

    same, other = Exploit(frozenset({"1"}), 9.8), Exploit(frozenset({"2"}), 9.8)
    assert [world.objection(125.0, baseline=(accepted(one),)) for one in (same, other)] == [None, "limit"]
    world.model.lives(1, None, 130.0)
    world.model.lives(1, "new", 130.0)
    world.list(131.0, {1: "new", 2: "db"})
    world.poll(132.0, critical())
    assert world.objection(136.0, "new", baseline=(accepted(same),)) == "limit"


def test_what_is_delivered_once_more_is_no_news(world: World) -> None:
    """An event that the API told of, and that polls settled, is not doubted again under another name."""
    world.deliver(120.0, TEST)
    world.serve_event(120.5, {"server_id": 1, "new_issues": [{"title": "Close port 23."}]})
    assert world.objection(124.0) == "event"
    world.poll(120.0 + SETTLE, software())
    world.deliver(130.0, "webhook.scan_finished")
    assert world.objection(131.0) is None


def test_a_waiver_covers_an_unknown_risk_as_it_is_shown(world: World) -> None:
    """As high: whoever accepts up to high has seen it so."""
    world.poll(120.0, software(broken="php", exploits=[{"id": 1, "risk": None}]))
    found = [world.objection(125.0, waivers=(Waiver("*", "php", max_severity=worst),)) for worst in ("high", "medium")]
    assert found == [None, "limit"]
