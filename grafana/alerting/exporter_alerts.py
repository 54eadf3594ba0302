"""Alerts on the exporters themselves: who answers, whose data is old, what is not taken in. Each names its instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.alerting.fleet_alerts import ON_SERVER, THE_SERVER
from grafana.alerting.recorded import (
    ACCOUNT,
    EXPORTERS_ACCOUNT,
    JOB_COUNT,
    LIST_KNOWN,
    POLL,
    SERVER,
    owned,
)
from grafana.alerting.rule import Alert, Record
from grafana.settings import seconds, words

if TYPE_CHECKING:
    from grafana.settings import Settings

HEALTH = "/d/patrolserver-exporter"
OF_ACCOUNT = f"{HEALTH}?var-account={{{{ $labels.account | urlquery }}}}"
OF_INSTANCE = f"{HEALTH}?var-instance={{{{ $labels.instance | urlquery }}}}"
WHERE = "{{ $labels.instance }}"
WHOSE = "account {{ $labels.account }}"

OWNER = "patrolserver_exporter_account_owner"
REFUSED = "account:patrolserver_exporter_api_credential_failures:increase30m"
STALE = "account:patrolserver_data_stale_seconds:age"
FRESH = "account:patrolserver_data_fresh_seconds:age"
STALE_SERVERS = "account_server:patrolserver_data_stale_seconds:age"


def exporter_alerts(settings: Settings) -> tuple[Record | Alert, ...]:
    """Exporters, accounts, deliveries and the store."""
    return (
        *_down(settings),
        *_api(settings),
        *_stale(settings),
        *_deliveries(settings),
        *_inbox(settings),
        *_process(settings),
        *_replicas(settings),
    )


def _down(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    up = f"up{{job=~{settings.jobs}}}"
    answering = "{{ printf `sum(up{job=%q})` $labels.job | query | first | value }}"
    there = f"max_over_time(min_over_time({JOB_COUNT}[30m])[{limits.missed}:5m])"
    before = f"last_over_time({JOB_COUNT}[{limits.missed}])"
    return (
        Alert(
            alert="PatrolServerExporterDown",
            # A job whose targets are all gone is named, so that what follows from it is inhibited.
            expr=f"""
                sum by (job) ({up}) == 0
                or {before} unless on (job) {JOB_COUNT}
                or absent({up}) unless on () {before}
                """,
            wait=limits.exporter_down,
            severity="critical",
            summary="Prometheus cannot scrape any PatrolServer exporter.",
            description=f"""{{{{ with $labels.job }}}}No exporter of job {{{{ . }}}} has answered{{{{ else }}}}No
                target of the exporters' job has existed{{{{ end }}}} for {words(limits.exporter_down)}; nobody
                watches for vulnerable servers.""",
            dashboard=HEALTH,
        ),
        Alert(
            alert="PatrolServerExporterDown",
            expr=f"{up} == 0\nand on (job) sum by (job) ({up}) > 0",
            wait=limits.exporter_down,
            severity="warning",
            summary="Prometheus cannot scrape one of several PatrolServer exporters.",
            description=f"""{WHERE} (job {{{{ $labels.job }}}}) has not answered for {words(limits.exporter_down)},
                while {answering} of the job do. What they watch is watched; deliveries sent to {WHERE} get lost.""",
            dashboard=HEALTH,
        ),
        Alert(
            alert="PatrolServerExporterMissing",
            expr=f"{there} - {JOB_COUNT} > 0",
            wait=limits.exporter_down,
            severity="warning",
            summary="Prometheus has fewer targets of the exporter's job than it had.",
            description=f"""Targets of job {{{{ $labels.job }}}} that are gone from Prometheus' service discovery within
                {words(limits.missed)}: {{{{ $value }}}}. Whether an exporter runs there is not known. Resolves by
                itself when the smaller number has stood for as long.""",
            dashboard=HEALTH,
        ),
        Alert(
            alert="PatrolServerAccountUnwatched",
            expr=f"""
                group by ({ACCOUNT}) (
                  last_over_time(patrolserver_up[{limits.missed}]) unless on (job, instance) {up} == 1
                )
                unless on ({ACCOUNT}) last_over_time(patrolserver_up[{limits.gap}])
                """,
            severity="critical",
            summary="No exporter watches an account that one watched before.",
            description=f"""The exporter that watched {WHOSE} is gone, and no other one watches it: nothing is known
                of its servers. Resolves by itself after {words(limits.missed)}.""",
            dashboard=OF_ACCOUNT,
        ),
    )


def _api(settings: Settings) -> tuple[Record | Alert, ...]:
    limits = settings.thresholds
    fails = f"last_over_time(patrolserver_up[{limits.gap}]) == 0"
    refused = f"{fails}\nand on ({EXPORTERS_ACCOUNT}) {REFUSED} > 0"
    # One that leaves the account to another exporter on its store shows what that one is told, and is told nothing.
    elsewhere = f"last_over_time({OWNER}[{limits.gap}]) == 0 and on ({ACCOUNT}) {REFUSED} > 0"
    other = f"max by ({ACCOUNT}) (patrolserver_up) == 1"
    pause = "patrolserver_exporter_api_pause_end_timestamp_seconds"
    return (
        Record(
            REFUSED,
            f"""
            sum by ({EXPORTERS_ACCOUNT}) (
              increase(patrolserver_exporter_api_request_failures_total{{reason="credentials"}}[30m])
            )
            """,
        ),
        Alert(
            alert="PatrolServerApiUnreachable",
            expr=f"max by ({EXPORTERS_ACCOUNT}) ({fails})\nunless on ({EXPORTERS_ACCOUNT}) {REFUSED} > 0\n"
            f"unless on ({EXPORTERS_ACCOUNT}) ({elsewhere})",
            wait=limits.api_unreachable,
            severity="warning",
            summary="An exporter cannot read an account's server list from PatrolServer.",
            description=f"""{WHERE} cannot read the server list of {WHOSE}: every call that it knows of, its own or
                one of the exporter that polls the account on the same store, has failed for
                {words(limits.api_unreachable)}. It shows what was known before.""",
            dashboard=OF_ACCOUNT,
        ),
        *(
            Alert(
                alert="PatrolServerCredentialsRefused",
                expr=f"max by ({EXPORTERS_ACCOUNT}) (\n  {refused.replace(chr(10), chr(10) + '  ')}\n)\n"
                f"{operator} on ({ACCOUNT}) {other}",
                wait="5m",
                severity=severity,
                summary=summary,
                description=f"""PatrolServer answers the calls of {WHERE} for {WHOSE} with 401 or 403{more}. The
                    exporter pauses them and probes every few minutes; it does not recover before the credentials are
                    right.""",
                dashboard=OF_ACCOUNT,
            )
            for severity, operator, summary, more in (
                ("critical", "unless", "PatrolServer refuses an account's key and secret.", ""),
                (
                    "warning",
                    "and",
                    "PatrolServer refuses the key and secret of one of several exporters.",
                    ", while another exporter is let in",
                ),
            )
        ),
        Alert(
            alert="PatrolServerCallsPaused",
            # The next of many short pauses begins when a call after the last one is refused.
            expr=f"max by ({EXPORTERS_ACCOUNT}) (last_over_time({pause}[5m])) > time() - 120",
            wait="15m",
            severity="warning",
            summary="PatrolServer puts off the calls of an account.",
            description=f"""As {WHERE} knows, PatrolServer asked to wait with the calls for {WHOSE}, for long or again
                and again, and that has lasted for 15 minutes: polls come late, and data gets older.""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerListIncomplete",
            # A list that cannot be read at all is PatrolServerApiUnreachable's; a call that fails between parts of a
            # list does not end it.
            expr=f"""
                min by ({EXPORTERS_ACCOUNT}) (last_over_time(patrolserver_list_complete[{limits.gap}])) == 0
                unless on ({EXPORTERS_ACCOUNT}) max_over_time(patrolserver_up[{limits.gap}]) == 0
                """,
            wait="30m",
            severity="warning",
            summary="PatrolServer gives only a part of the server list of an account.",
            description=f"""The last server list of {WHOSE} that {WHERE} shows was not whole for 30 minutes: there may
                be servers that nobody watches, and the gate answers "unknown" to globs.""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerWireOddities",
            expr=f"sum by ({EXPORTERS_ACCOUNT}) (increase(patrolserver_exporter_wire_oddities_total[1h])) > 0",
            wait="15m",
            severity="warning",
            summary="PatrolServer's replies have values that cannot be read.",
            description=f"""{WHERE} left out some {{{{ $value | humanize }}}} values of replies for {WHOSE} within an
                hour, because they could not be read. What they said is not known.""",
            dashboard=OF_ACCOUNT,
        ),
    )


def _stale(settings: Settings) -> tuple[Record | Alert, ...]:
    limits = settings.thresholds
    least = seconds(limits.data_stale_after)
    success = f"last_over_time(patrolserver_last_success_timestamp_seconds[{limits.gap}])"
    # An exporter that has lost its state has no time to tell, and data that is gone is no younger.
    before = f"""
              max_over_time({LIST_KNOWN}[{limits.missed}]) > 0
              and on ({EXPORTERS_ACCOUNT}) last_over_time(patrolserver_up[{limits.gap}])
            """
    old = f"max by ({EXPORTERS_ACCOUNT}) ({STALE})"
    return (
        # The list is read each minute, whatever the interval of the polls.
        Record(
            STALE,
            f"""
            time() - (
              {success}
              or on ({EXPORTERS_ACCOUNT}) ({before})
            ) > {least}
            """,
        ),
        Record(FRESH, f"time() - ({LIST_KNOWN} > 0) <= {least}"),
        Alert(
            alert="PatrolServerDataStale",
            expr=f"{old}\nunless on ({ACCOUNT}) {FRESH}",
            wait="5m",
            severity="critical",
            summary="An account's data is too old to be trusted.",
            description=f"""The server list of {WHOSE} that {WHERE} shows was read {{{{ $value | humanizeDuration }}}}
                ago, and no exporter has read a newer one since. New issues may go unseen, and the deploy gate answers
                "unknown" once the policy's max_age is over.""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerAccountNeverRead",
            # One whose clock is fast has a time, though it is not counted.
            expr=f"max by ({EXPORTERS_ACCOUNT}) (max_over_time({LIST_KNOWN}[{limits.missed}]) == 0)\n"
            f"unless on ({EXPORTERS_ACCOUNT}) {success}\nunless on ({ACCOUNT}) {FRESH}",
            wait=limits.data_stale_after,
            severity="critical",
            summary="An account's server list has never been read.",
            description=f"""{WHERE} watches {WHOSE}, and neither it nor another exporter could read its server list for
                {words(limits.data_stale_after)}: nothing is known of its servers, and the deploy gate answers
                "unknown".""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerDataStale",
            expr=f"{old}\nand on ({ACCOUNT}) {FRESH}",
            wait="5m",
            severity="warning",
            summary="The data of one of several exporters is too old to be trusted.",
            description=f"""The server list of {WHOSE} that {WHERE} shows was read {{{{ $value | humanizeDuration }}}}
                ago, while another exporter has a newer one. Alerts and dashboards use that one's data; pages and gate
                of {WHERE} are old.""",
            dashboard=OF_ACCOUNT,
        ),
    )


def stale_servers(settings: Settings) -> tuple[Record | Alert, ...]:
    """Servers that are not polled, though their account's list is read."""
    limits = settings.thresholds
    reachable = f"max by ({ACCOUNT}) (last_over_time(patrolserver_up[{limits.gap}])) == 0"
    polled = f"last_over_time(patrolserver_server_last_poll_timestamp_seconds[{limits.gap}])"
    interval = f"max by ({ACCOUNT}) (last_over_time(patrolserver_exporter_poll_interval_seconds[{limits.gap}]))"
    least, most = seconds(limits.data_stale_after), seconds(limits.data_stale_at_most)
    return (
        Record(
            STALE_SERVERS,
            f"""
            (
              time() - max by ({SERVER}) ({POLL} > 0)
              > on ({ACCOUNT}) group_left () clamp({limits.data_stale_intervals} * {interval}, {least}, {most})
            )
            unless on ({ACCOUNT}) {reachable}
            """,
        ),
        Alert(
            alert="PatrolServerMostServersStale",
            expr=f"""
                (
                  count by ({ACCOUNT}) ({STALE_SERVERS})
                  > on ({ACCOUNT}) 0.5 * count by ({ACCOUNT}) ({POLL})
                ) > 9
                """,
            wait="15m",
            severity="critical",
            summary="The data of most servers of an account is too old to be trusted, though its list is read.",
            description=f"""Servers of {WHOSE} that were not polled successfully for too long: {{{{ $value }}}}. New
                issues may go unseen, and the deploy gate answers "unknown" once the policy's max_age is over.""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerServerDataStale",
            expr=owned(STALE_SERVERS, settings),
            wait="15m",
            severity="warning",
            summary="One server's data is too old to be trusted, while its account's list is read.",
            description=f"{THE_SERVER} was last polled successfully {{{{ $value | humanizeDuration }}}} ago.",
            dashboard=ON_SERVER,
        ),
        Alert(
            alert="PatrolServerServerNeverPolled",
            expr=owned(
                f"(\n  max by ({SERVER}) (last_over_time(patrolserver_server_info[{limits.gap}]))\n"
                f"  unless on ({SERVER}) {polled}\n"
                f"  unless on ({ACCOUNT}) {reachable}\n)",
                settings,
            ),
            wait=limits.never_polled,
            severity="warning",
            summary="A server has never been polled successfully, while its account's list is read.",
            description=f"""{THE_SERVER} has been watched for {words(limits.never_polled)}, and no poll of it has
                succeeded: nothing is known of its software.""",
            dashboard=ON_SERVER,
        ),
    )


def _deliveries(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    enabled = "patrolserver_webhook_enabled"
    delivered = (
        f"max by ({ACCOUNT}) (last_over_time(patrolserver_webhook_last_delivery_timestamp_seconds[{limits.gap}]))"
    )
    silent = seconds(limits.webhook_silent)
    return (
        Alert(
            alert="PatrolServerDeliveriesNotTaken",
            expr="""
                sum by (job, instance, outcome) (
                  increase(patrolserver_exporter_webhook_deliveries_total{outcome=~"refused|rejected|failed"}[1h])
                ) > 0
                """,
            severity="warning",
            summary="Webhook deliveries were answered with an error.",
            description=f"""Deliveries with the outcome {{{{ $labels.outcome }}}} on {WHERE} within an hour: about
                {{{{ $value | humanize }}}}. {{{{ if eq $labels.outcome `refused` }}}}Their token or network is not
                allowed, so either PatrolServer has an old URL or somebody tries{{{{ else if eq $labels.outcome `failed`
                }}}}The store could not keep them{{{{ else }}}}They could not be read{{{{ end }}}}. What they told of
                shows with the next poll.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerWebhookSilent",
            expr=f"""
                max by ({ACCOUNT}) (last_over_time({enabled}[{limits.gap}])) == 1
                and on ({ACCOUNT}) (
                  time() - {delivered} > {silent}
                  or (
                    max by ({ACCOUNT}) (last_over_time({enabled}[{limits.gap}] offset {limits.webhook_silent})) == 1
                    unless on ({ACCOUNT}) {delivered}
                  )
                )
                """,
            wait="15m",
            severity="warning",
            summary="No webhook delivery has come for days, though the webhook is enabled.",
            description=f"""No exporter has got a delivery for {WHOSE} for {words(limits.webhook_silent)}.
                PatrolServer tells of each scan, and scans once a day: the webhook does not arrive, or nothing is
                scanned.""",
            dashboard=OF_ACCOUNT,
        ),
    )


