"""``POST /api/v1/gate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.gate.evidence import ServerEvidence
from patrolserver_exporter.gate.judge import judge
from patrolserver_exporter.issues.waive import covers, day_of, is_expired
from patrolserver_exporter.web.api.arguments import read_json
from patrolserver_exporter.web.api.endpoint import Api, Call, Reply, in_thread
from patrolserver_exporter.web.api.evidence import gather, without_stale_waivers
from patrolserver_exporter.web.api.gate_reply import reply_of
from patrolserver_exporter.web.api.question import Question, question_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from patrolserver_exporter.gate.evidence import Evidence
    from patrolserver_exporter.issues.model import Waiver


async def gate(api: Api, call: Call[Any]) -> Reply:
    """Judge servers against a policy."""
    question = question_of(await read_json(call.scope, call.receive))
    # Before the store is read: refused credentials that are noticed in between are found by the age of the data.
    statuses = api.context.watching.statuses()
    evidence = await api.read(lambda connection: gather(connection, question, statuses))
    waivers = api.context.config().issues.waivers
    return Reply(await in_thread(answer, evidence, question, waivers, api.now()))


def answer(evidence: Sequence[Evidence], question: Question, waivers: Sequence[Waiver], now: float) -> bytes:
    """The verdict as JSON; ``waivers`` are the configuration's."""
    today = day_of(now)
    sound = without_stale_waivers(evidence, waivers, today)
    judgement = judge(sound, question.policy, now)
    return msgspec.json.encode(reply_of(judgement, question.policy, now, _lapsed(sound, waivers, today)))


def _lapsed(evidence: Sequence[Evidence], waivers: Sequence[Waiver], today: dt.date) -> list[Waiver]:
    """Waivers of the configuration that ran out and are about an issue that is still open."""
    servers = [one for one in evidence if isinstance(one, ServerEvidence)]
    return [
        waiver
        for waiver in waivers
        if is_expired(waiver, today)
        and any(covers(waiver, issue, server.name) for server in servers for issue in server.issues)
    ]
