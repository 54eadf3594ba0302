from __future__ import annotations

import datetime as dt

import pytest
from msgspec.structs import replace

from patrolserver_exporter.config.schema import Issues
from patrolserver_exporter.gate.evidence import ServerEvidence
from patrolserver_exporter.issues.model import Issue, IssueClass, Kind, Severity, Waiver
from patrolserver_exporter.issues.summary import ServerSummary
from patrolserver_exporter.issues.trust import Collapse
from patrolserver_exporter.patrolserver.models import Exploit, Software
from patrolserver_exporter.store.fleet import ServerRecord, ServerState
from patrolserver_exporter.store.views import ServerView
from patrolserver_exporter.web.pages.server import (
    HISTORY,
    SOFTWARE,
    advice,
    gate_doubts,
    headline,
    history,
    issue_view,
    server_page,
    software_groups,
    waiver_views,
)

NOW = 1_800_000_000.0
ISSUE = Issue(
    account="main",
    server_id=7,
    canonical_name="nginx",
    location="/",
    issue_class=IssueClass.VERSION,
    fingerprint="abc",
    kind=Kind.OUTDATED,
    severity=Severity.MEDIUM,
    software="nginx",
    version="1.26.0",
    update_to="1.26.2",
    first_seen=NOW - 86_400,
    last_seen=NOW,
    polled=True,
)
SUMMARY = ServerSummary(
    account="main",
    server_id=7,
    name="web-01",
    open_issues=(0, 0, 1, 0),
    software=(0, 1, 0, 0),
    last_poll_at=NOW - 60,
    poll_success=True,
)
NGINX = Software(
    name="nginx", canonical_name="nginx", version="1.26.0", supported=False, newest_bugfix_release="1.26.2"
)
VIEW = ServerView(
    record=ServerRecord(
        account="main", server_id=7, name="web-01", state=ServerState(), summary=SUMMARY, next_poll_at=NOW + 60
    ),
    software=(NGINX,),
    open_issues=(ISSUE,),
    open_count=1,
    fixed_issues=(),
    fixed_count=0,
)


def view(**changes: object) -> ServerView:
    return replace(VIEW, record=replace(VIEW.record, **changes))


@pytest.mark.parametrize(
    ("counts", "words", "tone"),
    [
        ((1, 0, 0, 0), "1 critical issue", "bad"),
        ((0, 2, 1, 0), "2 high and 1 medium issues", "bad"),
        ((0, 0, 0, 3), "3 low issues", "warn"),
        ((0, 0, 0, 0), "No open issue", "good"),
        (None, "Not polled yet, so nothing is known", "unknown"),
    ],
)
def test_the_headline_counts_by_severity(counts: tuple[int, int, int, int] | None, words: str, tone: str) -> None:
    """Worst first, and only what there is."""
    assert headline(replace(SUMMARY, open_issues=counts), gone=False, doubtful=False) == (words, tone)


def test_no_issue_in_doubtful_data_is_no_good_news() -> None:
    """After a failed poll the page does not say that all is fine."""
    page = server_page(view(summary=replace(SUMMARY, open_issues=(0, 0, 0, 0), poll_success=False)), Issues(), NOW)
    assert page.tone == "unknown"
    assert "failed" in page.notices[0].what


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gone_at": NOW - 60}, "no longer has this server"),
        ({"summary": replace(SUMMARY, last_poll_at=None)}, "No poll of this server succeeded yet"),
        ({"summary": replace(SUMMARY, last_poll_at=NOW - 90_000)}, "older than 24 hours"),
        ({"state": ServerState(event_received_at=NOW - 60)}, "or a scan ended, 1 minute ago"),
        ({"state": ServerState(came_back_at=NOW - 60)}, "gone from the server list and came back"),
        ({"state": ServerState(exploits_unknown=2)}, "did not tell the exploits of 2 software"),
    ],
)
def test_what_makes_the_data_doubtful_is_told(changes: dict[str, object], words: str) -> None:
    """One notice each, with what it means."""
    (notice,) = server_page(view(**changes), Issues(), NOW).notices
    assert words in notice.what


