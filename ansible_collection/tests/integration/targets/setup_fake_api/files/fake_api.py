# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small stand-in for the exporter's JSON API and for PatrolServer's, on one loopback port, for the collection's own tests.

What it shall answer next is told to it at ``/control``; what it was asked stands at ``/requests``, with the query as it arrived.
"""

from __future__ import annotations

import fnmatch
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

LIFETIME = 900
TOKEN = "exporter-token-9f3/+ c"
KEY = "canary-key-1a2/b+c"
SECRET = "canary-secret-3d4/e+f"
NOW = "2026-11-24T07:00:00Z"
EXPLOIT = {"id": "EDB-1", "cve": "CVE-2026-0001", "title": None, "risk": 9.1, "first_seen": NOW, "waived": False, "waiver": None}
SEVERITIES = ["critical", "high", "medium", "low"]
KINDS = ["unsupported", "outdated", "exploitable", "reported"]
POLICY = {
    "policy", "max_by_severity", "max_by_kind", "max_total", "max_risk", "max_age", "max_scan_age", "max_unknown_software",
    "allow_empty", "grace", "fixable_only", "waivers", "baseline",
}  # fmt: skip


def issue(fingerprint, server_id, severity, kind, software, **more):
    """Return an issue as the exporter writes it."""
    return {
        "fingerprint": fingerprint,
        "account": "main",
        "server_id": server_id,
        "server": "web{0}.example.org".format(server_id),
        "class": "exploit" if kind == "exploitable" else "version",
        "kind": kind,
        "severity": severity,
        "software": software,
        "canonical_name": software.lower(),
        "version": "1.0",
        "update_to": "1.1" if kind == "outdated" else None,
        "location": "/",
        "parent": None,
        "risk": 9.1 if kind == "exploitable" else None,
        "exploits": [EXPLOIT] if kind == "exploitable" else [],
        "title": None,
        "description": None,
        "first_seen": NOW,
        "severity_since": NOW,
        "last_seen": NOW,
        "fixed_at": None,
        "confirmed": True,
        "waived": False,
        "waiver": None,
        **more,
    }


def server(number, **more):
    """Return a server as the exporter writes it."""
    return {
        "account": "main",
        "id": number,
        "name": "web{0}.example.org".format(number),
        "verified": True,
        "issues": {"critical": 0, "high": 1, "medium": 1, "low": 0, "total": 2, "waived": 0},
        "software": {"supported": 3, "outdated": 1, "unsupported": 1, "unknown": 0},
        "exploits": 0,
        "exploits_unknown_risk": 0,
        "exploit_risk_max": 0,
        "scanning": False,
        "last_scan_at": NOW,
        "last_poll_at": NOW,
        "poll_success": True,
        "poll_complete": True,
        "data_age_seconds": 60.0,
        "unconfirmed_event": False,
        "labels": {},
        "unknown_because": [],
        **more,
    }


def account(name, **more):
    """Return an account as the exporter's status tells it."""
    return {
        "name": name,
        "up": True,
        "last_success_at": NOW,
        "servers": 3,
        "poll_interval_seconds": 900.0,
        "trouble": None,
        "credentials_refused": False,
        "webhook": True,
        "list_complete": True,
        "list_partial_because": [],
        "servers_missing": 0,
        "paused_until": None,
        "pause_reason": None,
        **more,
    }


def status():
    """Return the status of the exporter."""
    store = {"writable": True, "trouble": None}
    return {"version": "0", "accounts": STATE["accounts"], "inbox": {}, "store": store, "troubles": []}


def fresh():
    """Return the state that a reset brings back."""
    fleet = [server(1, labels={"team": "web-shop"}), server(2), server(3)]
    issues = [
        issue("f{0}{1}".format(number, letter), number, *rest)
        for number in (1, 2, 3)
        for letter, rest in (("a", ("high", "unsupported", "PHP")), ("b", ("medium", "outdated", "Nginx")))
    ]
    return {
        "fleet": fleet,
        "issues": issues,
        "accounts": [account("main")],
        "verdict": None,
        "policies": ["builtin", "production"],
        "refreshes": {},
        # An exporter of an earlier version has neither.
        "refreshes_many": True,
        "refresh_states": ["running", "done"],
        "configured_waivers": [],
        "changes": [],
        "api_servers": [{"id": "7", "name": "web7.example.org", "verified": "no"}],
        "buckets": {},
        "scanning": [],
        "fail": [],
        "requests": [],
    }


