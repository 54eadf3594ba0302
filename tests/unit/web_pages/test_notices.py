from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.harness.pages import CANARY, status

from patrolserver_exporter.inbox.deliveries import DeliveryState, InboxCount
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.store.fleet import AccountRecord
from patrolserver_exporter.store.views import PollState
from patrolserver_exporter.sync.exporters import LivingExporter
from patrolserver_exporter.web.pages.accounts import (
    NOT_KNOWN,
    THIS,
    AccountView,
    Freshness,
    account_views,
    by_account,
    exporter_view,
)
from patrolserver_exporter.web.pages.notices import notices
from patrolserver_exporter.web.webhook import Refusal

NOW = 1_800_000_000.0
ANSWERED = AccountRecord(name="main", up=True, last_success_at=NOW - 20)


def told(
    record: AccountRecord = ANSWERED,
    *,
    inbox: tuple[InboxCount, ...] = (),
    fresh: Freshness | None = None,
    **changes: object,
) -> list[tuple[str, bool]]:
    accounts = account_views(
        [status("main", 3, **changes)],
        {"main": record},
        inbox,
        {"main": fresh or Freshness(oldest_at=NOW - 20)},
        redact=Redactor(CANARY).redact,
        now=NOW,
    )
    return [(notice.what + " " + notice.detail, notice.bad) for notice in notices(accounts, inbox, now=NOW)]


def test_where_nothing_is_wrong_nothing_is_said() -> None:
    """No notice, so no section of them."""
    assert told() == []


def test_refused_credentials_are_told_with_the_time_of_the_last_answer() -> None:
    """What the API said is shown, but no secret in it."""
    ((what, bad),) = told(trouble=f"403 for {CANARY}", credentials_refused=True)
    assert "refuses the credentials of account main" in what
    assert "20 seconds ago" in what
    assert CANARY not in what
    assert bad


def test_an_api_that_cannot_be_reached_is_told() -> None:
    """With what failed."""
    ((what, bad),) = told(trouble="connection refused")
    assert "cannot be reached" in what
    assert "connection refused" in what
    assert bad


def test_silence_is_told_even_when_no_call_failed() -> None:
    """A list that was last read a quarter of an hour ago means that something hangs."""
    ((what, bad),) = told(AccountRecord(name="main", last_success_at=NOW - 901))
    assert "has not answered" in what
    assert bad


def test_an_account_that_was_never_asked_is_no_trouble() -> None:
    """That is how every start looks."""
    assert told(AccountRecord(name="main"), fresh=Freshness()) == []


def test_old_and_failed_data_is_counted() -> None:
    """The sums are over all accounts."""
    found = told(fresh=Freshness(never=1, failed=2, old=3, oldest_at=NOW - 90_000))
    assert [(what.split(".")[0], bad) for what, bad in found] == [
        ("The data of 3 servers is older than 24 hours", True),
        ("The last poll of 2 servers failed", True),
        ("1 server waits for the first poll", False),
    ]


def test_deliveries_that_wait_long_are_told() -> None:
    """Those of the last quarter of an hour are not worth a word."""
    assert told(inbox=(InboxCount("main", DeliveryState.RETRY, 4, NOW - 60),)) == []
    ((what, bad),) = told(inbox=(InboxCount("main", DeliveryState.RETRY, 4, NOW - 1000),))
    assert what.startswith("4 deliveries wait for account main")
    assert bad


def test_deliveries_that_were_not_understood_are_told_at_any_age() -> None:
    """They are for somebody to look at, but the numbers stand."""
    ((what, bad),) = told(inbox=(InboxCount("main", DeliveryState.DEAD, 1, NOW - 1),))
    assert what.startswith("1 delivery of account main could not be understood")
    assert not bad


def test_an_overflow_is_told_until_polls_made_up_for_it() -> None:
    """Since when, and that no issue is lost."""
    ((what, _),) = told(AccountRecord(name="main", last_success_at=NOW, catch_up_since=NOW - 3600))
    assert "overflowed 1 hour ago" in what


def test_accounts_with_trouble_come_first() -> None:
    """Then those that were not asked, then the rest by name."""
    views = account_views(
        [status("a", 1), status("b", 1), status("c", 1, trouble="503")],
        {name: AccountRecord(name=name, last_success_at=NOW) for name in ("a", "c")},
        (),
        {},
        redact=str,
        now=NOW,
    )
    assert [(view.name, view.state) for view in views] == [
        ("c", "Not reachable"),
        ("b", "Not asked yet"),
        ("a", "Working"),
    ]