@pytest.mark.parametrize(
    ("changes", "reachable", "told"),
    [
        (
            {"software": (3, 0, 0, 2)},
            True,
            ["The state of 2 software is not known: it may have issues that nobody sees."],
        ),
        ({}, False, ["The server list of account main cannot be read."]),
        ({"in_doubt": True}, True, []),
    ],
)
def test_a_server_that_the_gate_does_not_know_is_no_good_news(
    changes: dict[str, object], told: list[str], *, reachable: bool
) -> None:
    """Whatever the reason: what makes it one of the fleet's unknown servers is in its headline, too."""
    clean = replace(SUMMARY, open_issues=(0, 0, 0, 0), software=(3, 0, 0, 0), exploits=0, poll_complete=True)
    assert server_page(view(summary=clean), Issues(), NOW).tone == "good"
    page = server_page(view(summary=replace(clean, **changes)), Issues(), NOW, reachable=reachable)
    assert (page.headline, page.tone) == ("No open issue is known, but the data has gaps", "unknown")
    assert [notice.what for notice in page.notices] == told


def test_waived_issues_stand_apart() -> None:
    """They do not count, but they can be seen, with until when and why."""
    waived = replace(ISSUE, waived_until=dt.date(2027, 3, 31), waived_reason="soon gone")
    page = server_page(replace(VIEW, open_issues=(ISSUE, waived), open_count=5), Issues(), NOW)
    assert (len(page.issues), len(page.waived), page.issues_cut) == (1, 1, 3)
    assert (page.waived[0].waived_until, page.waived[0].waived_reason) == ("2027-03-31", "soon gone")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Update nginx to 1.26.2."),
        ({"kind": Kind.UNSUPPORTED, "update_to": None}, "Upgrade nginx to a supported release."),
        ({"kind": Kind.EXPLOITABLE}, "nginx has known exploits: update it to 1.26.2."),
        (
            {"kind": Kind.EXPLOITABLE, "update_to": None},
            "nginx has known exploits: update it, or take it out of reach.",
        ),
        ({"kind": Kind.REPORTED}, "PatrolServer reported nginx; the next poll tells more."),
    ],
)
def test_an_issue_without_a_title_gets_advice(changes: dict[str, object], words: str) -> None:
    """What to do, by its kind."""
    assert advice(replace(ISSUE, **changes)) == words


def test_the_vendors_title_outranks_our_advice() -> None:
    """An event brought words for exactly this issue."""
    assert issue_view(replace(ISSUE, title="Do this."), NOW).title == "Do this."


def test_software_is_grouped_worst_state_first_and_dangerous_first() -> None:
    """What cannot be fixed by an update stands at the top, and exploits before the rest."""
    fine = replace(NGINX, name="fine", supported=True)
    exploited = replace(NGINX, name="zz", exploits=(Exploit(risk=9.1, cve="CVE-1"),))
    ended = replace(NGINX, name="old", newest_bugfix_release=None)
    unknown = replace(NGINX, name="what", supported=None)
    groups = software_groups([fine, NGINX, exploited, unknown, ended])
    assert [group.state for group in groups] == ["unsupported", "outdated", "unknown", "supported"]
    assert [row.name for row in groups[1].rows] == ["zz", "nginx"]
    assert groups[1].rows[0].exploits == "1 exploit, risk up to 9.1 (CVE-1)"


def test_a_group_of_software_has_an_end() -> None:
    """A server with 100,000 packages makes no endless page; how many are left out is said."""
    (group,) = software_groups([NGINX] * (SOFTWARE + 7))
    assert (group.count, len(group.rows), group.cut) == (SOFTWARE + 7, SOFTWARE, 7)


def test_history_tells_openings_and_fixes_the_newest_first() -> None:
    """A fix says how long it took."""
    fixed = replace(ISSUE, fingerprint="def", software="php", first_seen=NOW - 7200, fixed_at=NOW - 3600)
    told = [(entry.what, entry.software) for entry in history([ISSUE], [fixed], NOW)]
    assert told == [("Fixed after 1 hour", "php 1.26.0"), ("Opened", "php 1.26.0"), ("Opened", "nginx 1.26.0")]


def test_history_has_an_end() -> None:
    """The newest entries are kept."""
    old = [replace(ISSUE, first_seen=NOW - age) for age in range(3 * HISTORY)]
    entries = history(old, [], NOW)
    assert (len(entries), entries[0].at.words) == (HISTORY, "just now")


