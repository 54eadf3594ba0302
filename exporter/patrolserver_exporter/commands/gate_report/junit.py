"""The gate's answer as JUnit XML: a test case for the verdict, and one for each server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from patrolserver_exporter.commands.gate_report.reply import FAIL, PASS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.commands.gate_report.reply import Reply, Server

_SUITE = "patrolserver gate"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(reply: Reply) -> str:
    """The answer as a document; a failure or an error in it whenever the verdict is not pass."""
    cases = [_case(_SUITE, "verdict", reply.verdict, _lines_of_verdict(reply))]
    cases += [
        _case(f"{_SUITE}.{server.account or 'unknown'}", server.name, server.verdict, _lines_of_server(reply, server))
        for server in reply.servers
    ]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
    }
    attributes = {name: str(count) for name, count in counts.items()}
    root = ET.Element("testsuites", {"name": _SUITE, **attributes, "time": "0"})
    suite = ET.SubElement(root, "testsuite", {"name": _SUITE, **attributes, "skipped": "0", "time": "0"})
    if reply.judged_at:
        # The schema knows neither fractions nor a zone.
        suite.set("timestamp", _clean(reply.judged_at[:19]))
    suite.extend(cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def _case(suite: str, name: str, verdict: str, lines: Sequence[str]) -> ET.Element:
    case = ET.Element("testcase", {"classname": _clean(suite), "name": _clean(name), "time": "0"})
    if verdict != PASS:
        message = lines[0] if lines else f"The verdict is {verdict}."
        tag = "failure" if verdict == FAIL else "error"
        ET.SubElement(case, tag, {"message": _clean(message), "type": _clean(verdict)}).text = _clean("\n".join(lines))
    elif lines:
        ET.SubElement(case, "system-out").text = _clean("\n".join(lines))
    return case


def _lines_of_verdict(reply: Reply) -> list[str]:
    reasons = sorted(reply.reasons, key=lambda reason: not reason.blocking)
    return [reason.message for reason in reasons]


def _lines_of_server(reply: Reply, server: Server) -> list[str]:
    issues = {
        issue.fingerprint: f"{issue.severity}: {issue.wording} [{issue.fingerprint}]"
        for violation in reply.violations
        for issue in violation.issues
        if (issue.account, issue.server) == (server.account, server.name)
    }
    return [*(reason.message for reason in server.reasons), *issues.values()]


def _clean(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
