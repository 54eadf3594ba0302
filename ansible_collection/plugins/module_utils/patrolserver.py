# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PatrolServer's own API, as far as it is known: lenient where its forms are, strict in what comes out."""

from __future__ import annotations

import json

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    InvalidInput,
    PatrolServerError,
    Refused,
    Unreadable,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.transport import (
    Reply,
    Transport,
    error_text,
    one_line,
)

TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off", "")
# What an envelope says of a list, in names without case and signs: that there is more, how many there are, and on how many pages.
MORE = ("next", "nextpage", "nextpageurl", "nextcursor", "hasmore", "more", "truncated", "partial", "incomplete")
TOTALS = ("total", "totalcount", "count")
PAGES = ("lastpage", "totalpages", "pagecount", "pages")


class Api:
    """A client for one account; ``params`` are the options of ``api_options``."""

    def __init__(self, params: dict) -> None:
        credentials = {"key": "api_key", "secret": "api_secret"}
        self.transport = Transport("PatrolServer", "api_url", params, hidden_query=credentials)

    def servers(self) -> list:
        """Return the account's servers."""
        return self._servers(self.transport.get("/servers"))

    def find(self, reference: str) -> dict | None:
        """Return the server with that id or name, or nothing.

        :raises InvalidInput: if the name means several.
        :raises Unreadable: if it may be on a page that was not read: it does not count as missing then.
        """
        wanted = host_name(reference)
        reply = self.transport.get("/servers")
        servers = self._servers(reply)
        matches = [server for server in servers if server["name"].strip().rstrip(".").lower() == wanted]
        if not matches:
            matches = [server for server in servers if str(server["id"]) == wanted]
        if len(matches) > 1:
            ids = ", ".join(str(server["id"]) for server in matches)
            raise InvalidInput("several servers are called {0!r}: give one of the ids {1}".format(wanted, ids))
        if not matches and _is_part(reply, len(servers)):
            raise Unreadable("PatrolServer: its list of servers is only a part, so nobody knows whether {0!r} is one of them".format(wanted))
        return matches[0] if matches else None

    def server(self, server_id: int) -> dict:
        """Return one server."""
        return _server(self._get("/servers/{0}".format(server_id)))

    def create(self, domain: str) -> dict:
        """Add a server."""
        return _server(self._post("/servers", [("domain", domain)]))

    def delete(self, server_id: int) -> None:
        """Remove a server."""
        self._post("/servers/{0}/delete".format(server_id), [])

    def verification_token(self, domain: str) -> str:
        """Return the token with which the ownership of a server is proved."""
        data = self._get("/request_verification_token", [("domain", domain)])
        token = data.get("token") if isinstance(data, dict) else data
        if not isinstance(token, str) or not token:
            raise Unreadable("PatrolServer: its answer holds no verification token")
        return token

    def verify(self, server_id: int, token: str) -> None:
        """Prove the ownership of a server."""
        self._post("/servers/{0}/verify".format(server_id), [("token", token)])

    def start_scan(self, server_id: int) -> None:
        """Start a scan."""
        self._post("/servers/{0}/scan".format(server_id), [])

    def is_scanning(self, server_id: int) -> bool:
        """Return whether a scan runs now.

        :raises Unreadable: for an answer that is neither yes nor no; it never counts as no.
        """
        answer = self._get("/servers/{0}/isScanning".format(server_id))
        if answer is None or not str(answer).strip():
            raise Unreadable("PatrolServer: it did not say whether a scan runs")
        return boolean(answer)

    def bucket(self, server_id: int, key: str) -> list | None:
        """Return the software of a bucket as it was pushed, or nothing if there is no such bucket."""
        try:
            data = self._get(_bucket_path(server_id, key))
        except Refused as error:
            if error.status == 404 or "does not exist" in str(error):
                return None
            raise
        return _bucket_lines(data)

    def push_bucket(self, server_id: int, key: str, lines: list, expire: int, silent: bool) -> None:
        """Replace the software of a bucket; it lives for ``expire`` seconds."""
        fields = [("software", json.dumps(lines)), ("expire", str(expire))]
        self._post(_bucket_path(server_id, key), fields, [("scope", "silent")] if silent else [])

    def delete_bucket(self, server_id: int, key: str) -> None:
        """Remove a bucket."""
        self._post(_bucket_path(server_id, key) + "/delete", [])

    def _servers(self, reply: Reply) -> list:
        return [_server(item) for item in _items(self._data(reply.body))]

    def _get(self, path: str, query: list | None = None):
        return self._data(self.transport.get(path, query).body)

    def _post(self, path: str, fields: list, query: list | None = None):
        return self._data(self.transport.post_form(path, fields, query).body)

    def _data(self, body: object):
        """Unwrap ``data``; an ``error`` is one whatever the status was. Its text may repeat the URL with its secrets."""
        if isinstance(body, dict):
            for name in ("error", "errors"):
                if body.get(name) not in (None, False, "", [], {}):
                    raise Refused("PatrolServer: " + one_line(self.transport.redact(error_text(body[name]))), 200, body)
            if str(body.get("success", True)).strip().lower() in ("0", "false", "no"):
                raise Refused("PatrolServer: it says that the call failed", 200, body)
            if "data" in body:
                return body["data"]
        return body


