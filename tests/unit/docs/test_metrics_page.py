from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.model import Waiver
from patrolserver_exporter.issues.summary import ExploitInfo, ServerSummary, SoftwareInfo
from patrolserver_exporter.live.account_series import AccountExposition, AccountNow, AccountSeries, accounts_now
from patrolserver_exporter.live.encoding import negotiate, plain
from patrolserver_exporter.live.families import EXPLOIT_INFO, SERVER_FAMILIES, SOFTWARE_INFO
from patrolserver_exporter.live.gate_series import Judged, gate_series
from patrolserver_exporter.live.own_metrics import InboxState, Telemetry
from patrolserver_exporter.live.waiver_series import WaiverCollector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from patrolserver_exporter.live.encoding import Piece

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "metrics.md"
TABLE = re.compile(r"(<!-- metrics: (\w+) -->\n)(?:\n\|[^\n]*(?:\n\|[^\n]*)*\n)?")
ALWAYS = {"account", "server", "server_id"}
TEXT = negotiate(None)


def account_rows() -> Iterator[tuple[str, str, list[str], str]]:
    shown = AccountSeries(account="a", up=True, last_success_at=1.0, servers=1, list_complete=True)
    waiver = Waiver(server="*", software="*", until=dt.date(2027, 1, 31), reason="r")
    accounts = AccountExposition()
    accounts.show(shown)
    yield from rows_of(accounts.pieces(TEXT, None, 0.0))
    yield from rows_of(gate_series(lambda: [Judged(account="a", policy="builtin", servers={})]).pieces(TEXT, None))
    yield from rows_of(WaiverCollector(lambda: [waiver]).pieces(TEXT, None))
    now = AccountNow(
        account="a", webhook_enabled=True, owned=True, last_delivery_at=1.0, pause_until=1.0, clock_offset=0.1
    )
    yield from rows_of(accounts_now(lambda: [now]).pieces(TEXT, None))


def exporter_rows() -> Iterator[tuple[str, str, list[str], str]]:
    telemetry = Telemetry(version="1", revision="r", process_metrics=False)
    telemetry.watch_account("a")
    telemetry.watch_inbox(lambda: [InboxState(state="received", deliveries=1, oldest_at=1.0)])
    telemetry.api_call("a", "servers", 0.1, "timeout")
    telemetry.api_budget("a", 1.0)
    telemetry.poll_interval("a", 1.0)
    telemetry.watch_store(writable=lambda: True, last_follow_at=lambda: 1.0)
    telemetry.inbox_overflow("a")
    telemetry.wire_oddity("a")
    for shown in telemetry.shown:
        yield from rows_of(shown.pieces(TEXT, None))


def rows_of(pieces: Iterable[Piece]) -> Iterator[tuple[str, str, list[str], str]]:
    for metric in text_string_to_metric_families(b"".join(plain(pieces)).decode()):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        yield name, metric.type, sorted(labels), metric.documentation


def server_rows() -> Iterator[tuple[str, str, list[str], str]]:
    info = SoftwareInfo(software="s", version="1", update_to="2", state="outdated", location="/", parent="p")
    summary = ServerSummary(
        account="a",
        server_id=1,
        name="n",
        open_issues=(1, 1, 1, 1),
        oldest_issue=(1.0, 1.0, 1.0, 1.0),
        software=(1, 1, 1, 1),
        exploits=1,
        exploit_risk_max=1.0,
        last_scan_at=1.0,
        last_poll_at=1.0,
        software_info=(info,),
        exploit_info=(ExploitInfo(software="s", exploit="e", risk="9.8"),),
    )
    from patrolserver_exporter.live.families import server_labels  # noqa: PLC0415

    for family in (*SERVER_FAMILIES, SOFTWARE_INFO, EXPLOIT_INFO):
        labels = set(re.findall(r'[{,](\w+)="', family.lines(summary, server_labels(summary)).splitlines()[0]))
        yield family.name, "gauge", sorted(labels - ALWAYS), family.help


NAME = re.compile(r"\bpatrolserver_[a-z_]+[a-z]\b")
ROWS = {"account": account_rows, "server": server_rows, "exporter": exporter_rows}


def table(section: str) -> str:
    lines = ["| name | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, kind, labels, meaning in ROWS[section]():
        shown = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {shown} | {meaning} |")
    return "\n".join(lines)


def test_every_metric_is_documented_and_none_invented() -> None:
    """The page's tables are those of the code; ``REGENERATE=1`` writes them."""

    def with_tables(page: str) -> str:
        return TABLE.sub(lambda match: f"{match.group(1)}\n{table(match.group(2))}\n", page)

    if os.environ.get("REGENERATE"):
        PAGE.write_text(with_tables(PAGE.read_text()))
    assert PAGE.read_text() == with_tables(PAGE.read_text())


OTHERS = {"patrolserver_exporter", "patrolserver_issues", "patrolserver_labels", "patrolserver_api_proxy_url"}
"""The command, and Ansible's variables that are put together from parts."""


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    """Every name that begins like one of our metrics, anywhere in the documentation, is one."""
    known = {name for rows in ROWS.values() for name, *_ in rows()}
    known |= {f"{name}{end}" for name in known for end in ("_bucket", "_sum", "_count")}
    # Ansible's variables begin alike.
    for path in (ROOT / "ansible_collection" / "plugins").rglob("*.py"):
        known |= set(NAME.findall(path.read_text()))
    # Those of ansible.md are also made of a prefix and an option's name, and stand nowhere as they are.
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != "ansible.md")]
    found = {name for page in pages for name in NAME.findall(page.read_text())}
    unknown = {name for name in found - known if name not in OTHERS}
    assert unknown == set()


def test_every_state_of_the_inbox_is_documented() -> None:
    """The page on webhooks has a row for each state, and for nothing else."""
    page = (ROOT / "docs" / "webhooks.md").read_text().partition("<!-- states -->")[2]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [state.value for state in DOCUMENTED]


DOCUMENTED = [
    DeliveryState.RECEIVED,
    DeliveryState.FETCHING,
    DeliveryState.RETRY,
    DeliveryState.UNVERIFIED,
    DeliveryState.BLOCKED,
    DeliveryState.APPLIED,
    DeliveryState.REJECTED,
    DeliveryState.EXPIRED,
    DeliveryState.DEAD,
]
