# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the gate: what the task gives, what is waited for, the verdict, and the files that are written of it."""

from __future__ import annotations

import os

from ansible_collections.patrolserver.monitoring.plugins.module_utils import baseline, judging, reports
from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import moment, seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    InvalidInput,
    PatrolServerError,
    Unwritten,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter, server_reference
from ansible_collections.patrolserver.monitoring.plugins.module_utils.files import read_text, write_text
from ansible_collections.patrolserver.monitoring.plugins.module_utils.policy import policy, waivers_of
from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import Redactor, secrets_of
from ansible_collections.patrolserver.monitoring.plugins.module_utils.waiting import Wait

# Shorter ones stand in names and numbers, too, and a report is read by programs.
SHORTEST_IN_A_REPORT = 8


class Gate:
    """A gate with the options of a task; ``result`` is right at every moment, so that it can be returned whatever happens.

    ``dry`` asks for no refresh, waits for no scan that nobody started and writes no file, but tells what would be; ``diff`` adds what a file becomes.
    """

    def __init__(self, params: dict, dry: bool, diff: bool) -> None:
        self._params = params
        self._dry = dry
        self._diff = diff
        self.misconfigured = False
        self.result = {
            "changed": False,
            **judging.nothing_known(),
            "baseline": None,
            "report_file": None,
            "refreshed": 0,
        }

    def run(self) -> None:
        """Judge, and write what was asked for; ``misconfigured`` then tells whether the task itself is wrong."""
        try:
            self._judge()
        except PatrolServerError as error:
            self.result.update(judging.trouble(error))
            self.misconfigured = judging.misconfigured(error)
        try:
            self._report()
        except Unwritten as error:
            self._note_unwritten("report", error)

    def _judge(self) -> None:
        params = self._params
        if not params["servers"]:
            raise InvalidInput("servers: the list is empty; a gate on nothing does not pass")
        self._check_options()
        exporter = Exporter(params)
        servers = [server_reference(name) for name in params["servers"]]
        file = params["waivers_file"]
        waivers = waivers_of(params["waivers"], read_text("waivers_file", file) if file else None, file or "")
        before, known = self._known_issues()
        policy(params, known, waivers)  # A task that is wrong waits for nothing.
        if params["account"] is not None:
            exporter.check_accounts([params["account"]])
        self._wait(exporter)
        current = self._open_issues(exporter) if params["baseline_mode"] != "use" and before is not None else []
        if known is None and before is not None:
            known = baseline.kept_of(current)
        answer = exporter.gate(servers, params["account"], policy(params, known, waivers), params["detail"])
        self.result.update(judging.known(answer))
        try:
            self._keep_baseline(before, known, current)
        except Unwritten as error:
            self._note_unwritten("baseline", error)

    def _check_options(self) -> None:
        params = self._params
        if params["max_listed"] is not None and params["max_listed"] < 1:
            raise InvalidInput("max_listed: it has to be 1 or more, not {0}".format(params["max_listed"]))
        if params["scanned_after"] and not params["wait_for_scan"]:
            raise InvalidInput("scanned_after: it means nothing without wait_for_scan: true")
        if params["baseline_mode"] != "use" and not params["baseline_file"]:
            raise InvalidInput("baseline_mode: it means nothing without baseline_file")

    def _known_issues(self) -> tuple[str | None, list | None]:
        """Return the baseline's text (none without one, empty if it is yet to be written) and its issues."""
        path = self._params["baseline_file"]
        if not path:
            return None, None
        if self._params["baseline_mode"] == "create" and not os.path.exists(path):
            return "", None
        text = read_text("baseline_file", path)
        return text, baseline.accepted(text, path)

    def _wait(self, exporter: Exporter) -> None:
        params = self._params
        bound, pause = (seconds(params[name], name) for name in ("wait_timeout", "poll_interval"))
        since = moment(params["scanned_after"], "scanned_after") if params["scanned_after"] else None
        if self._dry:
            # The task that would start the scan has started none.
            since = None
        wait = Wait(exporter, bound, pause)
        if not (params["wait_for_scan"] or params["refresh"]) or exporter.unknown_of(self._selection()):
            # Of a server that nobody knows there is nothing to wait for: the verdict says so at once.
            return
        if params["wait_for_scan"]:
            wait.for_scans(self._selection(), since)
        if params["refresh"]:
            self._refresh(wait)

    def _refresh(self, wait: Wait) -> None:
        if self._dry:
            self.result["changed"] = True
            return
        try:
            self.result["refreshed"] = wait.refresh(self._selection())
        finally:
            self.result["changed"] = wait.asked

    def _selection(self) -> dict:
        account = self._params["account"]
        return {"servers": self._params["servers"], "account": [account] if account is not None else []}

    def _open_issues(self, exporter: Exporter) -> list:
        return list(exporter.issues({**self._selection(), "state": "open", "waived": False}))

    def _keep_baseline(self, before: str | None, known: list | None, current: list) -> None:
        if before is None:
            return
        params, result = self._params, self.result
        result["baseline"] = {"file": params["baseline_file"], "count": len(known), "written": False}
        create = before == "" and params["baseline_mode"] == "create" and result["verdict"] != "unknown"
        ratchet = params["baseline_mode"] == "ratchet" and result["passed"]
        if not create and not ratchet:
            return
        # As they were accepted, and not as they are by now: that may be worse.
        still_open = {issue["fingerprint"] for issue in current}
        kept = [issue for issue in known if issue["fingerprint"] in still_open]
        if ratchet and len(kept) == len(known):
            return
        after = baseline.document(kept)
        write_text("baseline_file", params["baseline_file"], after, self._dry)
        result["changed"] = result["baseline"]["written"] = True
        result["baseline"]["count"] = len(kept)
        if self._diff:
            name = params["baseline_file"]
            result["diff"] = {"before_header": name, "after_header": name, "before": before, "after": after}

    def _report(self) -> None:
        path = self._params["report_file"]
        if not path:
            return
        kind = self._params["report_format"] or reports.format_of(path)
        told = {name: value for name, value in self.result.items() if name not in ("changed", "diff", "report_file")}
        hide = Redactor([secret for secret in secrets_of(self._params) if len(secret) >= SHORTEST_IN_A_REPORT])
        write_text("report_file", path, hide(reports.render(kind, told)), self._dry)
        self.result["report_file"] = path
        self.result["changed"] = True

    def _note_unwritten(self, code: str, error: Unwritten) -> None:
        """The verdict stays what it is, but a pass whose files are missing lets nothing go on."""
        result = self.result
        self.misconfigured = True
        result["reasons"] = [judging.reason(code, str(error)), *result["reasons"]]
        if result["passed"]:
            result.update(verdict="unknown", passed=False)
