"""The `gate` command: asks the running exporter for its verdict."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands import exporter_client, flags, gate_policy, gate_report
from patrolserver_exporter.commands.exporter_client import ExporterError, Refused
from patrolserver_exporter.commands.gate_policy import BadPolicy
from patrolserver_exporter.config.duration import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from patrolserver_exporter.commands.exporter_client import ExporterClient


SELECTED_AT_ONCE = 50
"""Names in one request: a request line has its limits."""
AT_ONCE = 100
"""Refreshes under way; the exporter keeps account of a thousand."""
_LOOK_EVERY = 0.2


def selections(servers: Sequence[str], account: str | None) -> Iterator[list[tuple[str, str]]]:
    """Queries that together ask for these servers."""
    of_account = [] if account is None else [("account", account)]
    for start in range(0, len(servers), SELECTED_AT_ONCE):
        yield [*of_account, *(("server", one) for one in servers[start : start + SELECTED_AT_ONCE])]


def refresh(client: ExporterClient, servers: Sequence[str], account: str | None, timeout: float) -> list[str]:
    """Poll the servers and wait; returns a sentence for each that was not polled. Raises `ExporterError`."""
    end = time.monotonic() + timeout
    found: dict[tuple[str, int], str] = {}
    for query in selections(servers, account):
        for server in client.items("/servers", query):
            found[server["account"], server["id"]] = server["name"]
    left = list(found)
    running: dict[str, tuple[str, int]] = {}
    failures: list[str] = []
    while left or running:
        if time.monotonic() > end:
            late = [found[key] for key in (*running.values(), *left)]
            return [*failures, *(_too_late(name, timeout) for name in late)]
        while left and len(running) < AT_ONCE and (operation := _start(client, *left[0])) is not None:
            running[operation["id"]] = left.pop(0)
        for operation_id, key in list(running.items()):
            operation = _member(client.get(f"/operations/{operation_id}"))
            if operation["state"] in {"done", "failed"}:
                del running[operation_id]
                if operation["state"] == "failed":
                    failures.append(f"{found[key]}: it could not be polled before the verdict: {operation['error']}")
        if running or left:
            time.sleep(_LOOK_EVERY)
    return failures


def _start(client: ExporterClient, account: str, server_id: int) -> dict[str, Any] | None:
    """The operation; ``None`` when the exporter has too many under way."""
    try:
        return _member(client.post(f"/servers/{server_id}/refresh", query=[("account", account)]))
    except Refused as error:
        if error.status == 429:
            return None
        raise


def _member(answer: Any) -> dict[str, Any]:
    operation = answer.get("operation") if isinstance(answer, dict) else None
    if not isinstance(operation, dict) or not {"id", "state"} <= operation.keys():
        raise ExporterError("The exporter's answer to a refresh holds no operation.")
    return operation


def _too_late(name: str, timeout: float) -> str:
    return f"{name}: its poll did not end within {format_duration(timeout)} (--refresh-timeout)."


EXIT_CODES = {gate_report.PASS: 0, gate_report.FAIL: 1, gate_report.UNKNOWN: 4}
REPORTS: dict[str, Callable[[gate_report.Reply], str]] = {
    "table": gate_report.as_table,
    "junit": gate_report.as_junit,
    "sarif": gate_report.as_sarif,
}

_DESCRIPTION = """\
Asks the running exporter whether servers meet a policy, for any CI system. SERVER is an id, a name, or a glob on names.
Old, missing or partial data, an unknown server, and an exporter that cannot be asked are never a pass."""

_EPILOG = """\
exit codes: 0 pass; 1 fail; 2 bad flags; 4 unknown"""


def parser() -> flags.Parser:
    """All flags of the gate."""
    found = flags.Parser("patrolserver-exporter gate", _DESCRIPTION, _EPILOG)
    found.add_argument("servers", metavar="SERVER", nargs="+", help="id, name or glob")
    found.add_argument("--account", metavar="NAME", help="whose servers; needed when several accounts have such a one")
    gate_policy.add_flags(found)
    report = found.add_argument_group("report")
    report.add_argument("--format", choices=["table", "json", "junit", "sarif"], default="table", help="default: table")
    report.add_argument("--output", metavar="FILE", help="where to write the report (default: standard output)")
    fresh = found.add_argument_group("fresh data")
    fresh.add_argument("--refresh", action="store_true", help="poll the servers first (the token needs refresh)")
    fresh.add_argument(
        "--refresh-timeout", metavar="DURATION", default="2m", help="for all polls together (default: 2m)"
    )
    exporter_client.add_flags(found)
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Ask, report, and return the exit code."""
    flag_parser = parser()
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    client = exporter_client.from_flags(flag_parser, values)
    refresh_timeout = exporter_client.duration(flag_parser, "--refresh-timeout", values["refresh-timeout"])
    try:
        policy = gate_policy.policy_of(values)
    except BadPolicy as error:
        flag_parser.error(str(error))
    body = {"servers": values["servers"], "policy": policy}
    if values["account"] is not None:
        body["account"] = values["account"]
    data, answer = _judged(client, body, refresh_timeout if values["refresh"] else None, values["write-baseline"])
    text = _rendered(data, answer, values["format"])
    code = EXIT_CODES[answer.verdict]
    if not _written(text, values["output"]):
        return code or EXIT_CODES[gate_report.UNKNOWN]
    return code