def test_the_exporter_counts_deliveries_of_all_accounts() -> None:
    """Those that wait, and those that are dead."""
    inbox = (
        InboxCount("a", DeliveryState.RECEIVED, 2, NOW),
        InboxCount("b", DeliveryState.BLOCKED, 3, NOW),
        InboxCount("b", DeliveryState.DEAD, 1, NOW),
    )
    view = exporter_view(inbox, ready=False)
    assert (view.state, view.waiting, view.dead) == ("Starting", 5, 1)


def told_of(**changes: Any) -> str:
    """The one notice on an account with these changes."""
    ((what, bad),) = told(**changes)
    assert bad
    return what


def test_a_part_of_a_server_list_is_told_with_the_member_that_says_so() -> None:
    """Whoever asks PatrolServer about it has to name it; no secret is shown."""
    what = told_of(list_complete=False, list_partial_because=("meta.total_pages is 3",))
    assert "only a part" in what
    assert "meta.total_pages is 3" in what


def test_servers_that_a_list_suddenly_lacks_are_counted() -> None:
    """They are kept until another list confirms it."""
    assert "lacks 7 servers" in told_of(servers_missing=7)


def test_a_pause_is_told_with_its_end_and_its_reason() -> None:
    """No secret in it."""
    what = told_of(pause_until=NOW + 1800, pause_reason=f"429, Retry-After 1800 {CANARY}")
    assert "(in 30 minutes)" in what
    assert "Retry-After 1800" in what
    assert CANARY not in what


@pytest.mark.parametrize("field", ["partial", "empty", "unknown_risk"])
def test_servers_of_which_too_little_is_known_are_counted_and_the_worst_named(field: str) -> None:
    """Those with the worst open issues come first."""
    servers = by_account([state(field, n) for n in range(5)], NOW)["main"]
    (notice,) = notices(views(servers), (), now=NOW)
    assert "5 servers" in notice.what
    assert notice.which == "s4, s3, s2 and 2 more"
    assert notice.bad


def state(field: str, number: int) -> PollState:
    return PollState(
        "main",
        number,
        NOW - 5,
        poll_success=True,
        name=f"s{number}",
        poll_complete=field == "unknown_risk",
        empty=field == "empty",
        open_issues=(number, 0, 0, 0),
        exploits_unknown_risk=int(field == "unknown_risk"),
    )


def views(fresh: Freshness) -> tuple[AccountView, ...]:
    return account_views([status("main", 5)], {"main": ANSWERED}, (), {"main": fresh}, redact=str, now=NOW)


def test_a_store_that_cannot_write_is_told_first() -> None:
    """Everything else rests on it."""
    found = notices(views(Freshness(old=1, oldest_at=0.0)), (), now=NOW, store_trouble="disk is full")
    assert "cannot write" in found[0].what
    assert found[0].detail == "disk is full"
    view = exporter_view((), ready=True, writable=False)
    assert (view.state, view.tone) == ("Cannot write", "bad")


def test_waivers_that_end_within_two_weeks_are_named() -> None:
    """From the last day on which they hold, up to 14 days ahead; those that have ended cover nothing any more."""
    today = dt.datetime.fromtimestamp(NOW, dt.UTC).date()
    waivers = [
        Waiver(server="*", software=f"in-{days}", until=today + dt.timedelta(days=days), reason="r")
        for days in (15, 14, 3, 0, -1)
    ]
    (notice,) = notices(views(Freshness(oldest_at=NOW)), (), now=NOW, waivers=waivers)
    assert notice.what == "3 waivers end within 14 days."
    assert [part.split(" on ")[0] for part in notice.which.split("; ")] == ["in-0", "in-3", "in-14"]
    assert not notice.bad


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"pause_until": NOW + 5}, ("Paused", "unknown")),
        ({"pause_until": NOW - 5}, ("Working", "good")),
        ({"list_complete": False}, ("List incomplete", "unknown")),
        ({"pause_until": NOW + 5, "trouble": "503"}, ("Not reachable", "bad")),
    ],
)
def test_the_account_says_in_a_word_what_is_unknown(changes: dict[str, object], state: tuple[str, str]) -> None:
    """It is called working only when it is."""
    (view,) = account_views([status("main", 1, **changes)], {"main": ANSWERED}, (), {}, redact=str, now=NOW)
    assert (view.state, view.tone) == state


def test_a_list_that_could_not_be_read_is_told_once() -> None:
    """The reply was an error and so no whole list, but the error is what matters."""
    what = told_of(trouble="it is HTML", list_complete=False, list_partial_because=("it is HTML",))
    assert "cannot be reached" in what


