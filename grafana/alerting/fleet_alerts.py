"""Alerts on the fleet. What wakes somebody up counts servers by account and software; tickets are for single ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting.recorded import (
    ACCOUNT,
    AFFECTED,
    CRITICAL,
    CRITICAL_SERVERS,
    CRITICAL_SOFTWARE,
    EXPORTERS_ACCOUNT,
    EXPORTERS_SERVER,
    INFO,
    LIST_CURRENT,
    OLDEST,
    OVERDUE,
    POLL,
    SCAN,
    SERVER,
    SPREAD,
    owned,
    owners_account,
)
from grafana.alerting.rule import Alert
from grafana.settings import seconds, words

if TYPE_CHECKING:
    from grafana.settings import Settings

FLEET = "/d/patrolserver-fleet?var-account={{ $labels.account | urlquery }}"
ON_SERVER = (
    "/d/patrolserver-server?var-account={{ $labels.account | urlquery }}&var-server={{ $labels.server | urlquery }}"
)
THE_SERVER = "{{ $labels.server }} ({{ $labels.account }})"
NAMED = 5
"""Servers that the text of a page names."""


def fleet_alerts(settings: Settings) -> tuple[Alert, ...]:
    """Of accounts: what wakes somebody up, and what is told once for all servers."""
    return (*_critical(settings), *_servers(settings))


def server_alerts(settings: Settings) -> tuple[Alert, ...]:
    """Of single servers: issues, scans and polls. A large fleet may have tens of thousands."""
    return (_critical_server(settings), *_old(settings), *_software(settings), *_scans(settings))


def _critical(settings: Settings) -> tuple[Alert, ...]:
    spread = f"count by ({owners_account(settings)}, software) ({SPREAD})"
    return (
        Alert(
            alert="PatrolServerCriticalIssueOpen",
            expr=f"{CRITICAL_SERVERS} > 0",
            severity="critical",
            labels={"issue_severity": "critical"},
            summary="Servers run software with a critical exploit.",
            description=f"{_which(settings)} A known exploit has a risk of 9 or more.",
            dashboard=FLEET,
        ),
        Alert(
            alert="PatrolServerCriticalIssueSpreads",
            expr=spread,
            severity="critical",
            labels={"issue_severity": "critical"},
            summary="A critical exploit that was known has come to more servers.",
            description=f"""{_where(settings)} Ten minutes ago it was not so there. Resolves by itself ten minutes after
                the last one.""",
            dashboard=FLEET,
        ),
    )


def _critical_server(settings: Settings) -> Alert:
    return Alert(
        alert="PatrolServerServerCritical",
        expr=owned(f"max by ({SERVER}) ({CRITICAL})", settings),
        severity="warning",
        labels={"issue_severity": "critical"},
        summary="A server runs software with a critical exploit.",
        description=f"""{THE_SERVER} has {{{{ $value }}}} open critical {{{{ if eq $value 1.0 }}}}issue{{{{ else
            }}}}issues{{{{ end }}}}: installed software with a known exploit of risk 9 or more.""",
        dashboard=ON_SERVER,
    )


def _which(settings: Settings) -> str:
    """How many servers, which software, and the worst servers by name."""
    critical = f"{CRITICAL}{{job=%q,account=%q}}"
    values = "$labels.job $labels.account"
    mine = ""
    if settings.owner_labels:
        owner = ",".join(f"{label}=%q" for label in settings.owner_labels)
        mine = f" and on ({SERVER}) {INFO}{{job=%q,account=%q,{owner}}}"
    whose = " ".join((values, *map(_label, settings.owner_labels))) if mine else ""
    software = f"and on ({SERVER}) {CRITICAL_SOFTWARE}{{software=%q}}"
    with_software = _named(f"{critical} {software}{mine}", f"{values} $labels.software {whose}")
    without = _named(f"{critical} unless on ({SERVER}) {CRITICAL_SOFTWARE}{mine}", f"{values} {whose}")
    return (
        f"{{{{ if $labels.software }}}}{{{{ $labels.software }}}} is critical on {_servers_of(settings)}: "
        f"{with_software}"
        f"{{{{ else }}}}{_servers_of(settings)} {{{{ if eq $value 1.0 }}}}has{{{{ else }}}}have{{{{ end }}}} critical "
        f"issues in software that has no series: {without}{{{{ end }}}}{OTHERS}."
    )


def _where(settings: Settings) -> str:
    """To which servers it has come."""
    labels = (*owners_account(settings).split(", "), "software")
    chosen = ",".join(f"{label}=%q" for label in labels)
    names = _named(f"{SPREAD}{{{chosen}}}", " ".join(map(_label, labels)))
    return (
        "{{ if $labels.software }}{{ $labels.software }} is{{ else }}Software that has no series is{{ end }} critical "
        f"on {_servers_of(settings, 'more ')}: {names}{OTHERS}."
    )


OTHERS = f"{{{{ if gt $value {NAMED}.0 }}}} and others{{{{ end }}}}"


def _label(name: str) -> str:
    """A label's value in a template: vmalert has nothing, and not an empty text, where an alert lacks the label."""
    return f"(or $labels.{name} ``)"