STATE = fresh()
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """Both APIs."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        """Answer a GET."""
        self.answer("GET")

    def do_POST(self):
        """Answer a POST."""
        self.answer("POST")

    def answer(self, method):
        """Find the answer, under a lock, and send it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        with LOCK:
            status, headers, document = self.find(method, parts, query, body)
        raw = document if isinstance(document, bytes) else json.dumps(document).replace("/", "\\/").encode()
        self.send_response(status)
        # One that promises more than comes has nothing behind it.
        self.close_connection = "Content-Length" in headers
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def find(self, method, parts, query, body):
        """Return status, headers and document."""
        path = parts.path
        if path == "/control":
            change = json.loads(body)
            if change.pop("reset", False):
                STATE.clear()
                STATE.update(fresh())
            STATE.update(change)
            return 200, {}, {}
        if path == "/requests":
            return 200, {}, STATE["requests"]
        STATE["requests"].append(
            {
                "method": method,
                "path": path,
                "query": parts.query,
                "body": body.decode("utf-8", "replace"),
                "proxied": bool(parts.netloc),
            }
        )
        if STATE["fail"]:
            fault = STATE["fail"].pop(0)
            if fault is not None:
                return fault.get("status", 200), fault.get("headers", {}), fault.get("body", "").encode()
        if path.startswith("/api/v1/"):
            return self.exporter(method, path[len("/api/v1/") :], query, body)
        return self.patrolserver(method, path.strip("/").split("/"), query, body)

    def exporter(self, method, path, query, body):
        """Answer as the exporter does."""
        if self.headers.get("Authorization") != "Bearer " + TOKEN:
            return problem(401, "The token is not known.")
        if path == "status":
            return 200, {}, status()
        if path == "servers":
            return page([item for item in STATE["fleet"] if matches(item, "name", "id", query)], query)
        if path == "issues":
            return page([item for item in STATE["issues"] if issue_matches(item, query)], query)
        if path == "gate" and method == "POST":
            return judge(json.loads(body))
        if path == "waivers" and STATE["configured_waivers"] is not None:
            coverage = {"servers": len(STATE["fleet"]), "unknown": 0, "never_polled": 0}
            return 200, {}, {"items": STATE["configured_waivers"], "coverage": coverage}
        if path == "refresh" and method == "POST" and STATE["refreshes_many"]:
            return refresh_many(json.loads(body))
        if path.startswith("refresh/"):
            states = STATE["refresh_states"]
            state = states.pop(0) if len(states) > 1 else states[0]
            return 200, {}, {"refresh": refresh(STATE["refreshed"], state)}
        if path.startswith("servers/") and path.endswith("/refresh"):
            number = path.split("/")[1]
            STATE["refreshes"][number] = STATE["refreshes"].get(number, []) or ["pending", "done"]
            return 202, {"Location": "/api/v1/operations/" + number}, operation(number, "pending")
        if path.startswith("operations/"):
            number = path.split("/")[1]
            states = STATE["refreshes"][number]
            return 200, {}, operation(number, states.pop(0) if len(states) > 1 else states[0])
        return problem(404, "There is no such path.")

    def patrolserver(self, method, path, query, body):
        """Answer as PatrolServer does."""
        if query.get("key") != [KEY] or query.get("secret") != [SECRET]:
            return 200, {}, {"error": {"code": 3, "message": "Wrong credentials " + self.path}}
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        servers = STATE["api_servers"]
        if path == ["request_verification_token"]:
            return data({"token": "proof-" + query["domain"][0]})
        if path == ["servers"] and method == "GET":
            return data(servers)
        if path == ["servers"]:
            new = {"id": str(100 + len(servers)), "name": form["domain"], "verified": 0}
            servers.append(new)
            return data(new)
        found = next((item for item in servers if item["id"] == path[1]), None)
        if path[0] != "servers" or found is None:
            return 404, {}, {"error": "Server does not exist"}
        rest = path[2:]
        if not rest:
            return data(found)
        if rest == ["delete"]:
            servers.remove(found)
            return data(None)
        if rest == ["verify"]:
            if form["token"] != "proof-" + found["name"]:
                return 200, {}, {"error": {"code": 17, "message": "Token does not match"}}
            found["verified"] = "yes"
            return data(True)
        if rest == ["scan"]:
            return data(True)
        if rest == ["isScanning"]:
            states = STATE["scanning"]
            return data((states.pop(0) if len(states) > 1 else states[0]) if states else False)
        if rest[0] == "software_bucket":
            return self.bucket(method, rest[1:], form, query)
        return 404, {}, {"error": "Not found"}

    def bucket(self, method, rest, form, query):
        """Keep software lists, and give them back as the scanner writes them: what repeats is left out."""
        key = unquote(rest[0])
        if rest[1:] == ["delete"]:
            STATE["buckets"].pop(key, None)
            return data(None)
        if method == "POST":
            STATE["buckets"][key] = {
                "software": json.loads(form["software"]),
                "expire": form["expire"],
                "silent": query.get("scope") == ["silent"],
            }
            return data(True)
        if key not in STATE["buckets"]:
            return 200, {}, {"error": {"code": 4, "message": "Bucket does not exist"}}
        lines, before = [], {}
        for line in STATE["buckets"][key]["software"]:
            lines.append({name: value for name, value in line.items() if before.get(name) != value})
            before = line
        return data({"software": lines, "expire": STATE["buckets"][key]["expire"]})