def _inbox(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    oldest = "patrolserver_exporter_inbox_oldest_timestamp_seconds"
    return (
        Alert(
            alert="PatrolServerInboxStuck",
            expr=f"""
                time() - min by (job, instance, state) (
                  {oldest}{{state=~"received|fetching"}} > 0
                ) > {seconds(limits.inbox_first_try)}
                or
                time() - min by (job, instance, state) (
                  {oldest}{{state=~"retry|blocked"}} > 0
                ) > {seconds(limits.inbox_retry)}
                """,
            wait="5m",
            severity="warning",
            summary="Deliveries wait in the inbox and are not worked on.",
            description=f"""The oldest delivery in state {{{{ $labels.state }}}} on {WHERE} waits for {{{{ $value |
                humanizeDuration }}}}. Polls still find the issues, only later.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerInboxOverflow",
            expr=f"sum by ({EXPORTERS_ACCOUNT}) (increase(patrolserver_exporter_inbox_overflows_total[15m])) > 0",
            severity="warning",
            summary="The inbox was full, and deliveries were answered without being kept.",
            description=f"""Deliveries of {WHOSE} that met a full inbox on {WHERE} in 15 minutes: about {{{{
                $value | humanize }}}}. A catch-up poll finds the issues; titles and scan times may be missing.""",
            dashboard=OF_ACCOUNT,
        ),
        Alert(
            alert="PatrolServerDeadDeliveries",
            expr='max by (job, instance) (last_over_time(patrolserver_exporter_inbox_deliveries{state="dead"}'
            f"[{limits.gap}])) > 0",
            wait="5m",
            severity="warning",
            summary="Deliveries got a reply from PatrolServer that the exporter cannot understand.",
            description=f"""Dead deliveries on {WHERE}: {{{{ $value }}}}. They are kept, and nobody works on them
                until you replay or drop them.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerEventLagHigh",
            expr=f"""
                histogram_quantile(
                  0.9, sum by (job, instance, le) (rate(patrolserver_exporter_event_lag_seconds_bucket[30m]))
                ) > {seconds(limits.event_lag)}
                """,
            wait="10m",
            severity="warning",
            summary="Events take minutes from their delivery to the metrics.",
            description=f"""One in ten deliveries on {WHERE} took longer than {{{{ $value | humanizeDuration }}}} to
                show in /metrics over the last 30 minutes.""",
            dashboard=OF_INSTANCE,
        ),
    )


def _process(settings: Settings) -> tuple[Alert, ...]:
    limits = settings.thresholds
    off = seconds(limits.clock_offset)
    offset = f"last_over_time(patrolserver_exporter_clock_offset_seconds[{limits.gap}])"
    return (
        Alert(
            alert="PatrolServerStoreNotWritable",
            expr="min by (job, instance) (last_over_time(patrolserver_exporter_store_writable[5m])) == 0",
            wait="30s",
            severity="critical",
            summary="The exporter cannot write its store.",
            description=f"""Nothing can be written on {WHERE}: deliveries get a 503, polls are not kept, and what it
                shows gets older.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerConfigReloadFailed",
            expr="max by (job, instance) (max_over_time(patrolserver_exporter_config_last_reload_successful[5m])) == 0",
            wait="5m",
            severity="warning",
            summary="The exporter runs on an old configuration, because it could not load the new one.",
            description=f"""The last reload on {WHERE} failed. It goes on with the configuration it had, but would not
                start with the new one.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerExporterErrors",
            expr="sum by (job, instance, component) (increase(patrolserver_exporter_errors_total[15m])) > 0",
            wait="15m",
            severity="warning",
            summary="A part of the exporter keeps failing in a way that it does not expect.",
            description=f"""{{{{ $labels.component }}}} on {WHERE} logged {{{{ $value | humanize }}}} unexpected
                errors in 15 minutes, for at least 15 minutes.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerClockOff",
            expr=f"""
                max by (job, instance) ({offset}) > {off}
                or min by (job, instance) ({offset}) < -{off}
                or max by (job, instance) (patrolserver_exporter_last_follow_timestamp_seconds) - time() > {off}
                """,
            wait="5m",
            severity="warning",
            summary="The exporter's clock is wrong.",
            description=f"""The clock of {WHERE} is {{{{ if lt $value 0.0 }}}}behind{{{{ else }}}}ahead{{{{ end }}}}
                by {{{{ printf `%.0f` $value | reReplaceAll `-` `` }}}} s. Ages, waivers and the gate's max_age are
                wrong by as much.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerSeriesDropped",
            expr="sum by (job, instance, reason) (increase(patrolserver_exporter_series_dropped_total[1h])) > 0",
            wait="15m",
            severity="info",
            summary="The exporter leaves software series out, because a limit is reached.",
            description=f"""Within the last hour a limit cut software series off on {WHERE} ({{{{ $labels.reason
                }}}}). The counts of issues stay right; the software table is not complete.""",
            dashboard=OF_INSTANCE,
        ),
    )


def _replicas(settings: Settings) -> tuple[Alert, ...]:
    follow = seconds(settings.thresholds.follow)
    replicas = "patrolserver_exporter_replicas"
    return (
        Alert(
            alert="PatrolServerExporterBehind",
            expr=f"time() - max by (job, instance) (patrolserver_exporter_last_follow_timestamp_seconds) > {follow}",
            wait="1m",
            severity="warning",
            summary="An exporter shows what the store was a while ago.",
            description=f"""{WHERE} has not followed the store for {{{{ $value | humanizeDuration }}}}: what it shows
                is that old.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerReplicasDiffer",
            expr="max by (job, instance) (patrolserver_exporter_replicas_config_differs) > 0",
            wait="10m",
            severity="warning",
            summary="Exporters that share a store run on different configurations.",
            description=f"""{WHERE} sees that another exporter on the same store has another configuration: which
                waivers and filters hold depends on who polls, and which policies on who is asked.""",
            dashboard=OF_INSTANCE,
        ),
        Alert(
            alert="PatrolServerAccountOwners",
            # Each exporter counts as its part of a store: those that share one are one together, and one with a store
            # of its own is one by itself. A store of which some are not scraped counts whole. The hundredth is for
            # parts whose sum is a little above one.
            expr=f"""
                sum by ({ACCOUNT}) ({OWNER})
                != ceil(
                  sum by ({ACCOUNT}) (
                    ({OWNER} >= bool 0) / on (job, instance) group_left () max by (job, instance) ({replicas})
                  ) - 0.01
                )
                """,
            wait="2m",
            severity="warning",
            summary="Not exactly one of the exporters that share a store polls an account.",
            description=f"""{{{{ if eq $value 0.0 }}}}No exporter{{{{ else }}}}{{{{ $value }}}} of the
                exporters{{{{ end }}}} of job {{{{ $labels.job }}}} that Prometheus can scrape {{{{ if gt $value 1.0
                }}}}poll{{{{ else }}}}polls{{{{ end }}}} {WHOSE}. Of those that share a store exactly one should: not
                polled, its data gets older; polled twice, PatrolServer gets twice the calls.""",
            dashboard=OF_ACCOUNT,
        ),
    )