def _is_part(reply: Reply, count: int) -> bool:
    """Return whether a list of so many says that there are more; how it would say so is not known."""
    if reply.status == 206 or "next" in reply.headers.get("link", "").lower():
        return True
    envelope = reply.body if isinstance(reply.body, dict) and "data" in reply.body else {}
    return _tells_more({name: value for name, value in envelope.items() if name != "data"}, count, 3)


def _tells_more(envelope: dict, count: int, depth: int) -> bool:
    for key, value in envelope.items():
        name = "".join(filter(str.isalpha, key)).lower()
        number = int(value) if isinstance(value, (int, str)) and str(value).strip().isdecimal() else 0
        if name in MORE:
            is_said = value is not None and str(value).strip().lower() not in FALSE
            told = bool(value) if isinstance(value, (dict, list)) else is_said
        else:
            told = (name in TOTALS and number > count) or (name in PAGES and number > 1)
            told = told or (isinstance(value, dict) and depth > 0 and _tells_more(value, count, depth - 1))
        if told:
            return True
    return False


def boolean(value: object) -> bool:
    """Return what a boolean means that may be written as ``true``, ``1``, ``"yes"`` and the like."""
    if isinstance(value, bool):
        return value
    written = str(value).strip().lower()
    if written in TRUE:
        return True
    if written in FALSE:
        return False
    raise Unreadable("PatrolServer: {0!r} is neither yes nor no".format(written[:40]))


def host_name(name: str) -> str:
    """Return a host's name as it is compared: case, and a dot at the end, make no difference.

    :raises InvalidInput: if nothing is left.
    """
    plain = name.strip().rstrip(".").lower()
    if not plain:
        raise InvalidInput("a server's name is empty")
    return plain


def _items(data: object) -> list:
    if isinstance(data, dict):
        # PHP writes a list with gaps as an object.
        data = list(data.values())
    if not isinstance(data, list):
        raise Unreadable("PatrolServer: its answer is no list of servers")
    return data


def _server(item: object) -> dict:
    if isinstance(item, dict) and isinstance(item.get("server"), dict):
        item = item["server"]
    try:
        server_id = int(str(item["id"]))
    except (KeyError, TypeError, ValueError):
        raise Unreadable("PatrolServer: a server in its answer has no id") from None
    name = item.get("name") or item.get("domain")
    verified = item.get("verified")
    return {
        "id": server_id,
        "name": str(name) if name not in (None, "") else "",
        "verified": None if verified is None else boolean(verified),
    }


def _bucket_path(server_id: int, key: str) -> str:
    return "/servers/{0}/software_bucket/{1}".format(server_id, key)


def _bucket_lines(data: object) -> list:
    """Return lines with all four fields: one that is left out repeats the line before."""
    if isinstance(data, dict):
        data = data.get("software", data.get("bucket"))
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except ValueError:
            data = None
    if data is None:
        raise Unreadable("PatrolServer: the bucket in its answer holds no software")
    lines, before = [], {"n": "", "v": "", "p": "", "l": ""}
    for item in _items(data):
        if not isinstance(item, dict):
            raise PatrolServerError("PatrolServer: a line of the bucket is no object")
        line = {
            short: str(item.get(short, item.get(full, before[short])) or "")
            for short, full in (("n", "name"), ("v", "version"), ("p", "parent"), ("l", "location"))
        }
        lines.append(line)
        before = line
    return lines