def advice(**changes: Any) -> str:
    accounts = account_views([status("main", 3, **changes)], {"main": ANSWERED}, (), {}, redact=str, now=NOW)
    ((notice, *_),) = [notices(accounts, (), now=NOW)]
    return f"{notice.what} {notice.todo}"


@pytest.mark.parametrize("reason", list(FailureReason))
def test_advice_fits_its_cause(reason: FailureReason) -> None:
    """Only what is about the network says to check it: an HTTP 502 was carried by one."""
    text = advice(trouble="it failed", trouble_reason=reason)
    about_network = reason in {FailureReason.CONNECT, FailureReason.CREDENTIALS}
    assert ("network of this machine" in text) is about_network
    words = {
        FailureReason.SERVER_ERROR: "Nothing has to be done here",
        FailureReason.DNS: "DNS",
        FailureReason.TLS: "ca_file",
        FailureReason.TIMEOUT: "poll.timeout",
        FailureReason.RATE_LIMITED: "max_requests_per_minute",
        FailureReason.REDIRECT: "api_url",
    }
    assert words.get(reason, "") in text


UNHEARD = {FailureReason.CONNECT, FailureReason.DNS, FailureReason.TLS, FailureReason.TIMEOUT}


@pytest.mark.parametrize(
    ("changes", "speaker"),
    [
        *(
            ({"trouble": "x", "trouble_reason": reason}, "What happened:" if reason in UNHEARD else "The API says:")
            for reason in FailureReason
            if reason is not FailureReason.CREDENTIALS
        ),
        ({"trouble": "x"}, "What happened:"),
        (
            {
                "trouble": "account main: servers: status 401: no",
                "trouble_reason": FailureReason.CREDENTIALS,
                "credentials_refused": True,
            },
            "The API says:",
        ),
        (
            {
                "trouble": "account main: servers: the key or the secret is empty",
                "trouble_reason": FailureReason.CREDENTIALS,
                "credentials_refused": True,
            },
            "What happened:",
        ),
    ],
)
def test_only_a_reply_is_what_the_api_says(changes: dict[str, Any], speaker: str) -> None:
    """Where no connection came about nobody said anything, and the health of the account tells the same."""
    (view,) = account_views([status("main", 3, **changes)], {"main": ANSWERED}, (), {}, redact=str, now=NOW)
    (notice,) = notices([view], (), now=NOW)
    assert (notice.speaker, view.trouble_speaker) == (speaker, speaker)


def test_an_account_is_named_once() -> None:
    """What happened to it begins with its name in the log, where nothing else tells whose it is."""
    failed, paused = "account main: servers: Connection refused", "account main: servers: status 429"
    changes = {"trouble": failed, "pause_until": NOW + 60, "pause_reason": paused}
    (view,) = account_views([status("main", 3, **changes)], {"main": ANSWERED}, (), {}, redact=str, now=NOW)
    assert (view.trouble, view.pause_reason) == ("servers: Connection refused", "servers: status 429")


@pytest.mark.parametrize(
    ("origins", "said", "unsaid"),
    [
        (("variable",), "needs a restart", "read again by itself"),
        (("file",), "read again by itself", "restart"),
        (("configuration",), "takes a reload", "restart"),
        (("variable", "file"), "needs a restart", "takes a reload"),
    ],
)
def test_new_credentials_are_taken_by_where_they_come_from(origins: tuple[str, ...], said: str, unsaid: str) -> None:
    """A variable of the environment cannot change in a process that runs."""
    text = advice(trouble="403", credentials_refused=True, credentials_from=origins)
    assert said in text
    assert unsaid not in text


def of_webhook(refusal: Refusal | None, delivered: float | None, *, webhook: bool = True) -> list[str]:
    accounts = account_views(
        [status("main", 3, webhook=webhook)],
        {"main": ANSWERED},
        (),
        {"main": Freshness(oldest_at=NOW - 20)},
        redact=str,
        now=NOW,
        last_delivery_at=lambda _: delivered,
    )
    return [f"{one.what} {one.detail} {one.todo}" for one in notices(accounts, (), now=NOW, refusal=refusal)]


def test_a_refused_delivery_is_told_with_its_time_and_that_of_the_last_one() -> None:
    """Why, and what to do about just that; after a day it is forgotten."""
    (text,) = of_webhook(Refusal(NOW - 180, 401, "its token is none of webhook_tokens"), NOW - 7200)
    assert text.startswith("A webhook delivery was refused 3 minutes ago, with a 401.")
    assert "The last delivery that was taken in: main: 2 hours ago." in text
    assert "its token is none of webhook_tokens" in text
    assert "enter the URL there again" in text
    (text,) = of_webhook(Refusal(NOW - 180, 403, "webhook.allowed_networks leaves its address out"), None)
    assert "None was taken in so far." in text
    assert "add its address to webhook.allowed_networks" in text
    assert of_webhook(Refusal(NOW - 86_401, 401, "old"), NOW - 60) == []