@pytest.mark.parametrize(
    ("changes", "effect"),
    [
        ({}, "covers 1 open issue"),
        ({"software": "php"}, "covers nothing here now"),
        ({"until": dt.date(2020, 1, 1)}, "expired: covers nothing any more"),
    ],
)
def test_a_waiver_says_what_it_does_here(changes: dict[str, object], effect: str) -> None:
    """Expired and useless ones are distinguished from those that cover something."""
    waiver = Waiver(server="WEB-*", software="nginx", until=dt.date(2027, 12, 31), reason="r")
    (shown,) = waiver_views([replace(waiver, **changes)], "web-01", [ISSUE], dt.date(2027, 1, 15))
    assert shown.effect == effect


def test_waivers_of_other_servers_are_not_shown() -> None:
    """Only what is about this server."""
    waiver = Waiver(server="db-*", software="*", until=dt.date(2027, 12, 31), reason="r")
    assert waiver_views([waiver], "web-01", [ISSUE], dt.date(2027, 1, 15)) == ()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"empty": True}, "no software"),
        ({"complete_poll_at": None, "incomplete_because": "meta.total is 14"}, "only a part"),
        ({"eased_alike_at": NOW - 5, "incomplete_because": "it and other servers"}, "shown once more"),
        (
            {"complete_poll_at": None, "collapse": Collapse(since=NOW, shown="x"), "incomplete_because": "it lost"},
            "shown once more",
        ),
        ({"in_doubt_since": NOW - 5}, "another server's"),
        ({"missing_since": NOW - 5}, "lacked this server"),
        ({"list_trouble": "error is set"}, "server list tells of trouble"),
        ({"list_claim": "exploitable"}, "exploits that no poll"),
    ],
)
def test_what_nobody_can_vouch_for_is_told_and_is_no_good_news(state: dict[str, object], words: str) -> None:
    """With what the reply said of itself, where it said something."""
    known = ServerState(last_poll_at=NOW - 60, complete_poll_at=NOW - 60, poll_success=True)
    clean = replace(SUMMARY, open_issues=(0, 0, 0, 0))
    page = server_page(view(summary=clean, state=replace(known, **state)), Issues(), NOW)
    (notice,) = page.notices
    assert words in notice.what
    told = [state[name] for name in ("incomplete_because", "list_trouble", "list_claim") if name in state]
    assert notice.detail == "".join(map(str, told))
    assert page.tone == "unknown"


def test_the_server_list_is_heard_where_there_is_no_software() -> None:
    """A server without software that has exploits, or whose scan failed, is told as both."""
    state = ServerState(last_poll_at=NOW - 60, poll_success=True, empty=True, list_claim="exploitable")
    page = server_page(view(summary=replace(SUMMARY, open_issues=(0, 0, 0, 0)), state=state), Issues(), NOW)
    empty, claim = page.notices
    assert "no software" in empty.what
    assert (claim.speaker, claim.detail) == ("The list says:", "exploitable")


def test_exploits_of_unknown_risk_are_told() -> None:
    """They may be the worst."""
    page = server_page(view(summary=replace(SUMMARY, exploits_unknown_risk=2)), Issues(), NOW)
    assert page.notices[0].what == "The risk of 2 exploits is not known."


def test_what_only_the_gate_doubts_is_told_with_its_words() -> None:
    """A delivery that nobody could look at yet may be about this server."""
    clean = replace(SUMMARY, open_issues=(0, 0, 0, 0), software=(3, 0, 0, 0), exploits=0, poll_complete=True)
    page = server_page(view(summary=clean), Issues(), NOW, gate_doubts=("an event about it waits.",))
    assert (page.headline, page.tone) == ("No open issue is known, but the data has gaps", "unknown")
    assert [(one.what, one.detail) for one in page.notices] == [
        ("The gate answers unknown for this server.", "an event about it waits.")
    ]


def test_the_gate_is_asked_by_its_strictest_policy() -> None:
    """Software of unknown state and a server without software keep it from a verdict; so does no evidence at all."""
    fine = ServerEvidence(
        account="main",
        server_id=7,
        name="web-01",
        last_poll_at=NOW - 60,
        poll_success=True,
        poll_complete=True,
        software=(3, 0, 0, 0),
    )
    assert gate_doubts([fine], NOW, 5.0) == ()
    (unknown,) = gate_doubts([replace(fine, software=(3, 0, 0, 2))], NOW, 5.0)
    assert unknown.startswith("the state of 2 of its software is unknown")
    (empty,) = gate_doubts([replace(fine, software=(0, 0, 0, 0), empty=True)], NOW, 5.0)
    assert empty.startswith("PatrolServer lists no software of it")
    assert gate_doubts([], NOW, 5.0) == ("its account is not watched.",)
