# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exporter's JSON API: what the modules, the lookup and the inventory ask it."""

from __future__ import annotations

import time
from urllib.parse import quote

from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import filters
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput, Refused, Unreadable
from ansible_collections.patrolserver.monitoring.plugins.module_utils.judging import contradiction, is_glob, is_number
from ansible_collections.patrolserver.monitoring.plugins.module_utils.transport import Transport

PAGE, LARGEST_PAGE = 500, 1000
NAMES_A_REQUEST = 100
SERVER_FILTERS = {"account": "account", "server": "servers", "severity": "severity", "kind": "kind"}
ISSUE_FILTERS = {**SERVER_FILTERS, "software": "software", "waived": "waived", "state": "state"}


class Exporter:
    """A client for one exporter; ``params`` are the options of ``exporter_options``."""

    def __init__(self, params: dict) -> None:
        self.transport = Transport("exporter", "exporter_url", params)

    def check_accounts(self, names: list) -> None:
        """Refuse accounts that the exporter does not have: nothing would be known of them, and nothing found.

        :raises InvalidInput: which names those that it has.
        """
        if not names:
            return
        there = [account.get("name") for account in self.status()["accounts"]]
        missing = [name for name in names if name not in there]
        if missing:
            raise InvalidInput(unknown_accounts(missing, there))

    def unknown_of(self, selection: dict) -> list:
        """Return the names, ids and globs of a selection that no server has."""
        wanted = selection.get("servers") or []
        chosen = {"servers": wanted, "account": selection.get("account") or []}
        servers = list(self.servers(chosen)) if wanted else []
        there = {str(server["name"]).lower().rstrip(".") for server in servers} | {str(server["id"]) for server in servers}
        return [
            name
            for name in wanted
            if server_reference(name).lower() not in there
            and not (is_number(server_reference(name)) and str(int(server_reference(name))) in there)
            and not (is_glob(name) and any(self.servers({**chosen, "servers": [name]})))
        ]

    def check_named(self, selection: dict) -> None:
        """Refuse names and ids that no server has: of a mistyped one nothing is known, which looks like nothing found.

        :raises InvalidInput: which names them.
        """
        named = [name for name in selection.get("servers") or [] if not is_glob(name)]
        missing = self.unknown_of({**selection, "servers": named})
        if missing:
            raise InvalidInput(unknown_servers(missing))

    def servers(self, selection: dict, page: int = PAGE):
        """Yield the servers that the selection names, each once."""
        yield from self._in_chunks("/api/v1/servers", selection, SERVER_FILTERS, page, ("account", "id"))

    def issues(self, selection: dict, page: int = PAGE):
        """Yield the issues that the selection names, each once."""
        yield from self._in_chunks("/api/v1/issues", selection, ISSUE_FILTERS, page, ("fingerprint",))

    def gate(self, servers: list, account: str | None, policy: dict, detail: str | None = None) -> dict:
        """Ask for the verdict on all servers in one request."""
        body = {"servers": servers, "policy": policy}
        if account is not None:
            body["account"] = account
        if detail is not None:
            body["detail"] = detail
        asked_at = time.time()
        reply = self.transport.post_json("/api/v1/gate", body, read=True)
        if reply.status != 200:
            raise Unreadable("exporter: its verdict has the HTTP status {0} instead of 200".format(reply.status))
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            told = "exporter: its verdict comes as {0}, and not as JSON; something else may answer in its place"
            raise Unreadable(told.format(kind or "nothing that it names"))
        wrong = contradiction(reply.body if isinstance(reply.body, dict) else {}, body, asked_at)
        if wrong is not None:
            raise Unreadable("exporter: {0}".format(wrong))
        return reply.body

    def refresh_many(self, selection: dict) -> dict | None:
        """Ask the exporter, in one request, to poll all these servers now; returns the refresh to follow.

        Nothing if it is an older exporter, which takes one server at a time only.

        :raises InvalidInput: for a server or an account that it does not have; none was polled then.
        """
        body = {"servers": [server_reference(name) for name in selection["servers"]]}
        for account in selection.get("account") or []:
            body["account"] = account
        try:
            reply = self.transport.post_json("/api/v1/refresh", body)
        except Refused as error:
            if error.status == 404 and isinstance(error.problem.get("unknown"), list):
                raise InvalidInput(unknown_servers(error.problem["unknown"])) from None
            if error.status == 404 and isinstance(error.problem.get("accounts"), list):
                raise InvalidInput(unknown_accounts(selection["account"], error.problem["accounts"])) from None
            if error.status in (404, 405):
                return None
            raise
        return _refresh_of(reply.body)

    def refresh_of_many(self, refresh_id: str) -> dict:
        """Return how a refresh of many servers stands."""
        return _refresh_of(self.transport.get("/api/v1/refresh/{0}".format(quote(str(refresh_id), safe=""))).body)

    def waivers(self) -> dict | None:
        """Return the configuration's waivers, with what each covers; nothing if it is an older exporter, which does not tell."""
        try:
            body = self.transport.get("/api/v1/waivers").body
        except Refused as error:
            if error.status == 404:
                return None
            raise
        for waiver in _member(body, "items", list):
            if not isinstance(waiver, dict) or not isinstance(waiver.get("issues"), int):
                raise Unreadable("exporter: a waiver of its list does not tell how many issues it covers")
        return body

    def refresh(self, server: dict) -> dict:
        """Ask the exporter to poll the server now; returns the operation to follow."""
        path = "/api/v1/servers/{0}/refresh".format(quote(str(server["id"]), safe=""))
        reply = self.transport.post_json(path, {}, query=[("account", server["account"])])
        return _member(reply.body, "operation")

    def operation(self, operation_id: str) -> dict:
        """Return how an operation stands."""
        path = "/api/v1/operations/{0}".format(quote(str(operation_id), safe=""))
        return _member(self.transport.get(path).body, "operation")

    def status(self) -> dict:
        """Return the exporter's own state: version, accounts with their last success, the inbox."""
        body = self.transport.get("/api/v1/status").body
        if not isinstance(body, dict) or not isinstance(body.get("accounts"), list):
            raise Unreadable("exporter: its answer holds no accounts")
        return body

    def _in_chunks(self, path: str, selection: dict, names: dict, page: int, identity: tuple):
        """A request line has its limits, so that many names are asked for in several requests."""
        if not 1 <= page <= LARGEST_PAGE:
            raise InvalidInput("page_size: it has to be from 1 to {0}, not {1}".format(LARGEST_PAGE, page))
        wanted = [server_reference(name) for name in selection.get("servers") or []]
        chunks = [wanted[start : start + NAMES_A_REQUEST] for start in range(0, len(wanted), NAMES_A_REQUEST)] or [[]]
        seen = set()
        for chunk in chunks:
            for item in self._pages(path, filters({**selection, "servers": chunk}, names), page):
                key = tuple(item.get(name) for name in identity)
                if key not in seen:
                    seen.add(key)
                    yield item

    def _pages(self, path: str, pairs: list, page: int):
        cursor, known = None, set()
        while True:
            query = [*pairs, ("limit", str(page))] + ([("cursor", cursor)] if cursor else [])
            body = self.transport.get(path, query).body
            items = _member(body, "items", list)
            for item in items:
                if not isinstance(item, dict):
                    raise Unreadable("exporter: an item of its list is no object")
                yield item
            cursor = body.get("next_cursor")
            if not cursor:
                return
            if cursor in known:
                raise Unreadable("exporter: its pages go round in a circle")
            known.add(cursor)


