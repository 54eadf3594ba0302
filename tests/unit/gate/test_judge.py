from __future__ import annotations

import datetime as dt
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.issues.builders import ACCOUNT, issue

from patrolserver_exporter.gate.evidence import Evidence, ServerEvidence, UnknownServer
from patrolserver_exporter.gate.judge import Judging, judge
from patrolserver_exporter.gate.policy import (
    DAY,
    AcceptedExploit,
    AcceptedIssue,
    Grace,
    KindLimits,
    Policy,
    SeverityLimits,
)
from patrolserver_exporter.gate.verdict import (
    Counts,
    Detail,
    Judgement,
    KindCounts,
    Omitted,
    ReasonCode,
    ServerJudgement,
    SeverityCounts,
    Verdict,
    is_in_grace,
    with_exploits,
)
from patrolserver_exporter.issues.model import Issue, IssueExploit, Kind, Severity, Waiver

NOW = dt.datetime(2027, 1, 31, 12, tzinfo=dt.UTC).timestamp()
TODAY = dt.date(2027, 1, 31)
YESTERDAY = TODAY - dt.timedelta(days=1)
STRICT = Policy(max_total=0)


def server(*issues: Issue, **fields: Any) -> ServerEvidence:
    """A server beyond doubt, polled a minute ago."""
    known: dict[str, Any] = {
        "account": ACCOUNT,
        "server_id": 1,
        "name": "web1.example.org",
        "last_poll_at": NOW - 60,
        "poll_success": True,
        "software": (3, 0, 0, 0),
    }
    return ServerEvidence(**(known | {"issues": issues} | fields))


def codes(judgement: Judgement, *, blocking: bool = True) -> list[ReasonCode]:
    """Why it did not pass, or what else is worth knowing."""
    return [reason.code for reason in judgement.reasons if reason.blocking is blocking]


def waiver(**fields: Any) -> Waiver:
    """A waiver that covers all, unless told otherwise."""
    known: dict[str, Any] = {"server": "*", "software": "*", "until": TODAY, "reason": "replaced"}
    return Waiver(**(known | fields))


def accepted(one: Issue) -> AcceptedIssue:
    """The issue in a baseline, as it is now."""
    exploits = tuple(AcceptedExploit(id=e.id, cve=e.cve, title=e.title, risk=e.risk) for e in one.exploits)
    return AcceptedIssue(
        fingerprint=one.fingerprint, kind=one.kind, severity=one.severity, risk=one.risk, exploits=exploits
    )


def exploit(risk: float | None, name: str = "php") -> Issue:
    """An exploitable issue of that risk."""
    return issue(name, Kind.EXPLOITABLE, risk=risk)


