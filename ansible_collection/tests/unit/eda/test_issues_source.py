# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source: it goes on at its cursor, holds back what is not confirmed, and never ends by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp")
PATH = Path(__file__).parents[3] / "extensions" / "eda" / "plugins" / "event_source" / "issues.py"
spec = importlib.util.spec_from_file_location("issues_source", PATH)
source = importlib.util.module_from_spec(spec)
spec.loader.exec_module(source)

from ansible_collections.patrolserver.monitoring.plugins.plugin_utils import event_engine, event_hosts  # noqa: E402


def issue(fingerprint="f1", severity="critical", **more):
    """Return an issue."""
    return {
        "fingerprint": fingerprint,
        "account": "main",
        "server_id": 1,
        "severity": severity,
        "confirmed": True,
        "fixed_at": None,
        **more,
    }


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
        self.waits = []
        self.now = list(now)
        self.asked = []
        self.dry = asyncio.Event()

    async def page(self, after, wait):
        """Return or raise the next answer."""
        self.asked.append(after)
        self.waits.append(wait)
        if not self.answers:
            self.dry.set()
            await asyncio.sleep(0.01)
            return page("end" if after in (None, "latest") else after)
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


class Engine:
    """Has the queue of ansible-rulebook, of one event, and takes events from it until it dies.

    With feedback it acknowledges each but those named in ``silent_on``. ``drop`` names those that a filter leaves out.
    """

    def __init__(self, dies_after=None, feedback=False, silent_on=(), drop=()):
        self.queue = asyncio.Queue(1)
        self.feedback = asyncio.Queue(1) if feedback else None
        self.taken = []
        self._dies_after = dies_after
        self._silent_on = silent_on
        self._drop = drop

    async def put(self, event):
        """Put what the filters leave into the inner queue."""
        if event.get("id") not in self._drop:
            await self.queue.put(event)

    async def run(self):
        """Take one event after the other."""
        while len(self.taken) != self._dies_after:
            event = await self.queue.get()
            self.taken.append(event)
            if self.feedback is not None and event["id"] not in self._silent_on:
                await self.feedback.put(event)


def events(feed, monkeypatch, engine=None, **args):
    """Run the source until its feed is dry and nothing is held back; returns the events that the engine took."""
    monkeypatch.setattr(source, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(event_engine, "LOOK_EVERY", 0.001)
    monkeypatch.setattr(event_engine, "TAKEN_TIMEOUT", 0.1)
    monkeypatch.setattr(event_engine, "FEEDBACK_TIMEOUT", 0.1)

    async def run():
        rules = engine or Engine()
        running = source.Source(source.checked({"max_backoff": 0.01, **args}), feed, rules, rules.feedback)
        tasks = [asyncio.create_task(running.run()), asyncio.create_task(rules.run())]
        if rules._dies_after is None:
            await asyncio.wait_for(feed.dry.wait(), 60)
            while running._held and args.get("confirm_timeout") != 5:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3 if rules._dies_after is not None else 0.05)
        assert not tasks[0].done()
        for task in tasks:
            task.cancel()
        return rules.taken

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


@pytest.mark.parametrize("text", ["{", "[]", '{"cursor": 7}'])
def test_a_cursor_that_cannot_be_read_is_told_of(monkeypatch, tmp_path, text):
    """It is no reason to stop, but what came in the meantime may be missing."""
    file = tmp_path / "cursor"
    file.write_text(text)
    feed = Feed(page("c3"))
    assert [event["change"] for event in events(feed, monkeypatch, cursor_file=str(file))] == ["gap"]
    assert feed.asked[0] == "latest"
    assert json.loads(file.read_text()) == {"cursor": "c3"}


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_the_cursor_is_kept_only_for_what_the_engine_took(monkeypatch, tmp_path, taken):
    """Whatever was still in the queue when the rulebook was killed comes again, and no event is lost."""
    file = tmp_path / "cursor"
    changes = [change(number, fingerprint="f{0}".format(number)) for number in range(1, taken + 2)]
    last = changes[-1]["id"]
    feed = Feed(page("c0"), page(last, *changes))
    first = events(feed, monkeypatch, Engine(dies_after=taken), cursor_file=str(file))
    assert feed.dry.is_set()
    saved = int(json.loads(file.read_text())["cursor"][1:])
    assert saved <= taken
    second = events(Feed(page(last, *changes[saved:])), monkeypatch, cursor_file=str(file))
    assert {event["id"] for event in first + second} == {one["id"] for one in changes}