def server_reference(text: str) -> str:
    """Return an id, a name or a glob as the exporter takes it; it looks for digits among ids and among names."""
    written = str(text).strip()
    # A dot at the end means the same host, and no name at PatrolServer has one.
    written = written.rstrip(".") or written
    if not written:
        raise InvalidInput("servers: a server's name is empty")
    return written


def unknown_servers(names: list) -> str:
    """Return the sentence on servers that the exporter does not have."""
    return "servers: the exporter has no server {0}; check the name".format(", ".join(map(repr, map(str, names))))


def unknown_accounts(names: list, there: list) -> str:
    """Return the sentence on accounts that the exporter does not have, with those that it has."""
    told = "account: the exporter has no account {0}; it has {1}"
    return told.format(", ".join(map(repr, names)), ", ".join(map(str, there)) or "none")


def _refresh_of(body: object) -> dict:
    refresh = _member(body, "refresh")
    servers = refresh.get("servers")
    if not isinstance(refresh.get("id"), str) or not isinstance(servers, list) or not servers:
        raise Unreadable("exporter: its answer to a refresh lacks the servers")
    if not all(isinstance(one, dict) and isinstance(one.get("state"), str) for one in servers):
        raise Unreadable("exporter: its answer to a refresh does not tell how each server stands")
    return refresh


def _member(body: object, name: str, kind: type = dict):
    if not isinstance(body, dict) or not isinstance(body.get(name), kind):
        raise Unreadable("exporter: its answer lacks {0!r}".format(name))
    return body[name]
