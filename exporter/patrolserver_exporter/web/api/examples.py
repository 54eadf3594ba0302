"""Examples for the OpenAPI document, as the exporter would answer."""

from __future__ import annotations

from typing import Any

ISSUE: dict[str, Any] = {
    "fingerprint": "5f1c0a9d27be4c83",
    "account": "main",
    "server_id": 42,
    "server": "web1.example.org",
    "class": "version",
    "kind": "outdated",
    "severity": "medium",
    "software": "nginx",
    "canonical_name": "nginx",
    "version": "1.24.0",
    "update_to": "1.24.1",
    "location": "/usr/sbin",
    "parent": None,
    "risk": None,
    "exploits": [],
    "title": "nginx 1.24.0 is outdated",
    "description": None,
    "first_seen": "2026-11-20T08:15:00Z",
    "severity_since": "2026-11-20T08:15:00Z",
    "last_seen": "2026-11-24T09:00:00Z",
    "fixed_at": None,
    "confirmed": True,
    "waived": False,
    "waiver": None,
}

SERVER: dict[str, Any] = {
    "account": "main",
    "id": 42,
    "name": "web1.example.org",
    "verified": True,
    "issues": {"critical": 0, "high": 0, "medium": 1, "low": 0, "total": 1, "waived": 0},
    "software": {"supported": 11, "outdated": 1, "unsupported": 0, "unknown": 0},
    "exploits": 0,
    "exploits_unknown_risk": 0,
    "exploit_risk_max": 0.0,
    "scanning": False,
    "last_scan_at": "2026-11-24T04:02:11Z",
    "last_poll_at": "2026-11-24T09:00:00Z",
    "poll_success": True,
    "poll_complete": True,
    "data_age_seconds": 240.0,
    "unconfirmed_event": False,
    "labels": {"team": "web"},
    "unknown_because": [],
}

SERVERS = {"items": [SERVER], "next_cursor": None}
ISSUES = {"items": [ISSUE], "next_cursor": "eyJrIjoiaSIsInJvdyI6MTA3fQ"}
SOFTWARE: dict[str, Any] = {
    "items": [
        {
            "id": 7,
            "name": "nginx",
            "canonical_name": "nginx",
            "version": "1.24.0",
            "candidates": [],
            "state": "outdated",
            "update_to": "1.24.1",
            "parent": None,
            "location": "/usr/sbin",
            "exploits": [],
        }
    ],
    "next_cursor": None,
}

_COVERAGE = {"servers": 80, "unknown": 3, "never_polled": 1}
FLEET_SOFTWARE: dict[str, Any] = {
    "items": [
        {
            "software": "OpenSSL",
            "canonical_name": "openssl",
            "version": "1.1.1k",
            "kinds": ["exploitable", "unsupported"],
            "severity": "critical",
            "risk": 9.8,
            "risk_unknown": False,
            "exploits": ["CVE-2026-0001"],
            "update_to": ["3.5.1"],
            "servers": 40,
            "servers_waived": 2,
            "servers_state_unknown": 0,
            "servers_doubtful": 1,
        }
    ],
    "next_cursor": None,
    "coverage": _COVERAGE,
}
FLEET_EXPLOITS: dict[str, Any] = {
    "items": [
        {
            "id": "1207",
            "cve": "CVE-2026-0001",
            "title": "Remote code execution",
            "url": "https://nvd.nist.gov/vuln/detail/CVE-2026-0001",
            "risk": 9.8,
            "risk_unknown": False,
            "severity": "critical",
            "software": ["openssl"],
            "servers": 1,
            "servers_waived": 0,
            "servers_doubtful": 0,
            "on": [{"account": "main", "id": 42, "name": "web1.example.org", "waived": False, "doubtful": False}],
        }
    ],
    "next_cursor": None,
    "coverage": _COVERAGE,
}
TARGETS: list[dict[str, Any]] = [
    {
        "targets": ["web1.example.org"],
        "labels": {
            "__meta_patrolserver_account": "main",
            "__meta_patrolserver_server": "web1.example.org",
            "__meta_patrolserver_server_id": "42",
            "__meta_patrolserver_verified": "true",
            "__meta_patrolserver_severity": "medium",
            "__meta_patrolserver_label_team": "web",
        },
    }
]

OPERATION = {
    "operation": {
        "id": "9f2c51d07a3be864",
        "state": "running",
        "account": "main",
        "server_id": 42,
        "created_at": "2026-11-24T09:04:00Z",
        "finished_at": None,
        "error": None,
    }
}
OPERATION_DONE = {
    "operation": OPERATION["operation"] | {"state": "done", "finished_at": "2026-11-24T09:04:01Z"},
}