class TestVerdict:
    """Pass, fail and unknown."""

    def test_pass(self) -> None:
        """A server that is known, fresh and within the limits passes."""
        judgement = judge([server(issue())], Policy(), NOW)
        assert judgement.verdict is Verdict.PASS
        assert [one.verdict for one in judgement.servers] == [Verdict.PASS]
        assert judgement.servers[0].data_age_seconds == 60
        assert judgement.reasons == ()

    def test_ages(self) -> None:
        """Each server's data and its last scan have an age in seconds; what never was has none."""
        scanned, never = judge(
            [server(last_scan_at=NOW - 90.5), server(server_id=2, name="web2", last_poll_at=None)], Policy(), NOW
        ).servers
        assert (scanned.data_age_seconds, scanned.scan_age_seconds) == (60, 90.5)
        assert (never.data_age_seconds, never.scan_age_seconds) == (None, None)

    def test_fail(self) -> None:
        """A limit that is exceeded fails, and the issues over it are named."""
        judgement = judge([server(exploit(9.5), issue())], Policy(), NOW)
        assert judgement.verdict is Verdict.FAIL
        assert [(one.server, one.issue.risk, one.limits) for one in judgement.violations] == [
            ("web1.example.org", 9.5, ("max_by_severity.critical",))
        ]
        assert codes(judgement) == [ReasonCode.LIMIT_EXCEEDED]
        assert "Open issues that are critical: 1, and max_by_severity.critical allows 0" in judgement.reasons[0].message

    def test_a_doubt_outweighs_a_violation_of_the_same_server(self) -> None:
        """What is over a limit on a server in doubt is named, but the verdict is unknown."""
        judgement = judge([server(exploit(9.5), last_poll_at=NOW - 2 * 86_400)], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert len(judgement.violations) == 1

    def test_a_violation_elsewhere_outweighs_a_doubt(self) -> None:
        """If the servers beyond doubt alone are over a limit, nothing that is unknown can make that good."""
        old = server(server_id=2, name="web2", last_poll_at=None)
        judgement = judge([old, server(exploit(9.5))], Policy(), NOW)
        assert judgement.verdict is Verdict.FAIL
        assert [one.verdict for one in judgement.servers] == [Verdict.FAIL, Verdict.UNKNOWN]

    def test_each_server_has_a_verdict_of_its_own(self) -> None:
        """It fails by whichever of its issues a broken limit counts, and not by those of others."""
        policy = Policy(max_by_severity=SeverityLimits(critical=0, high=5), waivers=(waiver(software="waived"),))
        asked = [
            server(exploit(9.5), exploit(8.0, "a"), issue("b"), name="web1"),
            server(exploit(8.0), issue(), name="web2"),
            server(name="web3"),
            server(exploit(None), name="web4"),
            server(exploit(9.5), name="web5", missing_from_list=True),
            server(exploit(9.5, "waived"), name="web6"),
        ]
        judgement = judge(asked, policy, NOW)
        assert [one.verdict.value for one in judgement.servers] == ["fail", "pass", "pass", "fail", "unknown", "pass"]
        assert judgement.servers_by_verdict == {Verdict.FAIL: 2, Verdict.PASS: 3, Verdict.UNKNOWN: 1}

    def test_limits_count_over_the_selection(self) -> None:
        """Two servers with one issue each have two."""
        both = [server(issue()), server(issue(), server_id=2, name="web2")]
        assert judge(both, Policy(max_total=2), NOW).verdict is Verdict.PASS
        assert judge(both, Policy(max_total=1), NOW).verdict is Verdict.FAIL
        half = [both[0], replace(both[1], poll_complete=False)]
        assert judge(half, Policy(max_total=1), NOW).verdict is Verdict.UNKNOWN

    def test_a_server_counts_once(self) -> None:
        """A server that is asked for twice, by name and by id, is one."""
        assert judge([server(issue()), server(issue())], Policy(max_total=1), NOW).verdict is Verdict.PASS


class TestDoubts:
    """Each thing that makes a server's data no ground for a verdict."""

    @pytest.mark.parametrize(
        ("fields", "policy", "code"),
        [
            ({"last_poll_at": None, "software": None}, {}, ReasonCode.NEVER_POLLED),
            ({"software": None}, {}, ReasonCode.NEVER_POLLED),
            ({"last_poll_at": NOW - 86_401}, {}, ReasonCode.DATA_TOO_OLD),
            ({"last_poll_at": float("nan")}, {}, ReasonCode.DATA_TOO_OLD),
            ({}, {"max_age": 59.0}, ReasonCode.DATA_TOO_OLD),
            ({"last_poll_at": NOW + 301}, {}, ReasonCode.POLL_IN_FUTURE),
            ({"poll_complete": False}, {}, ReasonCode.POLL_INCOMPLETE),
            ({"software": (3, 0, 0, 1)}, {}, ReasonCode.SOFTWARE_UNKNOWN),
            ({"software": (3, 0, 0, 3)}, {"max_unknown_software": 2}, ReasonCode.SOFTWARE_UNKNOWN),
            ({"exploits_unknown": 1}, {}, ReasonCode.EXPLOITS_UNKNOWN),
            ({"uncounted_risk": 4.1}, {"max_risk": 4.0}, ReasonCode.EXPLOIT_UNCOUNTED),
            ({"uncounted_risk": float("nan")}, {"max_risk": 10.0}, ReasonCode.EXPLOIT_UNCOUNTED),
            ({"unconfirmed_event": True}, {}, ReasonCode.EVENT_UNCONFIRMED),
            ({"account_refused": True}, {}, ReasonCode.CREDENTIALS_REFUSED),
            ({"identity_in_doubt": True}, {}, ReasonCode.IDENTITY_IN_DOUBT),
            ({"missing_from_list": True}, {}, ReasonCode.MISSING_FROM_LIST),
            ({}, {"max_scan_age": 60.0}, ReasonCode.SCAN_NEVER_SEEN),
            ({"last_scan_at": NOW - 61}, {"max_scan_age": 60.0}, ReasonCode.SCAN_TOO_OLD),
            ({"last_scan_at": NOW + 301}, {"max_scan_age": 60.0}, ReasonCode.SCAN_IN_FUTURE),
        ],
    )
    def test_doubt(self, fields: dict[str, Any], policy: dict[str, Any], code: ReasonCode) -> None:
        """One doubt alone makes the verdict unknown, and is told in a sentence that names the server."""
        judgement = judge([server(**fields)], Policy(**policy), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [code]
        (reason,) = judgement.reasons
        assert (reason.account, reason.server_id, reason.server) == (ACCOUNT, 1, "web1.example.org")
        assert judgement.reasons[0].message.startswith("web1.example.org: ")
        assert judgement.reasons[0].message.endswith(".")

    @pytest.mark.parametrize(
        ("fields", "policy"),
        [
            ({"last_poll_at": NOW - 86_400}, {}),
            ({"last_poll_at": NOW + 300}, {}),
            ({"software": (0, 0, 0, 2), "exploits_unknown": 2}, {"max_unknown_software": 2}),
            ({"last_scan_at": NOW - 60}, {"max_scan_age": 60.0}),
            ({"last_scan_at": NOW + 300}, {"max_scan_age": 60.0}),
            ({"last_scan_at": NOW - 10**8}, {}),
            ({"uncounted_risk": 4.0}, {"max_risk": 4.0}),
            ({}, {"max_risk": 0.0}),
            ({"issues": (issue(),)}, {"max_risk": 0.0}),
            ({"uncounted_risk": 4.9}, {}),
        ],
    )
    def test_no_doubt(self, fields: dict[str, Any], policy: dict[str, Any]) -> None:
        """What is just within its bound is beyond doubt."""
        assert judge([server(**fields)], Policy(**policy), NOW).verdict is Verdict.PASS

    @pytest.mark.parametrize(("risk", "codes_of"), [(4.9, []), (5.0, [ReasonCode.EXPLOIT_UNCOUNTED])])
    def test_an_exploit_that_a_reload_made_count_is_a_doubt(self, risk: float, codes_of: list[ReasonCode]) -> None:
        """Until the server is classified again, no issue stands for it."""
        judgement = judge([server(uncounted_risk=risk)], Policy(), NOW, exploit_risk=5.0)
        assert codes(judgement) == codes_of

    def test_a_reported_issue_is_a_doubt(self) -> None:
        """What only an event reported waits for a poll, even if it is waived or in the baseline."""
        only = issue(kind=Kind.REPORTED, event_received_at=NOW)
        for policy, baseline in ((Policy(), ()), (Policy(waivers=(waiver(),)), ()), (Policy(), (accepted(only),))):
            judgement = judge([server(only)], policy, NOW, baseline=baseline)
            assert codes(judgement) == [ReasonCode.EVENT_UNCONFIRMED]

    def test_one_doubt_anywhere_is_enough(self) -> None:
        """Whichever of the servers it is about, and however many are fine."""
        names = ("web1", "web2", "web3")
        for doubted in names:
            asked = [server(server_id=n, name=name, missing_from_list=name == doubted) for n, name in enumerate(names)]
            judgement = judge(asked, Policy(), NOW)
            assert judgement.verdict is Verdict.UNKNOWN
            assert [one.server for one in judgement.servers if one.verdict is Verdict.UNKNOWN] == [doubted]

    def test_what_was_never_polled_did_not_fail_last(self) -> None:
        """There is no older poll that its data rests on."""
        judgement = judge([server(last_poll_at=None, software=None, poll_success=False)], Policy(), NOW)
        assert codes(judgement, blocking=False) == []

    def test_a_failed_poll_is_told(self) -> None:
        """A failed last poll is no doubt while the data is fresh, but worth knowing."""
        judgement = judge([server(poll_success=False, account_reachable=False)], Policy(), NOW)
        assert judgement.verdict is Verdict.PASS
        assert codes(judgement, blocking=False) == [ReasonCode.POLL_FAILED, ReasonCode.ACCOUNT_UNREACHABLE]

    def test_unknown_server(self) -> None:
        """A server that nobody knows makes the verdict unknown, and is in the answer under what was asked for."""
        judgement = judge([server(), UnknownServer(selector="web9", account="main")], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [ReasonCode.UNKNOWN_SERVER]
        assert (judgement.servers[1].server, judgement.servers[1].server_id) == ("web9", None)

    def test_unknown_servers_are_counted(self) -> None:
        """Each once, however often it was asked for, after those that are known, by what was asked for."""
        unknown = [UnknownServer(selector=name) for name in ("z", "a", "z", "m")]
        judging = Judging(Policy(), NOW)
        asked: list[Evidence] = [*unknown, server(), server(name="web2", missing_from_list=True)]
        for one in asked:
            judging.add(one)
        judgement = judging.end()
        assert [one.server for one in judgement.servers] == ["web1.example.org", "web2", "a", "m", "z"]
        assert [one.server for one in judgement.reasons] == ["web2", "a", "m", "z"]
        assert judgement.servers_by_verdict == {Verdict.UNKNOWN: 4, Verdict.PASS: 1}
        assert judgement.omitted == Omitted()

    def test_a_list_that_was_not_whole(self) -> None:
        """A glob may mean servers that it lacked."""
        partial = UnknownServer(selector="web*", account="main", list_incomplete="page 2 failed")
        judgement = judge([server(), partial], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [ReasonCode.LIST_INCOMPLETE]
        assert "the last server list in account main was not whole (page 2 failed)" in judgement.reasons[0].message

    @pytest.mark.parametrize(
        ("fields", "part"),
        [
            ({"last_poll_at": NOW + 301}, " its last successful poll lies 5 min 1 s in the future;"),
            ({"last_poll_at": NOW - 86_401}, " its last successful poll is 1 d 1 s old, and max_age allows 1 d;"),
            ({"last_scan_at": NOW + 301}, " its last scan lies 5 min 1 s in the future;"),
            ({"last_scan_at": NOW - 86_401}, " its last scan is 1 d 1 s old, and max_scan_age allows 1 d;"),
            ({"poll_complete": False}, " was not whole (it had entries that could not be read);"),
            ({"poll_complete": False, "incomplete_because": "cut"}, " was not whole (cut);"),
            ({"unconfirmed_event": True}, " an event may be about it, or the state was restored,"),
            (
                {"issues": (issue(kind=Kind.REPORTED),), "unconfirmed_event": True},
                " 1 of its issues are only reported by an event and wait for a poll to confirm it;",
            ),
        ],
    )
    def test_what_is_told_of_a_doubt(self, fields: dict[str, Any], part: str) -> None:
        """With its numbers and its cause."""
        (reason,) = judge([server(**({"last_scan_at": NOW} | fields))], Policy(max_scan_age=DAY), NOW).reasons
        assert part in reason.message

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (
                {},
                (
                    "web1: no such server is watched; check the name, that PatrolServer has it, and the account's "
                    "include and exclude lists."
                ),
            ),
            (
                {"account": "a", "refused": True},
                (
                    "web1: PatrolServer refuses the credentials of account a, so nobody knows which servers it has; "
                    "renew its key and secret."
                ),
            ),
            (
                {"account": "a", "listed_at": NOW - 2 * DAY},
                (
                    "web1: the last server list in account a is older than max_age, so nobody knows which servers "
                    "there are besides; see the log for why no newer one could be read, or ask by id or name."
                ),
            ),
            (
                {"account": "a", "list_incomplete": "cut"},
                (
                    "web1: the last server list in account a was not whole (cut), so nobody knows which servers there "
                    "are besides; wait for a whole list, or ask by id or name."
                ),
            ),
            (
                {"ambiguous_in": ("b", "a")},
                "web1: 2 accounts have such a server (a, b); say which account, or ask by id.",
            ),
            (
                {"account": "a", "never_listed": True},
                (
                    "web1: the server list in account a was never read, so nobody knows which servers it has; wait for "
                    "the first list, or say which account."
                ),
            ),
            (
                {"account": "a", "not_among": tuple("jihgfedcba")},
                "web1: there is no account a; there are: a, b, c, d, e, f, g, h, i, j.",
            ),
            (
                {"account": "a", "not_among": tuple("kjihgfedcba")},
                "web1: there is no account a; there are: a, b, c, d, e, f, g, h, i, j and 1 more.",
            ),
        ],
    )
    def test_what_is_told_of_an_unknown_server(self, fields: dict[str, Any], message: str) -> None:
        """What nobody knows, of which account, and what to do."""
        (reason,) = judge([UnknownServer(selector="web1", **fields)], Policy(), NOW).reasons
        assert reason.message == message
        assert (reason.account, reason.server, reason.server_id) == (fields.get("account"), "web1", None)

    def test_an_account_that_is_not_there(self) -> None:
        """It is named with those that there are, as far as they fit."""
        others = tuple(f"a{number:02}" for number in range(12))
        judgement = judge([UnknownServer(selector="*", account="nope", not_among=others)], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [ReasonCode.UNKNOWN_SERVER]
        assert "there is no account nope; there are: a00, a01" in judgement.reasons[0].message
        assert judgement.reasons[0].message.endswith("a09 and 2 more.")

    def test_ambiguous_server(self) -> None:
        """A name that several accounts have is told with their names."""
        judgement = judge([UnknownServer(selector="web1", ambiguous_in=("b", "a"))], Policy(), NOW)
        assert codes(judgement) == [ReasonCode.AMBIGUOUS_SERVER]
        assert "(a, b)" in judgement.reasons[0].message

    def test_an_account_that_was_never_listed(self) -> None:
        """What a glob means in an account whose list nobody read is not known, whatever it means elsewhere."""
        unknown = UnknownServer(selector="web*", account="new", never_listed=True)
        judgement = judge([server(), unknown], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [ReasonCode.NEVER_LISTED]
        assert "in account new" in judgement.reasons[0].message

    @pytest.mark.parametrize(
        ("age", "policy", "verdict"),
        [
            (86_400.0, {}, Verdict.PASS),
            (86_401.0, {}, Verdict.UNKNOWN),
            (601.0, {"max_age": 60.0}, Verdict.UNKNOWN),
            (600.0, {"max_age": 60.0}, Verdict.PASS),
            (-300.0, {}, Verdict.PASS),
            (-301.0, {}, Verdict.UNKNOWN),
        ],
    )
    def test_a_glob_over_an_old_list(self, age: float, policy: dict[str, Any], verdict: Verdict) -> None:
        """Nobody knows which servers came since, though those that are known are polled."""
        asked: list[Evidence] = [
            server(last_poll_at=NOW),
            UnknownServer(selector="web*", account=ACCOUNT, listed_at=NOW - age),
        ]
        judgement = judge(asked, Policy(**policy), NOW)
        assert judgement.verdict is verdict
        assert codes(judgement) == ([] if verdict is Verdict.PASS else [ReasonCode.LIST_INCOMPLETE])

    def test_a_fresh_list_alone_is_nothing(self) -> None:
        """A glob that means no server does not pass because the list is new."""
        asked = [UnknownServer(selector="web*", account=ACCOUNT, listed_at=NOW)]
        assert judge(asked, Policy(), NOW).verdict is Verdict.UNKNOWN

    def test_nothing_asked_is_nothing_known(self) -> None:
        """An empty selection does not pass."""
        judgement = judge([], Policy(), NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert codes(judgement) == [ReasonCode.EMPTY_SELECTION]


class TestLimits:
    """What each limit counts."""

    @pytest.mark.parametrize(
        ("issues", "policy", "verdict"),
        [
            ((exploit(9.5),), Policy(max_by_severity=SeverityLimits(critical=1)), Verdict.PASS),
            ((exploit(9.5),), Policy(max_by_severity=SeverityLimits(high=5)), Verdict.FAIL),
            ((exploit(8.0),), Policy(), Verdict.PASS),
            ((exploit(8.0),), Policy(max_by_severity=SeverityLimits(high=0)), Verdict.FAIL),
            (
                (exploit(9.5), exploit(8.0, "nginx")),
                Policy(max_by_severity=SeverityLimits(critical=1, high=1)),
                Verdict.FAIL,
            ),
            ((exploit(8.0),), Policy(max_by_severity=SeverityLimits(low=0)), Verdict.FAIL),
            ((issue(),), Policy(max_by_severity=SeverityLimits(high=0)), Verdict.PASS),
            ((issue(),), Policy(max_by_kind=KindLimits(outdated=0)), Verdict.FAIL),
            ((issue(),), Policy(max_by_kind=KindLimits(outdated=1, unsupported=0)), Verdict.PASS),
            ((issue(), issue("nginx")), Policy(max_total=1), Verdict.FAIL),
            ((exploit(6.0),), Policy(max_risk=6.0), Verdict.PASS),
            ((exploit(6.1),), Policy(max_risk=6.0), Verdict.FAIL),
            ((exploit(None),), Policy(max_by_severity=SeverityLimits(critical=1), max_risk=10.0), Verdict.PASS),
            ((exploit(None),), Policy(max_by_severity=SeverityLimits(critical=1), max_risk=9.9), Verdict.UNKNOWN),
            ((exploit(None),), Policy(), Verdict.UNKNOWN),
            ((exploit(None), exploit(9.5, "nginx")), Policy(), Verdict.FAIL),
            ((issue(fixed_at=NOW),), STRICT, Verdict.PASS),
        ],
    )
    def test_limit(self, issues: tuple[Issue, ...], policy: Policy, verdict: Verdict) -> None:
        """Each limit counts what it names, a severity and worse ones, and nothing else."""
        assert judge([server(*issues)], policy, NOW).verdict is verdict

    @pytest.mark.parametrize(
        ("risks", "allowed", "verdict"),
        [
            ((None, None), 2, Verdict.PASS),
            ((None, None), 1, Verdict.UNKNOWN),
            ((None, None, None), 2, Verdict.UNKNOWN),
            ((9.5, None), 1, Verdict.UNKNOWN),
            ((None, 9.5), 1, Verdict.UNKNOWN),
            ((9.5, 9.5, None), 1, Verdict.FAIL),
            ((9.5, 9.5, 9.5), 2, Verdict.FAIL),
        ],
    )
    def test_unknown_risks_count_beside_known_ones(
        self, risks: tuple[float | None, ...], allowed: int, verdict: Verdict
    ) -> None:
        """Those that might break a limit leave it in doubt, on one server and on several."""
        issues = [exploit(risk, f"p{number}") for number, risk in enumerate(risks)]
        policy = Policy(max_by_severity=SeverityLimits(critical=allowed))
        apart = [server(one, server_id=number, name=f"web{number}") for number, one in enumerate(issues)]
        for asked in ([server(*issues)], apart):
            judgement = judge(asked, policy, NOW)
            assert judgement.verdict is verdict
            assert {one.verdict for one in judgement.servers} == {verdict}
            assert [one.found for one in judgement.breaches] == ([] if verdict is Verdict.PASS else [len(risks)])
            if verdict is not Verdict.PASS:
                worst_first = sorted(risks, key=lambda risk: -10.0 if risk is None else -risk)
                assert [one.issue.risk for one in judgement.violations] == worst_first

    def test_what_is_broken_only_with_servers_in_doubt_does_not_fail(self) -> None:
        """What is known for sure of the others is within the limit."""
        policy = Policy(max_by_severity=SeverityLimits(critical=1))
        asked = [server(exploit(9.5)), server(exploit(9.5), server_id=2, name="web2", poll_complete=False)]
        judgement = judge(asked, policy, NOW)
        assert judgement.verdict is Verdict.UNKNOWN
        assert len(judgement.violations) == 2

    def test_a_limit_of_many_that_is_broken(self) -> None:
        """Each limit that is broken is told with what it counts, and each issue with all that it breaks."""
        policy = Policy(
            max_by_severity=SeverityLimits(critical=5, high=1, low=9), max_by_kind=KindLimits(outdated=0), max_total=3
        )
        judgement = judge(
            [server(exploit(9.5), exploit(8.0, "b"), issue("c")), server(issue("d"), name="z")], policy, NOW
        )
        assert [(one.limit, one.allowed, one.found) for one in judgement.breaches] == [
            ("max_by_severity.high", 1, 2),
            ("max_by_kind.outdated", 0, 2),
            ("max_total", 3, 4),
        ]
        assert [(one.issue.canonical_name, one.limits) for one in judgement.violations] == [
            ("php", ("max_by_severity.high", "max_total")),
            ("b", ("max_by_severity.high", "max_total")),
            ("c", ("max_by_kind.outdated", "max_total")),
            ("d", ("max_by_kind.outdated", "max_total")),
        ]
        assert judgement.servers_by_verdict[Verdict.FAIL] == 2
        assert judgement.omitted == Omitted()

    def test_counts(self) -> None:
        """The answer has the counts by severity and kind, zero-filled, over all servers and for each."""
        judgement = judge([server(exploit(9.5), issue()), server(issue("a"), server_id=2, name="b")], Policy(), NOW)
        assert msgspec.to_builtins(judgement.counts) == {
            "total": 3,
            "by_severity": {"critical": 1, "high": 0, "medium": 2, "low": 0},
            "by_kind": {"unsupported": 0, "outdated": 2, "exploitable": 1, "reported": 0},
            "waived": 0,
            "baseline": 0,
            "unfixable": 0,
        }
        assert [one.counts.total for one in judgement.servers if one.counts] == [1, 2]

    def test_counts_add_up(self) -> None:
        """What counts and what does not, over several issues of several servers."""
        names = [f"{kind}{number}" for kind in ("counted", "waived", "accepted") for number in (1, 2)]
        issues = [*(issue(name, update_to="1.1") for name in names), issue("stuck1"), issue("stuck2")]
        policy = Policy(fixable_only=True, waivers=(waiver(software="waived*"),))
        asked = [server(*issues, server_id=number, name=f"web{number}") for number in (1, 2)]
        judgement = judge(
            asked, policy, NOW, baseline=[accepted(one) for one in issues if "accepted" in (one.canonical_name or "")]
        )
        each = Counts(
            total=2,
            by_severity=SeverityCounts(medium=2),
            by_kind=KindCounts(outdated=2),
            waived=2,
            baseline=2,
            unfixable=2,
        )
        assert [one.counts for one in judgement.servers] == [each, each]
        assert judgement.counts == Counts(
            total=4,
            by_severity=SeverityCounts(medium=4),
            by_kind=KindCounts(outdated=4),
            waived=4,
            baseline=4,
            unfixable=4,
        )

    def test_baseline(self) -> None:
        """Only issues that are not in the baseline count."""
        known = issue()
        baseline = (accepted(known),)
        assert judge([server(known)], STRICT, NOW, baseline=baseline).verdict is Verdict.PASS
        judgement = judge([server(known, issue("nginx"))], STRICT, NOW, baseline=baseline)
        assert (judgement.verdict, judgement.counts.baseline) == (Verdict.FAIL, 1)

    @pytest.mark.parametrize(
        ("name", "verdict"), [("WEB1", Verdict.PASS), (None, Verdict.PASS), ("db1", Verdict.FAIL), ("", Verdict.FAIL)]
    )
    def test_a_baseline_accepts_nothing_for_a_server_of_another_name(self, name: str | None, verdict: Verdict) -> None:
        """Fingerprints are made of ids: another fleet, and who took a server's place, have the same ones."""
        known = issue()
        baseline = (replace(accepted(known), server=name),)
        assert judge([server(known, name="web1")], STRICT, NOW, baseline=baseline).verdict is verdict


class TestGrace:
    """How long an issue does not count yet."""

    HIGH = Policy(max_by_severity=SeverityLimits(high=0), grace=Grace(high=7 * DAY, critical=DAY))

    def test_a_fresh_issue_does_not_count_yet(self) -> None:
        """It counts once its grace is over, to the second."""
        for age, verdict in ((7 * DAY - 1, Verdict.PASS), (7 * DAY, Verdict.FAIL)):
            fresh = issue(kind=Kind.UNSUPPORTED, first_seen=NOW - age, severity_since=NOW - age)
            assert judge([server(fresh)], self.HIGH, NOW).verdict is verdict

    def test_what_got_worse_counts_as_what_it_was(self) -> None:
        """A critical issue of today that was high for a month is over the limit on high, and not yet on critical."""
        worse = replace(
            exploit(9.5),
            first_seen=NOW - 30 * DAY,
            severity_since=NOW - 60,
            at_least_since=(NOW - 60, NOW - 30 * DAY, NOW - 30 * DAY, NOW - 30 * DAY),
        )
        judgement = judge([server(worse)], self.HIGH, NOW)
        assert [one.limits for one in judgement.violations] == [("max_by_severity.high",)]

    def test_what_the_first_whole_poll_found_has_no_grace(self) -> None:
        """Nobody knows how long it has been there."""
        found = issue(kind=Kind.UNSUPPORTED, first_seen=NOW - 60, severity_since=NOW - 60)
        assert judge([server(found, history_since=NOW - 60)], self.HIGH, NOW).verdict is Verdict.FAIL
        assert judge([server(found, history_since=NOW - 61)], self.HIGH, NOW).verdict is Verdict.PASS

    def test_a_short_break_does_not_begin_it_anew(self) -> None:
        """Neither for a severity nor for the first whole poll, whose issues have none."""
        old = (None, NOW - 8 * DAY, NOW - 8 * DAY, NOW - 8 * DAY)
        back = issue(kind=Kind.UNSUPPORTED, first_seen=NOW - 60, severity_since=NOW - 60)
        assert judge([server(back)], self.HIGH, NOW).verdict is Verdict.PASS
        assert judge([server(replace(back, since_before=old))], self.HIGH, NOW).verdict is Verdict.FAIL
        total = Policy(max_total=0, grace=self.HIGH.grace)
        assert judge([server(replace(back, since_before=old))], total, NOW).verdict is Verdict.FAIL
        recent = (None, *[NOW - DAY] * 3)
        again = replace(back, since_before=recent)
        assert judge([server(again, history_since=NOW - 2 * DAY)], self.HIGH, NOW).verdict is Verdict.PASS
        assert judge([server(again, history_since=NOW - DAY)], self.HIGH, NOW).verdict is Verdict.FAIL

    def test_an_issue_of_unknown_age_has_no_grace(self) -> None:
        """Polls listed its software before without telling whether something is wrong with it."""
        found = issue(kind=Kind.UNSUPPORTED, first_seen=NOW - 60, severity_since=NOW - 60)
        history = {"history_since": NOW - DAY}
        assert judge([server(found, **history)], self.HIGH, NOW).verdict is Verdict.PASS
        assert judge([server(replace(found, age_unknown=True), **history)], self.HIGH, NOW).verdict is Verdict.FAIL

    def test_an_issue_from_the_future_has_no_grace(self) -> None:
        """A clock that was set back must not make a grace longer."""
        future = issue(kind=Kind.UNSUPPORTED, first_seen=NOW + 60, severity_since=NOW + 60)
        assert judge([server(future)], self.HIGH, NOW).verdict is Verdict.FAIL


class TestFixableOnly:
    """What cannot be fixed is left out, where the policy says so."""

    POLICY = Policy(max_total=0, fixable_only=True)

    @pytest.mark.parametrize(
        ("one", "verdict"),
        [
            (issue(update_to=None), Verdict.PASS),
            (issue(update_to="1.1"), Verdict.FAIL),
            (exploit(9.5), Verdict.PASS),
            (issue(kind=Kind.UNSUPPORTED), Verdict.FAIL),
        ],
    )
    def test_kinds(self, one: Issue, verdict: Verdict) -> None:
        """Outdated and exploitable software without a release does not count; unsupported software always does."""
        judgement = judge([server(one)], self.POLICY, NOW)
        assert judgement.verdict is verdict
        assert judgement.counts.unfixable == (verdict is Verdict.PASS)


class TestNothingWasLookedAt:
    """A server without any software."""

    def test_it_is_unknown_unless_the_policy_allows_it(self) -> None:
        """An empty list is no proof that all is well."""
        empty = server(software=(0, 0, 0, 0), empty=True, poll_complete=False)
        assert codes(judge([empty], STRICT, NOW)) == [ReasonCode.NO_SOFTWARE]
        assert judge([empty], replace(STRICT, allow_empty=True), NOW).verdict is Verdict.PASS

    def test_what_the_server_list_says_of_it_counts(self) -> None:
        """That it may be empty is no answer to a list that tells of exploits, or of a scan that failed."""
        empty = server(software=(0, 0, 0, 0), empty=True, poll_complete=False, incomplete_because="the list says: x")
        allowed = judge([empty], replace(STRICT, allow_empty=True), NOW)
        assert codes(allowed) == [ReasonCode.POLL_INCOMPLETE]
        assert "the list says: x" in allowed.reasons[0].message
        assert set(codes(judge([empty], STRICT, NOW))) == {ReasonCode.NO_SOFTWARE, ReasonCode.POLL_INCOMPLETE}

    def test_counts_that_nobody_knows_are_none(self) -> None:
        """A zero would say that somebody looked."""
        assert judge([server(last_poll_at=None, software=None)], STRICT, NOW).servers[0].counts is None

    @pytest.mark.parametrize(
        ("fields", "is_known"),
        [
            ({}, True),
            ({"last_poll_at": None}, False),
            ({"software": None}, False),
            ({"last_poll_at": None, "software": None, "issues": (issue(),)}, True),
        ],
    )
    def test_whether_anything_is_known(self, fields: dict[str, Any], is_known: bool) -> None:  # noqa: FBT001
        """Of one server at least: a poll that told its software, or an issue."""
        never = {"last_poll_at": None, "software": None}
        first, last = server(server_id=0, name="a", **never), server(server_id=9, name="z", **never)
        judgement = judge([first, server(**fields), last], Policy(), NOW)
        assert judgement.is_any_known is is_known
        assert [one.counts is not None for one in judgement.servers] == [False, is_known, False]

    def test_the_oldest_data_counts(self) -> None:
        """Of servers that were polled."""
        ages = (30, 90, None, 60)
        asked = [
            server(server_id=number, name=f"web{number}", last_poll_at=None if age is None else NOW - age)
            for number, age in enumerate(ages)
        ]
        assert judge(asked, Policy(), NOW).data_age_seconds == 90
        assert judge(asked[2:3], Policy(), NOW).data_age_seconds is None


class TestExploitsBeside:
    """Exploits that stand behind an issue without being its own: what covers the issue need not cover them."""

    BOTH = replace(exploit(6.0), exploits=(IssueExploit(id="b", risk=6.0),))
    BESIDE = server(BOTH, issue("other"), lesser_risks=((BOTH.fingerprint, 4.5), ("another", 9.0)))

    @pytest.mark.parametrize(("covered", "reasons"), [("b", [ReasonCode.EXPLOIT_UNCOUNTED]), (None, [])])
    def test_a_waiver(self, covered: str | None, reasons: list[ReasonCode]) -> None:
        """One of an exploit covers only that; one of the software covers all of them."""
        policy = Policy(max_risk=4.4, waivers=(waiver(exploit=covered),))
        assert codes(judge([self.BESIDE], policy, NOW)) == reasons
        assert judge([self.BESIDE], replace(policy, max_risk=4.5), NOW).verdict is Verdict.PASS

    def test_a_baseline(self) -> None:
        """It covers the exploits that it names."""
        baseline = (accepted(self.BOTH),)
        assert codes(judge([self.BESIDE], Policy(max_risk=4.4), NOW, baseline=baseline)) == [
            ReasonCode.EXPLOIT_UNCOUNTED
        ]
        assert judge([self.BESIDE], Policy(max_risk=4.5), NOW, baseline=baseline).verdict is Verdict.PASS
        alone = replace(self.BESIDE, lesser_risks=())
        assert judge([alone], Policy(max_risk=0.0), NOW, baseline=baseline).verdict is Verdict.PASS
        worse = replace(self.BESIDE, uncounted_risk=4.6)
        assert codes(judge([worse], Policy(max_risk=4.5), NOW, baseline=baseline)) == [ReasonCode.EXPLOIT_UNCOUNTED]


class TestBaseline:
    """What was accepted, as it was."""

    KNOWN = replace(
        exploit(7.0), exploits=(IssueExploit(cve="CVE-2026-1", risk=7.0), IssueExploit(title="Old", risk=5.0))
    )

    @pytest.mark.parametrize(
        ("exploits", "verdict"),
        [
            ((IssueExploit(cve="CVE-2026-1", risk=7.0), IssueExploit(title="Old", risk=5.0)), Verdict.PASS),
            ((IssueExploit(cve="CVE-2026-1", risk=6.9),), Verdict.PASS),
            ((IssueExploit(cve="CVE-2026-1", risk=7.1),), Verdict.FAIL),
            ((IssueExploit(cve="CVE-2026-1", risk=7.0), IssueExploit(cve="CVE-2026-2", risk=5.0)), Verdict.FAIL),
            ((IssueExploit(title="Old", risk=5.0), IssueExploit(title="Old", risk=5.0)), Verdict.FAIL),
        ],
    )
    def test_an_exploit_that_is_new_or_worse_counts(self, exploits: tuple[IssueExploit, ...], verdict: Verdict) -> None:
        """Each accepted exploit covers one, at its risk or below."""
        now = replace(self.KNOWN, exploits=exploits, risk=max(e.risk or 0 for e in exploits))
        assert judge([server(now)], STRICT, NOW, baseline=(accepted(self.KNOWN),)).verdict is verdict

    def test_only_what_is_not_covered_counts(self) -> None:
        """The severity is that of the exploits which nobody accepted."""
        exploits = (*self.KNOWN.exploits, IssueExploit(cve="CVE-2026-3", risk=9.5))
        now = replace(self.KNOWN, exploits=exploits, risk=9.5, severity=Severity.CRITICAL)
        counts = judge([server(now)], STRICT, NOW, baseline=(accepted(self.KNOWN),)).counts
        assert (counts.total, counts.by_severity.critical) == (1, 1)

    def test_another_kind_or_a_worse_severity_counts(self) -> None:
        """Outdated software that is no longer supported is more than what was accepted."""
        was = issue()
        now = replace(was, kind=Kind.UNSUPPORTED, severity=Severity.HIGH)
        assert judge([server(now)], STRICT, NOW, baseline=(accepted(was),)).verdict is Verdict.FAIL

    @pytest.mark.parametrize(
        ("was", "now"),
        [
            (issue(), replace(issue(), severity=Severity.HIGH)),
            (issue(kind=Kind.UNSUPPORTED), replace(issue(kind=Kind.UNSUPPORTED), kind=Kind.REPORTED)),
            (replace(exploit(None), kind=Kind.UNSUPPORTED), replace(exploit(8.0), severity=Severity.HIGH)),
            (replace(exploit(8.0), severity=Severity.HIGH), replace(exploit(8.0), kind=Kind.UNSUPPORTED)),
            (exploit(7.0), exploit(7.1)),
            (exploit(5.0), exploit(7.0)),
        ],
    )
    def test_one_thing_that_got_worse_is_enough(self, was: Issue, now: Issue) -> None:
        """Severity, kind or risk, whichever it is."""
        assert judge([server(was)], STRICT, NOW, baseline=(accepted(was),)).verdict is Verdict.PASS
        assert judge([server(now)], STRICT, NOW, baseline=(accepted(was),)).verdict is Verdict.FAIL

    @pytest.mark.parametrize(
        ("was", "now", "is_same"),
        [
            ({"id": "1"}, {"id": "1"}, True),
            ({"id": "1"}, {"id": "2"}, False),
            ({"id": "1", "cve": "CVE-2026-1"}, {"id": "1"}, True),
            ({"cve": "CVE-2026-1"}, {"id": "1", "cve": "CVE-2026-1"}, True),
            ({"id": "1", "cve": "CVE-2026-1"}, {"id": "1", "cve": "CVE-2026-2"}, False),
            ({"id": "1", "cve": "CVE-2026-1"}, {"id": "2", "cve": "CVE-2026-1"}, True),
            ({"title": "T"}, {"title": "T"}, True),
            ({"title": "T"}, {"title": "U"}, False),
            ({"title": "T", "cve": "CVE-2026-1"}, {"title": "T"}, False),
            ({"title": "T"}, {"title": "T", "cve": "CVE-2026-1"}, False),
            ({"title": "T"}, {"title": "T", "id": "1"}, False),
            ({"title": "T", "id": "1"}, {"title": "T"}, False),
        ],
    )
    def test_an_exploit_is_the_same_by_its_best_name(
        self,
        was: dict[str, str],
        now: dict[str, str],
        is_same: bool,  # noqa: FBT001  # a column of the table
    ) -> None:
        """By CVE or id where one of the two has any; a title alone does not make a named one the same."""
        before = replace(exploit(8.0), exploits=(IssueExploit(risk=8.0, **was),))  # type: ignore[arg-type]
        after = replace(exploit(8.0), exploits=(IssueExploit(risk=8.0, **now),))  # type: ignore[arg-type]
        passes = judge([server(after)], STRICT, NOW, baseline=(accepted(before),)).verdict is Verdict.PASS
        assert passes is is_same

    def test_a_risk_that_nobody_knew_was_accepted_whatever_it_is(self) -> None:
        """Of an issue without exploits: as long as its severity is no worse."""
        baseline = (replace(accepted(exploit(None)), severity=Severity.HIGH),)
        assert judge([server(exploit(7.0))], STRICT, NOW, baseline=baseline).verdict is Verdict.PASS
        assert judge([server(exploit(9.5))], STRICT, NOW, baseline=baseline).verdict is Verdict.FAIL

    def test_what_is_left_has_the_risk_of_its_own_exploits(self) -> None:
        """One of unknown risk makes the whole unknown; of none, nothing is known."""
        known, unknown = IssueExploit(id="1", risk=5.0), IssueExploit(id="2", risk=None)
        left = with_exploits(exploit(9.8), (known,))
        assert (left.exploits, left.risk, left.severity) == ((known,), 5.0, Severity.MEDIUM)
        assert with_exploits(exploit(9.8), (known, unknown)).risk is None
        assert with_exploits(exploit(9.8), ()).risk is None

    def test_a_risk_that_became_unknown_is_not_covered(self) -> None:
        """It may be the worst."""
        now = replace(self.KNOWN, exploits=(IssueExploit(cve="CVE-2026-1", risk=None),), risk=None)
        assert judge([server(now)], STRICT, NOW, baseline=(accepted(self.KNOWN),)).verdict is Verdict.UNKNOWN


def test_a_grace_of_an_issue_of_an_older_state_counts_from_its_severity() -> None:
    """Which knows only since when it has had its present one."""
    old = replace(exploit(7.5), first_seen=NOW - 5000, severity_since=NOW - 50, at_least_since=(None,) * 4)
    graced = Policy(max_by_severity=SeverityLimits(high=0), grace=Grace(high=60))
    assert is_in_grace(old, Severity.HIGH, graced, NOW)
    assert not is_in_grace(old, Severity.HIGH, graced, NOW + 10)
    assert not is_in_grace(old, None, graced, NOW)
    assert is_in_grace(replace(old, severity_since=NOW), Severity.HIGH, graced, NOW)


def test_one_exploit_of_unknown_risk_may_be_critical() -> None:
    """Beside others that are known, too; without it nothing is in doubt."""
    known, unknown = IssueExploit(id="1", risk=5.0), IssueExploit(id="2", risk=None)
    both = replace(exploit(5.0), exploits=(unknown, known), severity=Severity.HIGH)
    assert judge([server(both)], Policy(), NOW).verdict is Verdict.UNKNOWN
    assert judge([server(replace(exploit(5.0), exploits=(known,)))], Policy(), NOW).verdict is Verdict.PASS


class TestMessages:
    """What a tired operator reads."""

    def test_a_limit_names_the_worst_and_the_flag(self) -> None:
        """The first five, how many more there are, and what to change."""
        many = [exploit(9.0 + number / 10, f"p{number}") for number in range(7)]
        (reason,) = judge([server(*many)], Policy(), NOW).reasons
        assert "p6 on web1.example.org (critical, risk 9.6), p5 on" in reason.message
        assert "and 2 more; fix them, waive them, or raise the limit (--max-critical on the command" in reason.message

    def test_each_limit_that_is_broken_is_told(self) -> None:
        """Those in between that are not broken aside; an issue without a name goes by its title, or as the server."""
        policy = Policy(
            max_by_severity=SeverityLimits(critical=1, high=1), max_by_kind=KindLimits(outdated=5, reported=0)
        )
        nameless = issue("", Kind.REPORTED, polled=True)
        titled = issue("", Kind.REPORTED, polled=True, title="Beware", fingerprint="titled")
        asked = [server(exploit(9.5), exploit(None, "a"), exploit(8.0, "b"), nameless, titled)]
        first, second, third = (reason for reason in judge(asked, policy, NOW).reasons if reason.blocking)
        assert first.message == (
            "Open issues that are critical, if exploits whose risk nobody knows are taken for the worst: 2, and "
            "max_by_severity.critical allows 1: a on web1.example.org (high, risk unknown), php on web1.example.org "
            "(critical, risk 9.5); look at them, and waive those that are harmless (the limit is --max-critical on the "
            "command line)."
        )
        assert first.code is ReasonCode.EXPLOIT_RISK_UNKNOWN
        assert "Open issues that are high or worse: 5, and max_by_severity.high allows 1: a on" in second.message
        assert "reported: 2, and max_by_kind.reported allows 0: " in third.message
        assert "the server on web1.example.org (high, reported)" in third.message
        assert "Beware on web1.example.org (high, reported)" in third.message

    def test_refused_credentials_are_called_that(self) -> None:
        """A fresh exporter with a wrong key never says that a server is not watched."""
        (reason,) = judge([UnknownServer(selector="web1", account="main", refused=True)], Policy(), NOW).reasons
        assert reason.code is ReasonCode.CREDENTIALS_REFUSED


class TestExpiringWaivers:
    """Waivers are told of before they end."""

    def test_two_weeks_before(self) -> None:
        """Only those that cover an open issue."""
        soon, later = waiver(until=TODAY + dt.timedelta(days=14)), waiver(until=TODAY + dt.timedelta(days=15))
        idle = waiver(software="perl", until=TODAY)
        assert judge([server(issue())], STRICT, NOW, waivers=(soon, later, idle)).expiring_waivers == (soon,)


class TestWaivers:
    """The policy's waivers, and the configuration's."""

    def test_both_kinds_hold(self) -> None:
        """An issue that the configuration waives does not count, nor one that the policy waives."""
        assert judge([server(issue())], STRICT, NOW, waivers=(waiver(),)).verdict is Verdict.PASS
        judgement = judge([server(issue())], replace(STRICT, waivers=(waiver(),)), NOW)
        assert judgement.verdict is Verdict.PASS
        assert [one.issue.waived_reason for one in judgement.waived] == ["replaced"]
        assert (judgement.counts.total, judgement.counts.waived) == (0, 1)

    def test_expired_ones_do_not_hold(self) -> None:
        """A waiver that ended yesterday waives nothing, though the issue still carries it, and is told."""
        old = waiver(until=YESTERDAY)
        carried = issue(waived_until=YESTERDAY, waived_reason="known")
        judgement = judge([server(carried)], replace(STRICT, waivers=(old,)), NOW)
        assert judgement.verdict is Verdict.FAIL
        assert judgement.expired_waivers == (old,)
        assert codes(judgement, blocking=False) == [ReasonCode.WAIVER_EXPIRED]

    def test_unused_ones_are_told(self) -> None:
        """A waiver that covers nothing in the selection is named."""
        idle = waiver(software="perl")
        judgement = judge([server(issue())], Policy(waivers=(idle, waiver())), NOW)
        assert judgement.unused_waivers == (idle,)
        assert codes(judgement, blocking=False) == [ReasonCode.WAIVER_UNUSED]


def test_a_policy_with_a_slip_is_refused() -> None:
    """A misspelt or impossible limit is an error, and never a limit that is not there."""
    for text in (b'{"max_totl": 0}', b'{"max_by_severity": {"hihg": 0}}', b'{"max_total": -1}', b'{"max_risk": 11}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=Policy)


ISSUES = st.builds(
    lambda name, kind, severity, risk, polled, until: issue(
        name, kind, severity=severity, risk=risk, polled=polled, waived_until=until, waived_reason=until and "why"
    ),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(Kind),
    st.sampled_from(Severity),
    st.none() | st.floats(0, 10),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None, None, YESTERDAY, TODAY]),
)
TIMES = st.sampled_from([NOW - 60, NOW - 60, NOW - 60, None, NOW - 10**6, NOW + 10**4])
SERVERS = st.builds(
    lambda number, issues, **fields: server(*issues, server_id=number, name=f"web{number}", **fields),
    st.integers(1, 3),
    st.lists(ISSUES, max_size=3, unique_by=lambda made: made.fingerprint),
    last_poll_at=TIMES,
    last_scan_at=TIMES,
    software=st.sampled_from([(1, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1), None]),
    poll_success=st.booleans(),
    poll_complete=st.sampled_from([True, True, True, False]),
    account_refused=st.sampled_from([False, False, False, True]),
)


def _asked(evidence: Evidence) -> int | str:
    return evidence.server_id if isinstance(evidence, ServerEvidence) else evidence.selector


SELECTIONS = st.lists(SERVERS | SERVERS | SERVERS | st.just(UnknownServer(selector="x")), max_size=3, unique_by=_asked)
LIMITS = st.sampled_from([None, None, 0, 1, 3])
WAIVERS = st.builds(
    waiver,
    server=st.sampled_from(["*", "web1"]),
    software=st.sampled_from(["*", "a"]),
    until=st.sampled_from([YESTERDAY, TODAY]),
)
POLICIES = st.builds(
    Policy,
    max_by_severity=st.builds(SeverityLimits, critical=st.sampled_from([0, 2]), high=LIMITS, medium=LIMITS, low=LIMITS),
    max_by_kind=st.builds(KindLimits, outdated=LIMITS, exploitable=LIMITS),
    max_total=LIMITS,
    max_risk=st.none() | st.floats(0, 10),
    max_scan_age=st.sampled_from([None, None, 3600.0]),
    max_unknown_software=st.sampled_from([0, 1]),
    waivers=st.lists(WAIVERS, max_size=2).map(tuple),
)


@given(SELECTIONS, POLICIES)
def test_only_what_is_clean_passes(selection: list[Evidence], policy: Policy) -> None:
    """Nothing with a violation, a doubt or a blocking reason passes, as a whole or server by server."""
    judgement = judge(selection, policy, NOW)
    blocked = bool(judgement.violations) or bool(codes(judgement))
    assert (judgement.verdict is Verdict.PASS) == (not blocked)
    verdicts = {one.verdict for one in judgement.servers}
    assert (judgement.verdict is Verdict.PASS) == (verdicts == {Verdict.PASS})
    if judgement.verdict is Verdict.UNKNOWN:
        assert Verdict.UNKNOWN in verdicts or not selection


@given(SELECTIONS, POLICIES, ISSUES, st.integers(0, 2))
def test_another_issue_never_helps(selection: list[Evidence], policy: Policy, more: Issue, place: int) -> None:
    """With one more issue nothing passes that did not pass before."""
    worse = [
        replace(one, issues=(*one.issues, more)) if index == place and isinstance(one, ServerEvidence) else one
        for index, one in enumerate(selection)
    ]
    if judge(worse, policy, NOW).verdict is Verdict.PASS:
        assert judge(selection, policy, NOW).verdict is Verdict.PASS


@given(SELECTIONS, POLICIES)
def test_expired_waivers_change_nothing(selection: list[Evidence], policy: Policy) -> None:
    """Without its expired waivers a policy gives the same verdict on the same issues."""
    holding = replace(policy, waivers=tuple(w for w in policy.waivers if w.until >= TODAY))
    with_them, without = judge(selection, policy, NOW), judge(selection, holding, NOW)
    assert (with_them.verdict, with_them.servers, with_them.counts, with_them.violations, with_them.waived) == (
        without.verdict,
        without.servers,
        without.counts,
        without.violations,
        without.waived,
    )


@given(SELECTIONS.flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))), POLICIES)
def test_order_does_not_matter(selections: tuple[list[Evidence], list[Evidence]], policy: Policy) -> None:
    """The judgement is the same in whatever order the servers and their issues come."""
    turned = [
        replace(one, issues=one.issues[::-1]) if isinstance(one, ServerEvidence) else one for one in selections[1]
    ]
    assert judge(turned, policy, NOW) == judge(selections[0], policy, NOW)


@given(SELECTIONS, POLICIES)
def test_it_can_be_sent(selection: list[Evidence], policy: Policy) -> None:
    """A judgement and a policy become JSON and come back the same."""
    judgement = judge(selection, policy, NOW)
    assert msgspec.json.decode(msgspec.json.encode(judgement), type=Judgement) == judgement
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy


def fleet_server(number: int) -> ServerEvidence:
    """One of a fleet in which each is different: fine, broken, in doubt, waived, of unknown risk."""
    found = [
        exploit([9.8, 7.5, 4.2, None][number % 4], name=f"package-{number}") if number % 3 else None,
        issue("php", Kind.OUTDATED, fingerprint=f"{number:016x}") if number % 5 == 0 else None,
    ]
    polled = NOW - (2 * DAY if number % 7 == 0 else 60 + number)
    return server(
        *(one for one in found if one is not None),
        server_id=number,
        name=f"web{number:05}.example.org",
        last_poll_at=polled,
        poll_success=number % 11 != 0,
    )


class TestManyServers:
    """Of a large fleet it keeps only what is listed, and the rest is counted."""

    policy = Policy(
        max_by_severity=SeverityLimits(critical=400, high=0, medium=10_000),
        max_by_kind=KindLimits(outdated=100),
        max_total=50_000,
        waivers=(waiver(server="web000*"), waiver(server="nothing")),
    )

    @pytest.mark.parametrize("count", [1, 499, 500, 501, 2500])
    @pytest.mark.parametrize("detail", [None, *Detail])
    def test_what_is_listed_changes_no_count(self, count: int, detail: Detail | None) -> None:
        """Whatever is listed, what is listed and what is not make the whole, and the verdict is the same."""
        fleet = [fleet_server(number) for number in range(count)]
        whole = judge(fleet, self.policy, NOW)
        judged = judge(fleet, self.policy, NOW, detail=detail)
        assert whole.omitted == Omitted()
        for name in ("verdict", "servers_by_verdict", "counts", "data_age_seconds", "breaches", "unused_waivers"):
            assert getattr(judged, name) == getattr(whole, name), name
        assert sum(judged.servers_by_verdict.values()) == count
        for listed, all_of_them, omitted in (
            (judged.servers, whole.servers, judged.omitted.servers),
            (judged.violations, whole.violations, judged.omitted.issues),
            (judged.waived, whole.waived, judged.omitted.waived),
            (judged.reasons, whole.reasons, judged.omitted.reasons),
        ):
            assert len(listed) + omitted == len(all_of_them)
            assert all(one in all_of_them for one in listed)
        everything = detail is Detail.ALL or (detail is None and count <= 500)
        assert (judged == whole) is everything or not any(msgspec.structs.astuple(judged.omitted))

    def test_the_worst_are_listed(self) -> None:
        """Those that fail go before those in doubt, and of equals the one with the worse issues."""
        fleet = [fleet_server(number) for number in range(2500)]
        judged, whole = judge(fleet, self.policy, NOW, detail=Detail.PROBLEMS), judge(fleet, self.policy, NOW)
        order = [Verdict.FAIL, Verdict.UNKNOWN]

        def badness(one: ServerJudgement) -> tuple[int, ...]:
            by_severity = (one.counts or Counts()).by_severity
            return order.index(one.verdict), *(-count for count in msgspec.structs.astuple(by_severity))

        problems = sorted((one for one in whole.servers if one.verdict is not Verdict.PASS), key=badness)
        assert len(judged.servers) == 1000
        assert judged.servers == tuple(problems[:1000])
        assert judged.violations == whole.violations[:1000]

    def test_what_blocks_is_listed_before_what_is_only_worth_knowing(self) -> None:
        """Whichever of the servers it is about."""
        asked = [server(name="web1", poll_success=False), server(name="web2", missing_from_list=True)]
        judgement = judge(asked, Policy(), NOW, detail=Detail.PROBLEMS)
        assert [one.code for one in judgement.reasons] == [ReasonCode.MISSING_FROM_LIST, ReasonCode.POLL_FAILED]
        assert [one.server for one in judgement.servers] == ["web2"]

    def test_what_is_waived_is_no_problem(self) -> None:
        """It is counted, and listed only with everything; issues within the limits are in no such list."""
        policy = Policy(waivers=(waiver(software="waived"), waiver(software="idle")))
        asked = [
            server(exploit(9.5), issue(), issue("waived"), poll_success=False),
            server(name="web2", missing_from_list=True),
        ]
        whole, problems = (judge(asked, policy, NOW, detail=detail) for detail in (Detail.ALL, Detail.PROBLEMS))
        assert (len(whole.waived), whole.omitted) == (1, Omitted())
        assert (problems.waived, problems.omitted) == ((), Omitted(waived=1))
        assert len(whole.reasons) == len(problems.reasons) == 4

    def test_what_is_not_listed_is_not_kept(self) -> None:
        """Not while it judges, either."""

        def held(detail: Detail) -> int:
            judging = Judging(STRICT, NOW, detail=detail)
            tracemalloc.start()
            for number in range(3000):
                judging.add(server(server_id=number, name=f"web{number:05}.example.org"))
            now_held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return now_held

        assert held(Detail.PROBLEMS) < held(Detail.ALL) / 10