def test_the_start_is_a_place_before_anything_is_waited_for(monkeypatch, tmp_path):
    """What opens while the first question waits would be lost with the rulebook: nothing says where it began."""
    file = tmp_path / "cursor"
    feed = Feed(page("c1"))
    events(feed, monkeypatch, cursor_file=str(file))
    assert feed.waits[0] == 0
    assert feed.waits[1] > 0


def test_with_feedback_the_cursor_is_kept_for_what_was_acknowledged(monkeypatch, tmp_path):
    """The engine fetched the second event and failed on it: a restart brings it again, and the third came all the same."""
    file = tmp_path / "cursor"
    changes = [change(number, fingerprint="f{0}".format(number)) for number in range(1, 4)]
    engine = Engine(feedback=True, silent_on=["c2"])
    found = events(Feed(page("c3", *changes)), monkeypatch, engine, cursor_file=str(file), feedback=True)
    assert [event["id"] for event in found] == ["c1", "c2", "c3"]
    assert json.loads(file.read_text()) == {"cursor": "c1"}


@pytest.mark.parametrize("feedback", [True, False])
def test_what_a_filter_drops_is_not_waited_for(monkeypatch, tmp_path, feedback):
    """Nobody will acknowledge it."""
    file = tmp_path / "cursor"
    engine = Engine(feedback=feedback, drop=["c1"])
    found = events(
        Feed(page("c2", change(1), change(2))), monkeypatch, engine, cursor_file=str(file), feedback=feedback
    )
    assert [event["id"] for event in found] == ["c2"]
    assert json.loads(file.read_text()) == {"cursor": "c2"}


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("web1.example.org", "web1.example.org"),
        ("10.0.0.1", "10.0.0.1"),
        ("all", event_hosts.NO_HOST),
        ("ungrouped", event_hosts.NO_HOST),
        ("", event_hosts.NO_HOST),
        (None, event_hosts.NO_HOST),
    ],
)
def test_events_are_limited_to_the_host_of_the_servers_name(monkeypatch, name, pattern):
    """A plain name stands for itself, and one that Ansible reads as all hosts for none."""
    (event,) = events(Feed(page("c1", change(1, server=name))), monkeypatch)
    assert event["meta"] == {"hosts": [pattern]}


@pytest.mark.parametrize(
    "name",
    [
        "*",
        "web*",
        "web[1:3]",
        "!web1",
        "&web",
        "~web.*",
        "@/etc/passwd",
        "web1,web2",
        "web1:web2",
        "2001:db8::1",
        "a b",
        "web1\n",
        "wéb",
        "-web1",
    ],
)
def test_a_name_that_is_a_pattern_of_ansibles_matches_only_itself(name):
    """As Ansible reads it: what stands in a limit is split at commas and colons, and globs are matched."""
    inventory = pytest.importorskip("ansible.inventory.manager")
    pattern = event_hosts.host_pattern(name)
    assert inventory.split_host_pattern(pattern) == [pattern]
    assert pattern.startswith("~")
    expression = re.compile(pattern[1:])
    assert expression.match(name)
    assert not any(expression.match(other) for other in ("web1", "web2", "web", "all", name + "x"))


GROUPED = {
    "all": {
        "hosts": {"a": None, "db": None, "c d": None, "web1.example.org": None},
        "children": {"web": {"hosts": {"a": None}}, "db": {"hosts": {"a": None}}, "c d": {"hosts": {"a": None}}},
    }
}