def test_a_webhook_that_brings_nothing_for_two_days_is_told() -> None:
    """Only where it is on, and where it brought something once."""
    (text,) = of_webhook(None, NOW - 2 * 86_400 - 7200)
    assert text.startswith("No webhook delivery came for account main for 2 days 2 hours.")
    assert of_webhook(None, NOW - 86_400) == []
    assert of_webhook(None, None) == []
    assert of_webhook(None, NOW - 9 * 86_400, webhook=False) == []


def living(name: str, *accounts: str, is_this: bool = False) -> LivingExporter:
    return LivingExporter(name, f"host-{name}", 7, "1", is_this=is_this, accounts=accounts, config_differs=False)


SILENT = AccountRecord(name="main", last_success_at=NOW - 901)
ALONE = (living("a", "main", is_this=True),)
HERE = (*ALONE, living("b"))
ELSEWHERE = (living("a", is_this=True), living("b", "other", "main"))
NOWHERE = (living("a", is_this=True), living("b", "other"))


def shared(
    exporters: tuple[LivingExporter, ...], record: AccountRecord = ANSWERED, **changes: object
) -> tuple[AccountView, ...]:
    """The account main where these exporters work on the store."""
    return account_views(
        [status("main", 5, **changes)], {"main": record}, (), {}, redact=str, now=NOW, exporters=exporters
    )


@pytest.mark.parametrize(
    ("exporters", "who"),
    [(ALONE, None), (HERE, THIS), (ELSEWHERE, "'b', process 7 on host host-b"), (NOWHERE, ""), ((), None)],
)
def test_the_page_knows_who_polls_an_account(exporters: tuple[LivingExporter, ...], who: str | None) -> None:
    """Nothing is said of it where there is only one exporter, and it polls."""
    (view,) = shared(exporters)
    assert view.polled_by == who


@pytest.mark.parametrize(
    "changes",
    [
        {"trouble": "timeout", "trouble_reason": FailureReason.TIMEOUT},
        {"trouble": "403", "credentials_refused": True},
        {"record": SILENT},
    ],
)
def test_advice_on_an_account_is_about_the_exporter_that_polls_it(changes: dict[str, Any]) -> None:
    """Network, credentials and log of another one are of no use; the advice itself stays."""
    advice = {}
    for exporters in (ALONE, HERE, ELSEWHERE):
        (notice,) = notices(shared(exporters, **changes), (), now=NOW)
        advice[exporters] = notice.todo
    assert advice[ALONE] == advice[HERE]
    there = "It is polled by the exporter 'b', process 7 on host host-b: look there. "
    assert there in advice[ELSEWHERE]
    assert advice[ELSEWHERE].replace(there, "") == advice[ALONE]


def test_an_account_that_nobody_polls_is_told_so() -> None:
    """A restart of this exporter would be of no use. For a moment, while an account moves, it is no trouble."""
    (notice,) = notices(shared(NOWHERE, SILENT), (), now=NOW)
    assert notice.what == "No exporter polls account main. Its last good answer was 15 minutes ago."
    assert notice.bad
    (notice,) = notices(shared(NOWHERE, trouble="timeout"), (), now=NOW)
    assert "No exporter polls it at the moment" in notice.todo
    assert notices(shared(NOWHERE), (), now=NOW) == ()


def test_an_exporter_that_cannot_follow_its_database_says_so() -> None:
    """Its page is no start, and others may know more."""
    (notice,) = notices(shared(HERE), (), now=NOW, follows=False)
    assert "has not followed its database" in notice.what
    assert notice.bad
    view = exporter_view((), ready=False, follows=False)
    assert (view.state, view.tone) == ("Cannot follow", "bad")


@pytest.mark.parametrize(("exporters", "who"), [(HERE, THIS), (ELSEWHERE, NOT_KNOWN), (NOWHERE, NOT_KNOWN)])
def test_who_cannot_follow_its_database_does_not_say_who_polls_an_account(
    exporters: tuple[LivingExporter, ...], who: str
) -> None:
    """What it saw last may be over, except of itself; and it sends nobody to an exporter that is gone."""
    (view,) = account_views(
        [status("main", 5)], {"main": SILENT}, (), {}, redact=str, now=NOW, exporters=exporters, follows=False
    )
    assert view.polled_by == who
    told = " ".join(notice.what + notice.todo for notice in notices((view,), (), now=NOW, follows=False))
    assert "look there" not in told
    assert "No exporter polls" not in told
