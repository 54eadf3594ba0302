# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source: it goes on at its cursor, holds back what is not confirmed, and never ends by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp")
PATH = Path(__file__).parents[3] / "extensions" / "eda" / "plugins" / "event_source" / "issues.py"
spec = importlib.util.spec_from_file_location("issues_source", PATH)
source = importlib.util.module_from_spec(spec)
spec.loader.exec_module(source)


def issue(fingerprint="f1", severity="critical", **more):
    """Return an issue."""
    return {"fingerprint": fingerprint, "account": "main", "server_id": 1, "severity": severity, "confirmed": True, "fixed_at": None, **more}


def change(number, what="opened", **more):
    """Return a change."""
    return {"id": "c{0}".format(number), "change": what, "issue": issue(**more)}


def page(cursor, *changes):
    """Return a page."""
    return {"items": list(changes), "next_cursor": cursor}


class Feed:
    """Gives its answers one after the other, then nothing new for ever."""

    def __init__(self, *answers, now=()):
        self.answers = list(answers)
        self.now = list(now)
        self.asked = []
        self.dry = asyncio.Event()

    async def page(self, after, wait):
        """Return or raise the next answer."""
        self.asked.append(after)
        if not self.answers:
            self.dry.set()
            await asyncio.sleep(0.01)
            return page(after or "end")
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def issue(self, known):
        """Return how the issue stands, one state after the other."""
        answer = self.now.pop(0) if len(self.now) > 1 else self.now[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


def events(feed, monkeypatch, **args):
    """Run the source until its feed is dry and nothing is held back; returns the events."""
    monkeypatch.setattr(source, "FIRST_PAUSE", 0.001)

    async def run():
        queue = asyncio.Queue()
        running = source.Source(source.checked({"max_backoff": 0.01, **args}), feed, queue)
        task = asyncio.create_task(running.run())
        await asyncio.wait_for(feed.dry.wait(), 5)
        while running._held and args.get("confirm_timeout") != 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
        return [queue.get_nowait() for number in range(queue.qsize())]

    return asyncio.run(run())


def test_events_are_changes_that_are_wanted(monkeypatch):
    """By change, severity and kind; each carries its exporter."""
    feed = Feed(page("c4", change(1), change(2, severity="low"), change(3, "fixed"), change(4, "reopened"), "odd", {}))
    found = events(feed, monkeypatch, severity=["critical"])
    assert [(event["id"], event["exporter_url"]) for event in found] == [
        ("c1", "http://127.0.0.1:10058"),
        ("c4", "http://127.0.0.1:10058"),
    ]


def test_what_becomes_worse_is_an_event_unless_others_are_chosen(monkeypatch):
    """A known medium that becomes critical is not silent, and what becomes better is told to who asks for it."""
    exploit = {"id": "7", "cve": "CVE-2099-7777", "risk": 9.8}
    changes = [
        change(1, severity="medium"),
        change(2, "worsened", exploits=[exploit], severity_since="2026-11-24T07:00:00Z"),
        change(3, "eased", severity="medium"),
    ]
    (event,) = events(Feed(page("c3", *changes)), monkeypatch, severity=["critical"])
    assert (event["id"], event["change"]) == ("c2", "worsened")
    assert (event["issue"]["exploits"], event["issue"]["severity_since"]) == ([exploit], "2026-11-24T07:00:00Z")
    found = events(Feed(page("c3", *changes)), monkeypatch, change=["worsened", "eased"])
    assert [event["id"] for event in found] == ["c2", "c3"]


def test_it_goes_on_at_its_cursor_after_every_failure(monkeypatch):
    """The exporter is down, refuses, answers nonsense; nothing is skipped."""
    feed = Feed(
        page("c1", change(1)),
        aiohttp.ClientConnectionError(),
        source.Refused("HTTP 503"),
        asyncio.TimeoutError(),
        OSError(),
        page("c2", change(2)),
    )
    assert [event["id"] for event in events(feed, monkeypatch)] == ["c1", "c2"]
    assert feed.asked[:6] == ["latest", "c1", "c1", "c1", "c1", "c1"]


def test_a_lost_cursor_is_told_of_and_the_oldest_change_is_next(monkeypatch):
    """The rulebook can look after what it may have missed."""
    feed = Feed(source.CursorLost("c7"), page("c8", change(8)))
    found = events(feed, monkeypatch, start="c1")
    assert [event.get("change") for event in found] == ["gap", "opened"]
    assert feed.asked[:2] == ["c1", "c7"]


def test_the_cursor_survives_a_restart(monkeypatch, tmp_path):
    """The second run begins where the first one ended, and a broken file is no reason to stop."""
    file = tmp_path / "cursor"
    events(Feed(page("c1", change(1))), monkeypatch, cursor_file=str(file))
    assert json.loads(file.read_text()) == {"cursor": "c1"}
    feed = Feed(page("c2"))
    events(feed, monkeypatch, cursor_file=str(file))
    assert feed.asked[0] == "c1"
    file.write_text("{")
    feed = Feed(page("c3"))
    events(feed, monkeypatch, cursor_file=str(file))
    assert feed.asked[0] == "latest"


def test_an_unconfirmed_issue_comes_once_it_is_confirmed_as_it_is_then(monkeypatch, tmp_path):
    """A webhook's issue is high until a poll shows that it is critical."""
    file = tmp_path / "cursor"
    feed = Feed(
        page("c0"),
        page("c1", change(1, severity="high", confirmed=False)),
        now=[issue(severity="high", confirmed=False), source.Refused("HTTP 503"), issue(severity="critical")],
    )
    found = events(feed, monkeypatch, severity=["critical"], cursor_file=str(file))
    assert [(event["id"], event["change"], event["issue"]["severity"]) for event in found] == [("c1", "opened", "critical")]
    assert json.loads(file.read_text()) == {"cursor": "c1"}


@pytest.mark.parametrize(
    "pages",
    [
        [page("c1", change(1, severity="high", confirmed=False), change(2, "worsened"))],
        [page("c1", change(1, severity="high", confirmed=False)), page("c2", change(2, "worsened"))],
    ],
)
def test_an_issue_that_a_poll_confirms_as_worse_comes_once(monkeypatch, pages):
    """The poll's own change is a part of it, whether it is read before or after the issue was found confirmed."""
    found = events(Feed(*pages, now=[issue()]), monkeypatch, severity=["critical"])
    assert [(event["id"], event["change"]) for event in found] == [("c1", "opened")]


def test_what_gets_worse_again_after_that_is_an_event(monkeypatch):
    """Only what the event already told is left out."""
    again = change(3, "worsened", exploits=[{"id": "8"}])
    feed = Feed(page("c1", change(1, confirmed=False)), page("c3", change(2, "worsened"), again), now=[issue()])
    assert [event["id"] for event in events(feed, monkeypatch)] == ["c1", "c3"]


def test_who_only_asks_for_what_becomes_worse_gets_it_of_an_unconfirmed_issue(monkeypatch):
    """Nothing is held back for an event that would not come."""
    feed = Feed(page("c2", change(1, severity="high", confirmed=False), change(2, "worsened")))
    assert [event["id"] for event in events(feed, monkeypatch, change=["worsened"])] == ["c2"]


def test_an_issue_that_nobody_can_look_up_comes_as_bad_as_it_was_told_last(monkeypatch):
    """Its server may be gone; the change feed still told that it became worse."""
    feed = Feed(page("c2", change(1, severity="high", confirmed=False), change(2, "worsened")), now=[None])
    found = events(feed, monkeypatch, confirm_timeout=0.05)
    assert [(event["id"], event["issue"]["severity"]) for event in found] == [("c1", "critical")]


def test_while_an_issue_is_held_back_the_saved_cursor_is_before_it(monkeypatch, tmp_path):
    """A restart reads it again."""
    file = tmp_path / "cursor"
    feed = Feed(page("c0"), page("c1", change(1, confirmed=False)), page("c2"), now=[issue(confirmed=False)])
    assert events(feed, monkeypatch, cursor_file=str(file), confirm_timeout=5) == []
    assert json.loads(file.read_text()) == {"cursor": "c0"}


@pytest.mark.parametrize("now", [issue(fixed_at="2026-11-24T07:00:00Z"), issue(fixed_at="2026-11-24T07:00:00Z", confirmed=False)])
def test_an_issue_that_is_fixed_before_it_was_confirmed_is_none(monkeypatch, now):
    """There is nothing to react to."""
    assert events(Feed(page("c1", change(1, confirmed=False)), now=[now]), monkeypatch) == []


def test_an_issue_that_nobody_confirms_comes_at_last(monkeypatch):
    """As it is; late is better than never."""
    feed = Feed(page("c1", change(1, confirmed=False)), now=[None])
    found = events(feed, monkeypatch, confirm_timeout=0.05)
    assert [event["issue"]["confirmed"] for event in found] == [False]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"url": "x"}, "url"),
        ({"change": ["gone"]}, "change knows opened, .*worsened, eased.*, not gone"),
        ({"change": []}, "change is empty"),
        ({"severity": "Critical"}, "severity knows critical, .*, not Critical"),
        ({"severity": ["critical", None]}, "severity knows"),
        ({"severity": {"critical": True}}, "severity has to be a list"),
        ({"kind": ["vulnerable"]}, "kind knows"),
        ({"token": "a", "username": "b"}, "exclude"),
        ({"exporter_url": "exporter:10058"}, "exporter_url"),
        ({"exporter_url": "http://exporter:10058/api/v1"}, "exporter_url"),
        ({"exporter_url": 10058}, "exporter_url has to be text"),
        ({"wait": "soon"}, "wait has to be a number"),
        ({"confirm_timeout": "nan"}, "confirm_timeout has to be from"),
        ({"confirm_timeout": -1}, "confirm_timeout has to be from"),
        ({"limit": 5000}, "limit has to be from 1 to 1000"),
        ({"max_backoff": True}, "max_backoff has to be a number"),
        ({"validate_certs": "maybe"}, "validate_certs has to be true or false"),
    ],
)
def test_a_mistake_in_the_rulebook_ends_it_at_its_start(args, named):
    """Before anybody relies on it, with the option's name."""
    with pytest.raises(ValueError, match=named):
        source.checked(args)


def test_texts_stand_for_lists_and_bounds_are_kept():
    """And what ansible-rulebook adds is ignored."""
    options = source.checked({"severity": "critical", "wait": 600, "source_name": "x"})
    assert (options["severity"], options["wait"]) == (["critical"], 60)


def test_what_variables_bring_as_text_has_the_type_of_the_option():
    """Also a false that would be true as a text, and nothing at all for what is empty."""
    options = source.checked(
        {"validate_certs": "False", "confirm_timeout": "5", "limit": "7", "change": "worsened, eased", "ca_file": "", "severity": None}
    )
    assert (options["validate_certs"], options["confirm_timeout"], options["limit"]) == (False, 5.0, 7)
    assert (options["change"], options["ca_file"], options["severity"]) == (["worsened", "eased"], None, None)


def test_no_severity_chosen_is_all_of_them(monkeypatch):
    """As in the other plugins; an empty list never means silence."""
    feed = Feed(page("c1", change(1, severity="low")))
    assert len(events(feed, monkeypatch, severity=[], kind=[])) == 1