def _judged(
    client: ExporterClient, body: dict[str, Any], refresh_timeout: float | None, baseline: str | None
) -> tuple[dict[str, Any], gate_report.Reply]:
    """The answer as it came, and as it was read; unknown when there is none that can be used."""
    try:
        failures: list[str] = []
        if refresh_timeout is not None:
            failures = refresh(client, body["servers"], body.get("account"), refresh_timeout)
        # Before the verdict: an issue that comes in between is then judged, and not slipped into the baseline.
        issues = [] if baseline is None else list(_open_issues(client, body["servers"], body.get("account")))
        data = client.post("/gate", body)
        gate_report.read(data)
        for failure in failures:
            data = gate_report.with_doubt(data, "refresh_failed", failure)
        answer = gate_report.read(data)
    except ExporterError as error:
        return _no_answer("exporter_unavailable", str(error))
    except gate_report.NoVerdict as error:
        return _no_answer("no_verdict", str(error))
    if baseline is not None:
        _keep_baseline(Path(baseline), issues, answer)
    return data, answer


def _no_answer(code: str, message: str) -> tuple[dict[str, Any], gate_report.Reply]:
    now = dt.datetime.fromtimestamp(int(time.time()), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    data = gate_report.unanswered(code, message, now)
    return data, gate_report.read(data)


def _open_issues(client: ExporterClient, servers: Sequence[str], account: str | None) -> Iterable[dict[str, Any]]:
    for query in selections(servers, account):
        yield from client.items("/issues", [*query, ("waived", "false")])


def _keep_baseline(path: Path, issues: Iterable[dict[str, Any]], answer: gate_report.Reply) -> None:
    if answer.verdict == gate_report.UNKNOWN:
        _say(f"The baseline {path} was not written, because the verdict is unknown.")
        return
    try:
        gate_policy.write_baseline(path, issues)
    except OSError as error:
        _say(f"The baseline {path} could not be written: {error.strerror}.")


def _rendered(data: dict[str, Any], answer: gate_report.Reply, form: str) -> str:
    if form == "json":
        return json.dumps(data, indent=2) + "\n"
    return REPORTS[form](answer)


def _written(text: str, output: str | None) -> bool:
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    try:
        gate_policy.write_whole(Path(output), text)
    except OSError as error:
        _say(f"The report {output} could not be written: {error.strerror}.")
        return False
    return True


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201  # Beside the report, for people.
