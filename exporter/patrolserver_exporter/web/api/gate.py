"""``POST /api/v1/gate``: what it takes, what it gives, and nothing that decides."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from patrolserver_exporter.config.duration import parse_duration
from patrolserver_exporter.config.load import waivers_of
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.gate.evidence import gather_each
from patrolserver_exporter.gate.judge import Judging
from patrolserver_exporter.gate.policy import AskedPolicy, InForce, PolicyRefused, in_force
from patrolserver_exporter.gate.verdict import Detail, KindCounts, ReasonCode, Verdict
from patrolserver_exporter.inbox import deliveries
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.web.api import types
from patrolserver_exporter.web.api.endpoint import Api, Call, Reply, convert, read_json, selectors_of
from patrolserver_exporter.web.api.types import Asked, Issue
from patrolserver_exporter.web.http.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import sqlalchemy as sa

    from patrolserver_exporter.config.schema import Config, Gate, Issues
    from patrolserver_exporter.gate import verdict
    from patrolserver_exporter.gate.evidence import Evidence
    from patrolserver_exporter.store.queries import Selector

_Count = Annotated[int, msgspec.Meta(ge=0)]
MAX_SELECTED = 10_000
_ENCODED_AT_ONCE = 50
FEW = 100
"""Servers, named one by one."""
MAX_BODY_BYTES = 8 * 1024 * 1024


class GateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to the gate."""

    servers: Annotated[tuple[Asked, ...], msgspec.Meta(max_length=MAX_SELECTED)]
    """Ids, names or globs on names, at most 100 of them globs; none at all is judged unknown."""
    account: str | None = None
    policy: AskedPolicy = AskedPolicy()
    detail: Detail | None = None
    """What is listed: problems, which are at most 1,000 of the servers and issues that do not pass, the worst first; or
    all. Null: all up to 500 servers, above that problems. The rest is counted."""


class GateReason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that led to the verdict, or is worth knowing."""

    code: ReasonCode
    message: str
    blocking: bool
    """It alone keeps the verdict from being pass."""
    account: str | None
    server_id: int | None
    server: str | None


class GateCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Open issues that count, by severity and kind, and those that do not."""

    critical: _Count
    high: _Count
    medium: _Count
    low: _Count
    total: _Count
    waived: _Count
    baseline: _Count
    unfixable: _Count
    by_kind: KindCounts


class JudgedServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server's part. One that is not known has no id, and as its name what was asked for."""

    account: str | None
    id: int | None
    name: str
    verdict: Verdict
    data_age_seconds: float | None
    scan_age_seconds: float | None
    counts: GateCounts | None
    """Null while nobody knows what there is to count."""
    reasons: tuple[GateReason, ...]


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that is exceeded, and the issues that it counts."""

    limit: str
    allowed: _Count
    found: _Count
    issues: tuple[Issue, ...]


class ServersByVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """All servers that were judged, listed or not. One that is not known is unknown."""

    passing: _Count = msgspec.field(name="pass")
    fail: _Count
    unknown: _Count


class GateReply(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict; only pass lets a deploy go on. What a list leaves out is counted in its `…_not_listed`."""

    verdict: Verdict
    passed: bool
    judged_at: dt.datetime
    reasons: tuple[GateReason, ...]
    reasons_not_listed: _Count
    counts: GateCounts | None
    """Over all servers. Null while nobody knows what there is to count."""
    servers_by_verdict: ServersByVerdict
    servers: tuple[JudgedServer, ...]
    servers_not_listed: _Count
    violations: tuple[Violation, ...]
    issues_not_listed: _Count
    """Issues over a limit, each once; `found` of a violation counts them, too."""
    waived: tuple[Issue, ...]
    waived_not_listed: _Count
    expired_waivers: tuple[Waiver, ...]
    unused_waivers: tuple[Waiver, ...]
    expiring_waivers: tuple[Waiver, ...]
    """Waivers that cover an open issue and end within 14 days."""
    policy: str
    """The name of the policy that it was judged by; builtin where the configuration has none."""
    data_age_seconds: float | None
    """Of the oldest data among the servers; null when there is none."""