WAIVERS = {
    "items": [
        {
            "server": "*.staging.example.org",
            "software": "php",
            "exploit": None,
            "kind": "outdated",
            "max_severity": None,
            "until": "2027-01-31",
            "reason": "replaced in Q1",
            "expired": False,
            "issues": 0,
            "servers": 0,
        }
    ],
    "coverage": {"servers": 25, "unknown": 1, "never_polled": 0},
}

REFRESH_BODY = {"servers": ["web1.example.org", "db*.example.org", 42]}
_REFRESHED = {"account": "main", "server_id": 42, "server": "web1.example.org", "state": "running", "error": None}
REFRESH = {
    "refresh": {
        "id": "0c6d1f4b28e97a35",
        "state": "running",
        "created_at": "2026-11-24T09:04:00Z",
        "finished_at": None,
        "servers": [_REFRESHED],
    }
}
REFRESH_DONE = {
    "refresh": REFRESH["refresh"]
    | {"state": "done", "finished_at": "2026-11-24T09:04:01Z", "servers": [_REFRESHED | {"state": "done"}]},
}

GATE_BODY = {
    "servers": ["web1.example.org", "db*.example.org", 42],
    "policy": {
        "max_by_severity": {"high": 0, "medium": 5},
        "max_age": 21600,
        "waivers": [
            {
                "server": "*.example.org",
                "software": "nginx",
                "kind": "outdated",
                "until": "2027-01-31",
                "reason": "replaced in Q1",
            }
        ],
    },
}
_NO_ISSUES = {
    "critical": 0,
    "high": 0,
    "medium": 0,
    "low": 0,
    "total": 0,
    "waived": 1,
    "baseline": 0,
    "unfixable": 0,
    "by_kind": {"unsupported": 0, "outdated": 0, "exploitable": 0, "reported": 0},
}
GATE = {
    "verdict": "pass",
    "passed": True,
    "judged_at": "2026-11-24T09:04:00Z",
    "reasons": [],
    "reasons_not_listed": 0,
    "counts": _NO_ISSUES,
    "servers_by_verdict": {"pass": 1, "fail": 0, "unknown": 0},
    "servers": [
        {
            "account": "main",
            "id": 42,
            "name": "web1.example.org",
            "verdict": "pass",
            "data_age_seconds": 240.0,
            "scan_age_seconds": 18109.0,
            "counts": _NO_ISSUES,
            "reasons": [],
        }
    ],
    "servers_not_listed": 0,
    "violations": [],
    "issues_not_listed": 0,
    "waived": [ISSUE | {"waived": True, "waiver": {"until": "2027-01-31", "reason": "replaced in Q1"}}],
    "waived_not_listed": 0,
    "expired_waivers": [],
    "unused_waivers": [],
    "expiring_waivers": [],
    "policy": "builtin",
    "data_age_seconds": 240.0,
}

CHANGES = {
    "items": [
        {"id": "eyJrIjoiYyIsInJvdyI6MTd9", "change": "opened", "at": "2026-11-20T08:15:00Z", "issue": ISSUE},
    ],
    "next_cursor": "eyJrIjoiYyIsInJvdyI6MTd9",
}

INBOX_ITEM: dict[str, Any] = {
    "id": 5,
    "account": "main",
    "webhook_id": 3,
    "event_id": 118,
    "identifier": "webhook.new_server_issues",
    "state": "dead",
    "attempts": 1,
    "received_at": "2026-11-24T08:59:58Z",
    "updated_at": "2026-11-24T09:00:00Z",
    "next_attempt_at": None,
    "last_error": "The API's reply names no server",
}
INBOX = {"items": [INBOX_ITEM], "next_cursor": None}
INBOX_ITEM_WITH_BODY = INBOX_ITEM | {"body": '{"error":false,"data":{}}'}

STATUS = {
    "version": "1.0.0",
    "accounts": [
        {
            "name": "main",
            "up": True,
            "last_success_at": "2026-11-24T09:03:30Z",
            "servers": 25,
            "poll_interval_seconds": 900.0,
            "trouble": None,
            "credentials_refused": False,
            "webhook": True,
            "list_complete": True,
            "list_partial_because": [],
            "servers_missing": 0,
            "paused_until": None,
            "pause_reason": None,
            "proxy": None,
        }
    ],
    "replicas": [
        {
            "name": "blue",
            "host": "monitoring1",
            "pid": 4711,
            "version": "1.0.0",
            "this": True,
            "accounts": ["main"],
            "config_differs": False,
        }
    ],
    "inbox": {
        "received": 0,
        "fetching": 0,
        "retry": 0,
        "unverified": 0,
        "blocked": 0,
        "applied": 12,
        "rejected": 0,
        "expired": 0,
        "dead": 1,
    },
    "store": {"writable": True, "trouble": None},
    "troubles": ["PatrolServer lists no software for 1 server (web-03.example.org)."],
}