def data(value):
    """Return PatrolServer's envelope."""
    return 200, {}, {"data": value}


def problem(status, detail, **more):
    """Return a problem document."""
    return status, {}, {"type": "about:blank", "title": "trouble", "status": status, "detail": detail, **more}


def refresh_many(body):
    """Start a refresh of many servers; what is seen of it then stands in ``refresh_states``, the last one for ever."""
    fleet, wanted = STATE["fleet"], body["servers"]
    found = {glob: [one for one in fleet if is_called(one["name"], one["id"], str(glob))] for glob in wanted}
    unknown = [str(glob) for glob, servers in found.items() if not servers]
    if unknown:
        return problem(404, "There is no server " + ", ".join(map(repr, unknown)), unknown=unknown)
    STATE["refreshed"] = list({one["id"]: one for some in found.values() for one in some}.values())
    return 202, {"Location": "/api/v1/refresh/1"}, {"refresh": refresh(STATE["refreshed"], "running")}


def refresh(servers, state):
    """Return a refresh of many servers."""
    how = {"state": state, "error": "PatrolServer answered 503" if state == "failed" else None}
    told = [{"account": one["account"], "server_id": one["id"], "server": one["name"], **how} for one in servers]
    at = {"created_at": NOW, "finished_at": NOW if state in ("done", "failed") else None}
    return {"id": "1", "state": state, "servers": told, **at}


def operation(number, state):
    """Return an operation."""
    error = "PatrolServer answered 503" if state == "failed" else None
    at = {"created_at": NOW, "finished_at": NOW if state in ("done", "failed") else None}
    return {"operation": {"id": number, "state": state, "server_id": int(number), "account": "main", "error": error, **at}}


def matches(item, name, number, query):
    """Tell whether the filters that servers and issues share let an item through."""
    wanted = query.get("server")
    if wanted and not any(is_called(item[name], item[number], glob) for glob in wanted):
        return False
    return item["account"] in query.get("account", [item["account"]])


def is_called(name, number, asked):
    """Tell whether a server is meant, by its id or by a glob on its name, in which capitals are like small letters."""
    return str(number) == asked or fnmatch.fnmatchcase(name.lower(), asked.lower())


def issue_matches(item, query):
    """Tell whether an issue is asked for."""
    state = query.get("state", ["open"])[0]
    return (
        matches(item, "server", "server_id", query)
        and item["severity"] in query.get("severity", [item["severity"]])
        and item["kind"] in query.get("kind", [item["kind"]])
        and any(fnmatch.fnmatch(item["canonical_name"], glob) for glob in query.get("software", ["*"]))
        and str(item["waived"]).lower() in query.get("waived", ["true", "false"])
        and (state == "all" or (state == "open") == (item["fixed_at"] is None))
    )


def page(items, query):
    """Return a page; the cursor is the number of the next item."""
    start, limit = int(query.get("cursor", ["0"])[0]), int(query.get("limit", ["100"])[0])
    after = start + limit
    return 200, {}, {"items": items[start:after], "next_cursor": str(after) if after < len(items) else None}