def test_a_name_is_never_taken_for_a_group(monkeypatch, tmp_path):
    """Ansible itself says which hosts the limit means, in an inventory that has groups of such names."""
    manager = pytest.importorskip("ansible.inventory.manager")
    loader = pytest.importorskip("ansible.parsing.dataloader")
    monkeypatch.setattr(manager.C, "HOST_PATTERN_MISMATCH", "ignore")
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps(GROUPED))
    meant = {"web": [], "db": ["db"], "c d": [], "a": ["a"], "nobody": [], "all": []}
    meant["web1.example.org"] = ["web1.example.org"]

    async def patterns():
        looked_up = event_hosts.Inventory(str(path))
        return {name: await looked_up.pattern_for(name) for name in meant}

    inventory, found = manager.InventoryManager(loader.DataLoader(), sources=[str(path)]), {}
    for name, pattern in asyncio.run(patterns()).items():
        inventory.subset(pattern)
        found[name] = [host.name for host in inventory.list_hosts("all")]
    assert found == meant


@pytest.mark.parametrize("inventory", [None, "/no/such/hosts.yml"])
def test_without_an_inventory_a_name_that_could_be_a_groups_means_no_host(monkeypatch, inventory):
    """One with a dot in it is none that Ansible takes for a group without a warning."""
    for name, pattern in (("web", event_hosts.NO_HOST), ("web1.example.org", "web1.example.org")):
        (event,) = events(Feed(page("c1", change(1, server=name))), monkeypatch, inventory=inventory)
        assert event["meta"]["hosts"] == [pattern]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["/usr/bin/ansible-rulebook", "-r", "x.yml", "-i", "hosts.yml", "--verbose"], "hosts.yml"),
        (["/venv/site-packages/ansible_rulebook/__main__.py", "--rulebook=x.yml", "--inventory=hosts.yml"], "hosts.yml"),
        (["ansible-rulebook", "--worker", "--id", "7"], None),
        (["ansible-rulebook", "-i"], None),
        (["pytest", "-i", "hosts.yml"], None),
        ([], None),
    ],
)
def test_the_inventory_is_the_one_of_the_command_line(arguments, found):
    """Of ansible-rulebook's, and of no other program's."""
    assert event_hosts.inventory_of_command_line(arguments) == found


def test_no_limit_for_who_looks_for_the_host_himself(monkeypatch):
    """Where the inventory has other names than PatrolServer."""
    (event,) = events(Feed(page("c1", change(1, server="web1"))), monkeypatch, limit_hosts=False)
    assert "meta" not in event


def test_no_text_of_an_event_begins_a_template(monkeypatch):
    """ansible-rulebook hands events over as extra variables, whose templates Ansible would run."""
    names = {"server": "{{ lookup('pipe', 'id') }}", "title": "{% if x %}", "exploits": [{"title": "{{{# x"}]}
    (event,) = events(Feed(page("c1", change(1, **names))), monkeypatch)
    assert not any(mark in json.dumps(event) for mark in ("{{", "{%", "{#"))
    assert event["issue"]["title"] == "{ % if x %}"


def test_an_unconfirmed_issue_comes_once_it_is_confirmed_as_it_is_then(monkeypatch, tmp_path):
    """A webhook's issue is high until a poll shows that it is critical."""
    file = tmp_path / "cursor"
    feed = Feed(
        page("c0"),
        page("c1", change(1, severity="high", confirmed=False)),
        now=[issue(severity="high", confirmed=False), source.Refused("HTTP 503"), issue(severity="critical")],
    )
    found = events(feed, monkeypatch, severity=["critical"], cursor_file=str(file))
    assert [(event["id"], event["change"], event["issue"]["severity"]) for event in found] == [
        ("c1", "opened", "critical")
    ]
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