async def gate(api: Api, call: Call[Any]) -> Reply:
    """Judge servers against a policy."""
    config = api.context.config()
    body = await read_json(call.scope, call.receive, MAX_BODY_BYTES)
    asked = read_request(body, config.gate)
    gates = api.gates if asked.is_of_few else api.fleet_gates
    # Equal questions that wait for their turn get one answer, by one configuration.
    question = (id(config), msgspec.json.encode(body, order="sorted"))
    return Reply(await gates.answer(question, lambda: _judged(api, asked, config)))


async def _judged(api: Api, asked: GateRequest, config: Config) -> bytes:
    # Before the store is read: refused credentials that are noticed in between are found by the age of the data.
    watched = {one.name: one.health for one in api.context.accounts.statuses()}
    at_least = api.context.now()

    def work(connection: sa.Connection) -> bytes:
        # One server after the other, so that never the whole fleet is in memory.
        news = deliveries.doubts(connection)
        evidence = gather_each(connection, asked.selectors, asked.account, watched, news.concern)
        return answer(evidence, asked, config.issues, api.context.time_in(connection, at_least))

    return await api.read(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What is to be judged, and by what."""

    selectors: tuple[Selector, ...]
    account: str | None
    in_force: InForce
    detail: Detail | None

    @property
    def is_of_few(self) -> bool:
        """Whether it is soon answered, whatever the size of the fleet."""
        return len(self.selectors) <= FEW and not any(selector.glob for selector in self.selectors)


def read_request(data: Any, settings: Gate) -> GateRequest:
    """Read the body. A 400 for everything unclear: an unclear policy must not let anything pass."""
    body = convert(_with_seconds(data), GateBody)
    in_force = _policy_in_force(body.policy, data.get("policy", {}), settings)
    return GateRequest(
        selectors=selectors_of(body.servers), account=body.account, in_force=in_force, detail=body.detail
    )


def answer(evidence: Iterable[Evidence], asked: GateRequest, issues: Issues, now: float) -> bytes:
    """The verdict as JSON; ``issues`` are the configuration's."""
    judging = Judging(
        asked.in_force.policy,
        now,
        baseline=asked.in_force.baseline,
        waivers=issues.waivers,
        exploit_risk=issues.exploit_risk,
        detail=asked.detail,
    )
    for one in evidence:
        judging.add(one)
    judgement = judging.end()
    short = msgspec.structs.asdict(
        GateReply(
            verdict=judgement.verdict,
            passed=judgement.verdict is Verdict.PASS,
            judged_at=types.time_of(now),
            policy=asked.in_force.name,
            reasons=(),
            reasons_not_listed=judgement.omitted.reasons,
            counts=_counts(judgement.counts) if judgement.is_any_known else None,
            servers_by_verdict=_by_verdict(judgement.servers_by_verdict),
            servers=(),
            servers_not_listed=judgement.omitted.servers,
            violations=(),
            issues_not_listed=judgement.omitted.issues,
            waived=(),
            waived_not_listed=judgement.omitted.waived,
            expired_waivers=judgement.expired_waivers,
            unused_waivers=judgement.unused_waivers,
            expiring_waivers=judgement.expiring_waivers,
            data_age_seconds=judgement.data_age_seconds,
        )
    )
    long = {
        "reasons": _encoded(map(_reason, judgement.reasons)),
        "servers": _encoded(map(_server, judgement.servers)),
        "violations": _encoded(_violations(judgement)),
        "waived": _encoded(_issues(judgement.waived)),
    }
    return msgspec.json.encode(short | long)


def _encoded(items: Iterable[object]) -> msgspec.Raw:
    """A list, a few entries at a time: encoding holds the interpreter, and a fleet's answer may have 100 MB."""
    rest = iter(items)
    parts = iter(lambda: msgspec.json.encode(list(islice(rest, _ENCODED_AT_ONCE)))[1:-1], b"")
    return msgspec.Raw(b"[" + b",".join(parts) + b"]")


def _by_verdict(found: Mapping[Verdict, int]) -> ServersByVerdict:
    passing, fail, unknown = (found.get(one, 0) for one in (Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN))
    return ServersByVerdict(passing=passing, fail=fail, unknown=unknown)


def _policy_in_force(asked: AskedPolicy, given: Any, settings: Gate) -> InForce:
    if given.get("waivers"):
        # As strictly as the configuration's, with the same words.
        asked = msgspec.structs.replace(asked, waivers=_waivers(given["waivers"]))
    try:
        return in_force(
            asked,
            given,
            policies=settings.policies,
            default_policy=settings.default_policy,
            inline=settings.inline_in_force,
        )
    except PolicyRefused as error:
        raise ApiError(400, str(error), at=f"policy.{error.key}") from None


def _with_seconds(data: Any) -> Any:
    """The body with its durations as seconds, as the policy's type has them; what is not a duration stays as it is."""
    policy = data.get("policy") if isinstance(data, dict) else None
    if not isinstance(policy, dict):
        return data
    changed: dict[str, Any] = {}
    for key, written in policy.items():
        if key in {"max_age", "max_scan_age"}:
            changed[key] = _seconds(written, f"policy.{key}")
        elif key == "grace" and isinstance(written, dict):
            changed[key] = {name: _seconds(one, f"policy.grace.{name}") for name, one in written.items()}
        elif key == "baseline" and isinstance(written, list) and any(isinstance(one, str) for one in written):
            raise ApiError(400, f"Wrong at policy.baseline: {BARE_FINGERPRINT}", at="policy.baseline")
    return {**data, "policy": policy | changed}


BARE_FINGERPRINT = (
    "A fingerprint alone does not tell how bad the issue was when it was accepted. Write the baseline again, with "
    "patrolserver-exporter gate SERVER… --write-baseline=FILE."
)


def _seconds(written: Any, at: str) -> Any:
    if not isinstance(written, str):
        return written
    try:
        return parse_duration(written)
    except ValueError as error:
        raise ApiError(400, f"Wrong at {at}: {error}.", at=at) from None


def _waivers(data: Any) -> tuple[Waiver, ...]:
    try:
        return waivers_of(data, source="policy.waivers")
    except ConfigError as error:
        raise ApiError(400, f"Wrong at policy.waivers: {error}", at="policy.waivers") from None


def _reason(reason: verdict.Reason) -> GateReason:
    return GateReason(
        code=reason.code,
        message=reason.message,
        blocking=reason.blocking,
        account=reason.account,
        server_id=reason.server_id,
        server=reason.server,
    )


def _counts(counts: verdict.Counts) -> GateCounts:
    return GateCounts(
        critical=counts.by_severity.critical,
        high=counts.by_severity.high,
        medium=counts.by_severity.medium,
        low=counts.by_severity.low,
        total=counts.total,
        waived=counts.waived,
        baseline=counts.baseline,
        unfixable=counts.unfixable,
        by_kind=counts.by_kind,
    )


def _server(judged: verdict.ServerJudgement) -> JudgedServer:
    return JudgedServer(
        account=judged.account,
        id=judged.server_id,
        name=judged.server,
        verdict=judged.verdict,
        data_age_seconds=judged.data_age_seconds,
        scan_age_seconds=judged.scan_age_seconds,
        counts=None if judged.counts is None else _counts(judged.counts),
        reasons=tuple(map(_reason, judged.reasons)),
    )


def _violations(judgement: verdict.Judgement) -> Iterable[dict[str, Any]]:
    for breach in judgement.breaches:
        issues = _issues(one for one in judgement.violations if breach.limit in one.limits)
        short = Violation(limit=breach.limit, allowed=breach.allowed, found=breach.found, issues=())
        yield msgspec.structs.asdict(short) | {"issues": _encoded(issues)}


def _issues(judged: Iterable[verdict.JudgedIssue]) -> Iterable[Issue]:
    return (types.issue_of(one.issue, one.server) for one in judged)
