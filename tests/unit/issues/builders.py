"""Makes the nouns of the issues, plain ones by name and arbitrary ones for properties."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from patrolserver_exporter.issues.classify import severity_of
from patrolserver_exporter.issues.model import Issue, IssueClass, Kind, Severity, fingerprint
from patrolserver_exporter.patrolserver.models import Exploit, ReportedIssue, ReportedSoftware, Software

ACCOUNT = "main"
SERVER = 7
EXPLOIT_RISK = 5.0
SETTLE = 300.0


def software(name: str = "php", **fields: Any) -> Software:
    """A software that is fine, unless told otherwise."""
    known: dict[str, Any] = {"version": "1.0", "supported": True, "exploits": ()}
    return Software(**({"name": name.upper(), "canonical_name": name} | known | fields))


def outdated(name: str = "php", **fields: Any) -> Software:
    """A software with a newer bug-fix release."""
    return software(name, **({"supported": False, "newest_bugfix_release": "1.1"} | fields))


def unsupported(name: str = "php", **fields: Any) -> Software:
    """A software at the end of its life."""
    return software(name, **({"supported": False} | fields))


def exploitable(name: str = "php", risk: float | None = 9.0, **fields: Any) -> Software:
    """A supported software with one exploit."""
    return software(name, exploits=(Exploit(risk=risk),), **fields)


BYSTANDER = software("bystander")
"""Fine software beside that of a test: a list without any would say nothing."""


def exploited(name: str = "php", *known: Exploit, **fields: Any) -> Software:
    """A supported software with those exploits."""
    return software(name, exploits=known, **fields)


def reported(name: str = "php", *, title: str | None = "Upgrade.", location: str | None = None) -> ReportedIssue:
    """An entry of an event's new issues."""
    about = ReportedSoftware(name=name.upper(), canonical_name=name, version="1.0", location=location)
    return ReportedIssue(software=about, title=title, description=None if title is None else f"{title} Really.")


def issue(name: str = "php", kind: Kind = Kind.OUTDATED, **fields: Any) -> Issue:
    """An open issue that a poll has shown."""
    known: dict[str, Any] = {
        "account": ACCOUNT,
        "server_id": SERVER,
        "canonical_name": name,
        "location": "/",
        "issue_class": IssueClass.EXPLOIT if kind is Kind.EXPLOITABLE else IssueClass.VERSION,
        "fingerprint": "",
        "kind": kind,
        "severity": severity_of(kind, fields.get("risk")),
        "software": name.upper(),
        "first_seen": 1000.0,
        "last_seen": 1000.0,
        "polled": kind is not Kind.REPORTED,
    }
    made = Issue(**(known | fields))
    if made.fingerprint:
        return made
    return issue(name, kind, **(fields | {"fingerprint": fingerprint(made.account, made.server_id, made.identity)}))


NAMES = st.sampled_from(["php", "nginx", "wordpress/akismet"])
LOCATIONS = st.sampled_from([None, "/", "/srv/www"])
RISKS = st.none() | st.floats(0, 10) | st.sampled_from([4.0, 5.0, 7.0, 9.0, 10.0])
SEVERITIES = st.sampled_from(Severity)
SOFTWARE = st.builds(
    Software,
    name=st.just("Name"),
    canonical_name=NAMES,
    version=st.sampled_from([None, "1.0", "2.0"]),
    candidates=st.sampled_from([(), ("3.0", "3.1")]),
    supported=st.sampled_from([None, True, False]),
    newest_bugfix_release=st.sampled_from([None, "", "1.1"]),
    parent=st.sampled_from([None, "wordpress"]),
    location=LOCATIONS,
    exploits=st.none() | st.lists(st.builds(Exploit, risk=RISKS), max_size=3).map(tuple),
)
DECIDED_SOFTWARE = SOFTWARE.filter(
    lambda made: made.supported is not None and made.shown_version is not None and made.exploits is not None
)
REPORTED = st.builds(reported, name=NAMES, title=st.sampled_from([None, "Upgrade.", "Beware."]), location=LOCATIONS)