@pytest.mark.parametrize(
    "now", [issue(fixed_at="2026-11-24T07:00:00Z"), issue(fixed_at="2026-11-24T07:00:00Z", confirmed=False)]
)
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
        ({"exporter_url": "http://exporter:10058?x"}, "exporter_url"),
        ({"proxy_url": "socks5://proxy:1080"}, "proxy_url"),
        ({"exporter_url": "http://me:word@exporter:10058"}, "exporter_url"),
        ({"username": "a"}, "username and password go together"),
        ({"client_cert": __file__}, "client_cert and client_key go together"),
        ({"ca_file": "/no/ca.pem"}, "ca_file: /no/ca.pem cannot be read"),
        ({"cursor_file": "/no/folder/cursor"}, "cursor_file: /no/folder/cursor has to be a file in a folder"),
        ({"cursor_file": "/"}, "cursor_file: / has to be a file"),
        ({"token": "a\tb"}, "token: it holds a control character, U.0009"),
        ({"token": 1.5}, "token has to be text"),
        ({"feedback": "perhaps"}, "feedback has to be true or false"),
        ({"retries": -1}, "retries: it has to be 0 or more"),
        ({"timeout": 0}, "timeout: it has to be more than 0"),
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
        {
            "validate_certs": "False",
            "confirm_timeout": "5",
            "limit": "7",
            "change": "worsened, eased",
            "ca_file": "",
            "severity": None,
        }
    )
    assert (options["validate_certs"], options["confirm_timeout"], options["limit"]) == (False, 5.0, 7)
    assert (options["change"], options["ca_file"], options["severity"]) == (["worsened", "eased"], None, None)


def test_no_severity_chosen_is_all_of_them(monkeypatch):
    """As in the other plugins; an empty list never means silence."""
    feed = Feed(page("c1", change(1, severity="low")))
    assert len(events(feed, monkeypatch, severity=[], kind=[])) == 1


def test_the_connection_is_taken_from_the_environment_as_everywhere(monkeypatch):
    """Under the names of the modules; who names credentials gets no others."""
    monkeypatch.setenv("PATROLSERVER_EXPORTER_URL", "https://exporter.example.org")
    monkeypatch.setenv("PATROLSERVER_EXPORTER_TOKEN", "t\n")
    monkeypatch.setenv("PATROLSERVER_EXPORTER_VALIDATE_CERTS", "no")
    options = source.checked({"token": ""})
    assert (options["exporter_url"], options["token"], options["validate_certs"]) == (
        "https://exporter.example.org",
        "t",
        False,
    )
    options = source.checked({"username": "me", "password": "word", "exporter_url": "http://other"})
    assert (options["exporter_url"], options["username"], options["token"]) == ("http://other", "me", None)


def test_a_token_of_digits_is_a_token():
    """ansible-rulebook makes a number of it."""
    assert source.checked({"token": 12345})["token"] == "12345"


def test_a_certificate_that_is_none_ends_the_rulebook_at_its_start():
    """And the message names the options, not what is in the file."""
    with pytest.raises(ValueError, match="ca_file: .* holds no certificate in PEM"):
        source.checked({"ca_file": __file__, "exporter_url": "https://exporter.example.org"})
    with pytest.raises(ValueError, match="ca_file, client_cert and client_key have to be files in PEM"):
        source.session_of(source.checked({"client_cert": __file__, "client_key": __file__}))


@pytest.mark.parametrize("package", [False, True])
def test_the_source_is_loaded_by_its_path_alone(tmp_path, package):
    """As ansible-rulebook does: without Ansible, and where another package is called ansible_collections."""
    if package:
        (tmp_path / "ansible_collections").mkdir()
        (tmp_path / "ansible_collections" / "__init__.py").touch()
    code = "import runpy, sys; sys.modules['ansible'] = None; print(callable(runpy.run_path(sys.argv[1])['main']))"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(PATH)], env=environ, cwd=str(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