def judge(question):
    """Return a verdict in the exporter's form; it knows limits by severity, baselines and unknown servers, no more."""
    policy = question["policy"]
    unknown = sorted(set(policy) - POLICY)
    if unknown:
        return problem(400, "Wrong at policy: Object contains unknown field `{0}`.".format(unknown[0]), at="policy")
    name = policy.get("policy") or "builtin"
    if name not in STATE["policies"]:
        return problem(400, "There is no policy {0!r} in gate.policies.".format(name), at="policy.policy")
    if STATE["verdict"]:
        return 200, {}, STATE["verdict"]
    names = [str(name) for name in question["servers"]]
    unknown_servers, chosen = [], []
    for asked in names:
        found = [item for item in STATE["fleet"] if is_called(item["name"], item["id"], asked)]
        unknown_servers += [] if found else [asked]
        chosen += [item for item in found if item not in chosen]
    accepted = {one["fingerprint"]: one for one in policy.get("baseline", [])}
    open_issues = [
        item
        for item in STATE["issues"]
        if item["server_id"] in [one["id"] for one in chosen] and item["fixed_at"] is None and not item["waived"]
    ]
    counted = [item for item in open_issues if not covers(accepted.get(item["fingerprint"]), item)]
    reasons, violations = [], []
    for severity, allowed in {"critical": 0, **policy.get("max_by_severity", {})}.items():
        over = [item for item in counted if SEVERITIES.index(item["severity"]) <= SEVERITIES.index(severity)]
        if len(over) > allowed:
            limit = "max_by_severity." + severity
            violations.append({"limit": limit, "allowed": allowed, "found": len(over), "issues": over})
            text = "Open issues that are {0} or worse: {1}, and {2} allows {3}; fix them.".format(severity, len(over), limit, allowed)
            reasons.append(reason("limit_exceeded", text))
    broken = {issue["fingerprint"] for one in violations for issue in one["issues"]}
    servers = []
    for one in chosen:
        own = [item for item in counted if item["server_id"] == one["id"]]
        covered = sum(item["server_id"] == one["id"] for item in open_issues) - len(own)
        verdict = "fail" if any(item["fingerprint"] in broken for item in own) else "pass"
        servers.append({"account": "main", "id": one["id"], "name": one["name"], "verdict": verdict, "data_age_seconds": 60.0,
                        "scan_age_seconds": 60.0, "counts": counts_of(own, covered), "reasons": []})
    for asked in unknown_servers:
        why = reason("unknown_server", "{0}: no such server is watched; check the name.".format(asked), server=asked)
        reasons.append(why)
        servers.append({"account": None, "id": None, "name": asked, "verdict": "unknown", "data_age_seconds": None,
                        "scan_age_seconds": None, "counts": None, "reasons": [why]})
    if not names:
        reasons.append(reason("empty_selection", "No server was asked for; name at least one server."))
    verdict = "fail" if violations else "unknown" if reasons else "pass"
    by_verdict = {name: sum(one["verdict"] == name for one in servers) for name in ("pass", "fail", "unknown")}
    problems = question.get("detail") == "problems"
    listed = [one for one in servers if one["verdict"] != "pass"] if problems else servers
    return 200, {}, {
        "verdict": verdict,
        "passed": verdict == "pass",
        "judged_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "policy": name,
        "reasons": reasons,
        "reasons_not_listed": 0,
        "counts": counts_of(counted, len(open_issues) - len(counted)) if chosen else None,
        "servers_by_verdict": by_verdict,
        "servers": listed,
        "servers_not_listed": len(servers) - len(listed),
        "violations": violations,
        "issues_not_listed": 0,
        "waived": [],
        "waived_not_listed": 0,
        "expired_waivers": [waiver for waiver in policy.get("waivers", []) if waiver["until"] < "2026-11-24"],
        "unused_waivers": [],
        "expiring_waivers": [],
        "data_age_seconds": 60.0 if chosen else None,
    }  # fmt: skip


def covers(accepted, item):
    """Tell whether a baseline's entry covers an issue: never what has become worse."""
    if accepted is None or accepted["kind"] != item["kind"]:
        return False
    return SEVERITIES.index(item["severity"]) >= SEVERITIES.index(accepted["severity"])


def reason(code, message, **more):
    """Return a reason in the exporter's form."""
    return {"code": code, "message": message, "blocking": True, "account": None, "server_id": None, "server": None, **more}


def counts_of(issues, covered):
    """Return the counts of issues, beside those that a baseline covers."""
    counts = {severity: sum(item["severity"] == severity for item in issues) for severity in SEVERITIES}
    by_kind = {kind: sum(item["kind"] == kind for item in issues) for kind in KINDS}
    return {**counts, "total": len(issues), "waived": 0, "baseline": covered, "unfixable": 0, "by_kind": by_kind}


def serve():
    """Return a running server on a free port."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


def main():
    """Serve, write the port to the given file, and end when that file is gone."""
    path = sys.argv[1]
    port = serve().server_address[1]
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(str(port))
    os.replace(path + ".new", path)
    ends = time.monotonic() + LIFETIME
    while os.path.exists(path) and time.monotonic() < ends:
        time.sleep(0.2)


if __name__ == "__main__":
    main()