def _servers_of(settings: Settings, more: str = "") -> str:
    whose = "".join(
        f"{{{{ if $labels.{label} }}}}, {label} {{{{ $labels.{label} }}}}{{{{ end }}}}"
        for label in settings.owner_labels
    )
    return (
        f"{{{{ $value }}}} {more}{{{{ if eq $value 1.0 }}}}server{{{{ else }}}}servers{{{{ end }}}} of account "
        f"{{{{ $labels.account }}}}{whose}"
    )


def _named(expr: str, values: str) -> str:
    """The first servers of what a query finds, the worst before others."""
    query = f"printf `topk({NAMED}, max by (server) ({expr}))` {values.strip()}"
    return (
        f"{{{{ range $place, $one := {query} | query | sortByLabel `server` }}}}"
        "{{ if $place }}, {{ end }}{{ $one.Labels.server }}{{ end }}"
    )


def _old(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    allowed = ", ".join(
        f"{words(getattr(limits.overdue, name))} for {name}" for name in ("critical", "high", "medium", "low")
    )
    high = f'time() - max by ({SERVER}, severity) ({OLDEST}{{severity="high"}}) > {seconds(limits.high_too_long)}'
    return (
        Alert(
            alert="PatrolServerHighIssueOpenTooLong",
            expr=owned(f"(max without (severity) (\n  {high}\n))", settings),
            severity="warning",
            labels={"issue_severity": "high"},
            summary="A high issue has been open for too long.",
            description=f"The oldest high issue of {THE_SERVER} has been high for {{{{ $value | humanizeDuration }}}}.",
            dashboard=ON_SERVER,
        ),
        Alert(
            alert="PatrolServerRemediationOverdue",
            expr=owned(f"max by ({SERVER}, severity) ({OVERDUE})", settings),
            severity="warning",
            labels={"issue_severity": '"{{ $labels.severity }}"'},
            summary="An issue is open beyond the time allowed for its severity.",
            description=f"""The oldest {{{{ $labels.severity }}}} issue of {THE_SERVER} has been so severe for {{{{
                $value | humanizeDuration }}}}; allowed are {allowed}.""",
            dashboard=ON_SERVER,
        ),
    )


def _software(settings: Settings) -> tuple[Alert, ...]:
    gap = settings.thresholds.gap

    def freshest(metric: str) -> str:
        return f"max by ({SERVER}) (last_over_time({metric}[{gap}]) and on ({EXPORTERS_SERVER}) {POLL})"

    return (
        Alert(
            alert="PatrolServerUnsupportedSoftware",
            expr=owned(f'({freshest("""patrolserver_server_software{state="unsupported"}""")} > 0)', settings),
            wait="1h",
            severity="info",
            summary="A server runs software that gets no more fixes.",
            description=f"""Software on {THE_SERVER} that is no longer supported and has no newer bug-fix
                release: {{{{ $value }}}}. Plan the move to another line.""",
            dashboard=ON_SERVER,
        ),
        Alert(
            alert="PatrolServerExploitRiskUnknown",
            expr=owned(f"({freshest('patrolserver_server_exploits_unknown_risk')} > 0)", settings),
            wait="1h",
            severity="warning",
            summary="A server has known exploits whose risk nobody knows.",
            description=f"""Exploits on {THE_SERVER} that PatrolServer tells no readable risk of: {{{{ $value }}}}.
                They count as high, and as the worst at the gate.""",
            dashboard=ON_SERVER,
        ),
        Alert(
            alert="PatrolServerPollIncomplete",
            expr=owned(
                f"(1 - max by ({SERVER}) (\n"
                f"  last_over_time(patrolserver_server_poll_complete[{gap}]) and on ({EXPORTERS_SERVER}) {POLL} > 0\n"
                ") == 1)",
                settings,
            ),
            wait="1h",
            severity="warning",
            summary="A server's polls show only a part or nothing.",
            description=f"""For an hour no poll of {THE_SERVER} was whole: the last that brought anything was partial,
                or without any software. Its issues are not closed, others may be unseen, and the gate answers
                "unknown".""",
            dashboard=ON_SERVER,
        ),
    )


def _scans(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    enabled = f"max by ({ACCOUNT}) (last_over_time(patrolserver_webhook_enabled[{limits.gap}])) == 1"
    return (
        Alert(
            alert="PatrolServerScanOverdue",
            expr=owned(f"(time() - max by ({SERVER}) ({SCAN}) > {seconds(limits.scan_overdue)})", settings),
            wait="15m",
            severity="warning",
            summary="PatrolServer has not scanned a server for too long.",
            description=f"""The last scan of {THE_SERVER} that was seen ended {{{{ $value | humanizeDuration }}}} ago;
                PatrolServer scans once a day.""",
            dashboard=ON_SERVER,
        ),
        Alert(
            alert="PatrolServerNeverScanned",
            expr=owned(
                f"(\n  max by ({SERVER}) ({POLL} * 0 + 1)\n"
                f"  unless on ({SERVER}) {SCAN}\n"
                f"  and on ({ACCOUNT}) {enabled}\n)",
                settings,
            ),
            wait=limits.scan_overdue,
            severity="warning",
            summary="No scan of a server has been seen since it is watched, though the webhook is enabled.",
            description=f"""{THE_SERVER} has been watched for {words(limits.scan_overdue)}, and no scan of it
                ended.""",
            dashboard=ON_SERVER,
        ),
    )


def _servers(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    fewer = (
        f"(max_over_time(patrolserver_servers[{limits.servers_disappeared}])"
        f" - last_over_time(patrolserver_servers[{limits.gap}]))"
    )
    return (
        Alert(
            alert="PatrolServerServersUnknown",
            # Polls that fail or bring a part have alerts of their own, by server.
            expr=f"""
                (
                  max by ({ACCOUNT}) ({AFFECTED}{{severity="unknown"}})
                  unless on ({ACCOUNT}) max by ({ACCOUNT}) (last_over_time(patrolserver_up[{limits.gap}])) == 0
                )
                - on ({ACCOUNT}) (
                  count by ({ACCOUNT}) (
                    max by ({SERVER}) (
                      (
                        last_over_time(patrolserver_server_poll_complete[{limits.gap}]) == 0
                        or on ({EXPORTERS_SERVER}) last_over_time(patrolserver_server_poll_success[{limits.gap}]) == 0
                        or on ({EXPORTERS_SERVER}) time() - {POLL} > {seconds(limits.data_stale_after)}
                      )
                      and on ({EXPORTERS_SERVER}) {POLL}
                    )
                  )
                  or on ({ACCOUNT}) 0 * max by ({ACCOUNT}) ({AFFECTED})
                ) > 0
                """,
            wait="1h",
            severity="warning",
            summary="Nobody can tell of servers whether they are fine, though their polls succeed.",
            description="""Servers of account {{ $labels.account }} of which it is not known whether all is well, beside
                those whose polls fail or are partial: {{ $value }}. Mostly PatrolServer does not tell of their
                software whether it is supported or has exploits, or lists none. New issues may go unseen, and the
                gate answers "unknown".""",
            dashboard=FLEET,
        ),
        Alert(
            alert="PatrolServerServersDisappeared",
            # All of an account, where nobody has it configured any more. One whose only exporter is away has another
            # alert.
            expr=f"""
                max by ({ACCOUNT}) (
                  {fewer}
                  and on ({EXPORTERS_ACCOUNT}) {LIST_CURRENT}
                ) > 0
                or (
                  max by ({ACCOUNT}) (
                    max_over_time(patrolserver_servers[{limits.servers_disappeared}])
                    and on (job, instance) last_over_time(up[{limits.gap}]) == 1
                  )
                  unless on ({ACCOUNT}) last_over_time(patrolserver_up[{limits.gap}])
                ) > 0
                """,
            wait="15m",
            severity="warning",
            summary="An account has fewer servers than hours ago.",
            description=f"""Servers of account {{{{ $labels.account }}}} that were watched within
                {words(limits.servers_disappeared)} and are not any more: {{{{ $value }}}}.
                PatrolServer's list has them no longer, or the configuration leaves them out. Resolves by itself when
                the smaller fleet has stood for as long.""",
            dashboard=FLEET,
        ),
        Alert(
            alert="PatrolServerWaiverEnding",
            expr=f"""
                0 < (
                  max by (job, server, software, exploit, kind, max_severity) (
                    last_over_time(patrolserver_waiver_expiry_timestamp_seconds[{limits.gap}])
                  ) - time()
                ) < {seconds(limits.waiver_ending)}
                """,
            wait="5m",
            severity="warning",
            summary="A waiver is about to end.",
            description="""The waiver for {{ with $labels.software }}{{ . }}{{ else }}any software{{ end }}{{ with
                $labels.exploit }} with exploit {{ . }}{{ end }}{{ with $labels.kind }} that is {{ . }}{{ end }} on
                {{ with $labels.server }}{{ . }}{{ else }}any server{{ end }} ends in {{ $value | humanizeDuration }}.
                What it covers is open from then on.""",
            dashboard="/d/patrolserver-fleet",
        ),
    )
