# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issues as events, from the exporter's change feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import yaml

# ansible-rulebook loads this file by its path and knows no collections; what is shared with modules stands beside it. Where the
# package "ansible" is installed, ansible_collections is a package of its own, which has to be told where this collection is.
COLLECTIONS = Path(__file__).absolute().parents[6]
sys.path.append(str(COLLECTIONS.parent))

import ansible_collections  # noqa: E402

if str(COLLECTIONS) not in ansible_collections.__path__:
    ansible_collections.__path__.append(str(COLLECTIONS))

from ansible_collections.patrolserver.monitoring.plugins.doc_fragments import exporter, transport  # noqa: E402
from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import EXPORTER_VARIABLES  # noqa: E402
from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import Redactor, secrets_of  # noqa: E402
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils import event_options  # noqa: E402
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.event_engine import (  # noqa: E402
    CursorFile,
    CursorUnreadable,
    Engine,
    NotTaken,
)
from ansible_collections.patrolserver.monitoring.plugins.plugin_utils.event_hosts import (  # noqa: E402
    Inventory,
    inventory_of_command_line,
)

DOCUMENTATION = r"""
---
short_description: Issues that open, become worse, are fixed or waived, as the exporter learns of them
description:
  - Follows the exporter's change feed by long poll. Each change is an event.
  - An event has C(change), C(at), C(id), C(exporter_url) and C(issue), which is the issue after the change as M(patrolserver.monitoring.issues_info)
    returns it, with its C(exploits) and C(severity_since). See O(limit_hosts) for C(meta.hosts).
  - Where a text of an event would begin a template, like two opening braces, a blank is put between its two characters. A playbook that gets the
    event as extra variables would run what a server's or software's name says.
  - C(worsened) means that an open issue got a higher severity, or one more exploit that counts; C(eased) means that it got a lower severity.
    Who reacts to C(opened) has to react to C(worsened), too. A known issue of medium severity that becomes critical does not open again.
  - With O(cursor_file), it goes on where it was after a restart of the rulebook, so that nothing is missed; an event may then come twice. The cursor
    is kept only for what the rule engine took. See O(feedback).
  - An exporter that is down, restarts or refuses is no reason to end. The source waits, longer each time, and goes on at its cursor.
  - A webhook's issue is C(reported), with severity C(high), until a poll has looked at it; only then it may turn out to be critical. Such an issue
    is held back until it is confirmed, and comes once, as it is then. That a poll made it worse or better is no event of its own then.
    See O(confirm_timeout).
  - If the exporter no longer keeps the changes after the cursor, it goes on with the oldest one that is kept, and says so with an event
    whose C(change) is C(gap).
  - An option that is unknown or has a wrong value ends the rulebook at its start, with an error that names it.
  - What is not set of the connection is taken from the environment, under the names that modules and plugins have for it. These are
    C(PATROLSERVER_EXPORTER_) and the option's name in capitals, like E(PATROLSERVER_EXPORTER_TOKEN), and E(PATROLSERVER_EXPORTER_URL).
  - The options of the connection are those of the modules. C(timeout) is the seconds to wait for an answer beyond O(wait), and C(retries) is taken so
    that a connection can be written once for all; this source tries again for ever.
extends_documentation_fragment:
  - patrolserver.monitoring.exporter
  - patrolserver.monitoring.transport
options:
  start:
    description: Where to start without a saved cursor, V(latest) for what is new from now on, V(oldest) for all that is kept, or a cursor.
    type: str
    default: latest
  cursor_file:
    description: A file that keeps the cursor. Each activation needs its own. Its folder has to be there and writable.
    type: path
  feedback:
    description:
      - Whether the rule engine acknowledges each event, so that the cursor is kept for what it has in its own keeping. Takes the engine's persistence
        (C(--persistence-id)), and a name for the source that no other one has.
      - Without it, an event counts as taken once the engine has fetched it from the queue, which is when its rules are matched.
    type: bool
    default: false
  limit_hosts:
    description:
      - Whether events carry C(meta.hosts), to which ansible-rulebook limits the playbook that an event starts. It is the server's name as
        PatrolServer has it, and where that is no plain name a pattern that can only match a host of exactly this name.
      - Ansible would take the name of a group for the group. So O(inventory) is looked up, and an event of a server that is called like a group, and
        not like a host, is limited to no host at all.
      - Turn it off if the inventory has other names, and let the playbook look for the host itself, as C(patrolserver.monitoring.remediate) does.
    type: bool
    default: true
  inventory:
    description:
      - The inventory that playbooks get, for O(limit_hosts); read by C(ansible-inventory), once a minute at most. If unset, the one that
        ansible-rulebook was started with (C(--inventory)).
      - Where there is none, or it cannot be read, an event of a server whose name could be a group's, like V(web), is limited to no host.
    type: path
  change:
    description:
      - The changes that make events.
      - The end of a waiver is V(unwaived), also where it makes an issue more severe.
    type: list
    elements: str
    choices: [opened, fixed, reopened, worsened, eased, waived, unwaived]
    default: [opened, reopened, worsened]
  severity:
    description: The severities that make events, as they are after the change. If unset or empty, all.
    type: list
    elements: str
    choices: [critical, high, medium, low]
  kind:
    description: The kinds of issues that make events. If unset or empty, all.
    type: list
    elements: str
    choices: [unsupported, outdated, exploitable, reported]
  confirm_timeout:
    description: Seconds to hold back an issue that no poll has confirmed yet; after that it comes as it is. V(0) holds nothing back.
    type: float
    default: 900
    minimum: 0
    maximum: 2592000
  wait:
    description: Seconds that one question may wait for a change. More than 60 are 60.
    type: int
    default: 30
    minimum: 0
    maximum: 86400
  limit:
    description: How many changes to ask for at once.
    type: int
    default: 100
    minimum: 1
    maximum: 1000
  max_backoff:
    description: The longest pause after a failure, in seconds.
    type: float
    default: 60
    minimum: 0.01
    maximum: 86400
"""

EXAMPLES = r"""
- patrolserver.monitoring.issues:
    exporter_url: https://exporter.example.org
    token: "{{ exporter_token }}"
    severity: [critical]
    cursor_file: /var/lib/eda/critical.cursor

- name: All that becomes better or worse, for a ticket system
  patrolserver.monitoring.issues:
    exporter_url: https://exporter.example.org
    token: "{{ exporter_token }}"
    change: [opened, reopened, worsened, eased, fixed]
    cursor_file: /var/lib/eda/tickets.cursor
"""

log = logging.getLogger("patrolserver.monitoring.issues")

# The options exist once: what is documented is what is taken.
SCHEMA: dict[str, dict[str, Any]] = {
    name: option
    for text in (exporter.ModuleDocFragment.DOCUMENTATION, transport.ModuleDocFragment.DOCUMENTATION, DOCUMENTATION)
    for name, option in yaml.safe_load(text)["options"].items()
}
MAX_WAIT = 60
LONGEST_DETAIL = 1000
JUDGED_ANEW = ("worsened", "eased")
FIRST_PAUSE = 0.5
WAIT_WHILE_HOLDING = 2
TEMPLATE_BEGINS = re.compile(r"\{(?=[{%#])")


class CursorLost(Exception):
    """The exporter does not keep what comes after the cursor any more; ``oldest`` is where it begins now."""

    def __init__(self, oldest: str | None) -> None:
        super().__init__("the exporter no longer keeps the changes after the cursor")
        self.oldest = oldest


class Refused(Exception):
    """The exporter answered with an error, or with what is no page of changes."""


class Feed:
    """The exporter's change feed, and how an issue stands now."""

    def __init__(self, options: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._root = options["exporter_url"].rstrip("/") + "/api/v1"
        self._redact = Redactor(secrets_of(options))

    async def page(self, after: str | None, wait: int) -> dict[str, Any]:
        """Return the next changes; waits for one.

        :raises CursorLost: if the cursor is too old, or unknown.
        :raises Refused: for any other answer that is no page.
        """
        query = {"wait": str(wait), "limit": str(self._options["limit"])}
        if after is not None:
            query["after"] = after
        status, page = await self._get("/changes", query)
        if status == 410 or (status == 400 and after not in (None, "latest")):
            raise CursorLost(page.get("oldest_cursor"))
        if status != 200:
            # What the other side says may be what it was sent.
            detail = " ".join(self._redact(page.get("detail") or "").split())[:LONGEST_DETAIL]
            raise Refused("HTTP {0} {1}".format(status, detail).strip())
        if not isinstance(page.get("items"), list) or not page.get("next_cursor"):
            raise Refused("an answer without changes and cursor")
        return page

    async def issue(self, known: dict[str, Any]) -> dict[str, Any] | None:
        """Return how an issue stands now; nothing if it is not to be found.

        :raises Refused: if the exporter does not say.
        """
        query = {"account": known["account"], "state": "all", "limit": "1000"}
        while True:
            status, page = await self._get("/servers/{0}/issues".format(known["server_id"]), query)
            if status == 404:
                return None
            if status != 200 or not isinstance(page.get("items"), list):
                raise Refused("HTTP {0} for the issues of a server".format(status))
            for issue in page["items"]:
                if issue.get("fingerprint") == known["fingerprint"]:
                    return issue
            if not page.get("next_cursor"):
                return None
            query["cursor"] = page["next_cursor"]

    async def _get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        proxy = self._options["proxy_url"]
        async with self._session.get(self._root + path, params=query, proxy=proxy, allow_redirects=False) as reply:
            try:
                document = await reply.json(content_type=None)
            except ValueError:
                document = None
            if isinstance(document, dict):
                return reply.status, document
            if reply.status == 200:
                raise Refused("an answer that is no JSON object")
            return reply.status, {}


class Bookmark:
    """A place in the feed: ``number`` tells which of two comes first, ``cursor`` what to ask for the changes after it."""

    def __init__(self, number: int, cursor: str | None) -> None:
        self.number = number
        self.cursor = cursor


class Held:
    """A change whose issue is not confirmed yet; ``before`` is the place before it."""

    def __init__(self, change: dict[str, Any], before: Bookmark, until: float) -> None:
        self.change = change
        self.before = before
        self.until = until


class Source:
    """From the feed to the queue, for ever."""

    def __init__(self, options: dict[str, Any], feed: Feed, queue: Any, feedback: Any = None) -> None:
        self._options = options
        self._feed = feed
        self._engine = Engine(queue, feedback)
        self._inventory = Inventory(options["inventory"] or inventory_of_command_line(sys.argv))
        self._file = CursorFile(options["cursor_file"])
        self._at = Bookmark(0, None)
        self._saved: str | None = None
        self._held: dict[str, Held] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._given: Bookmark | None = None  # before the first event that the engine has not taken yet
        self._refused: Bookmark | None = None  # before the first event that it did not acknowledge
        self._failures = 0

    async def run(self) -> None:
        """Follow the feed; only a cancellation ends it."""
        await self._begin()
        while True:
            begun = time.monotonic()
            try:
                page = await self._feed.page(self._at.cursor, self._wait())
                await self._take(page)
                await self._look_at_held()
                await self._save()
            except CursorLost as error:
                await self._jump(error.oldest)
                await self._pause()
            except (Refused, aiohttp.ClientError, ssl.SSLError, OSError, asyncio.TimeoutError) as error:
                # Its type, and the text of our own errors only: aiohttp's may hold the proxy's URL.
                log.warning("The exporter's feed: %s", error if isinstance(error, Refused) else type(error).__name__)
                await self._pause()
            else:
                self._failures = 0
                await self._breathe(page, time.monotonic() - begun)

    async def _begin(self) -> None:
        start = self._options["start"]
        saved = None
        try:
            saved = self._file.read()
        except CursorUnreadable:
            log.error(
                "The cursor in %s cannot be read; starting without it, changes may be missed",
                self._options["cursor_file"],
            )
            await self._give({"change": "gap", "exporter_url": self._options["exporter_url"]}, self._at)
        self._move(saved or (None if start == "oldest" else start))

    def _move(self, cursor: str | None) -> None:
        self._at = Bookmark(self._at.number + 1, cursor)

    def _wait(self) -> int:
        """Return how long the next question may wait: not at all before there is a cursor to save."""
        if self._at.cursor in (None, "latest"):
            return 0
        unfinished = self._held or self._given is not None
        return min(self._options["wait"], WAIT_WHILE_HOLDING) if unfinished else self._options["wait"]

    async def _take(self, page: dict[str, Any]) -> None:
        for change in page["items"]:
            if isinstance(change, dict) and isinstance(change.get("issue"), dict):
                await self._take_change(change)
                if isinstance(change.get("id"), str):
                    self._move(change["id"])
        self._move(page["next_cursor"])
        if len(page["items"]) < self._options["limit"]:
            # The feed is read to its end, with all that was in it when held issues were looked at.
            self._told.clear()

    async def _take_change(self, change: dict[str, Any]) -> None:
        fingerprint = change["issue"].get("fingerprint")
        held = self._held.get(fingerprint)
        if held is not None and change.get("change") in JUDGED_ANEW:
            # It comes as opened, so this is a part of that.
            held.change = {**held.change, "issue": change["issue"]}
        elif self._is_to_be_held(change):
            until = time.monotonic() + self._options["confirm_timeout"]
            self._held.setdefault(fingerprint, Held(change, self._at, until))
        elif not self._is_told(change):
            if change.get("change") == "fixed":
                self._held.pop(fingerprint, None)
            await self._put(change, self._at)

    def _is_to_be_held(self, change: dict[str, Any]) -> bool:
        return (
            self._options["confirm_timeout"] > 0
            and change.get("change") in ("opened", "reopened")
            and change["change"] in self._options["change"]
            and change["issue"].get("confirmed") is False
        )

    def _is_told(self, change: dict[str, Any]) -> bool:
        """Whether an issue that was held back has come as this change left it."""
        told = self._told.get(change["issue"].get("fingerprint"))
        return (
            told is not None
            and change.get("change") in JUDGED_ANEW
            and all(told.get(name) == change["issue"].get(name) for name in ("severity", "exploits"))
        )

    async def _look_at_held(self) -> None:
        for fingerprint, held in list(self._held.items()):
            now = await self._feed.issue(held.change["issue"])
            if now is not None and now.get("fixed_at") is None and now.get("confirmed"):
                self._told[fingerprint] = now
                await self._put({**held.change, "issue": now}, held.before)
            elif (now is None or now.get("fixed_at") is None) and time.monotonic() < held.until:
                continue
            elif now is None or now.get("fixed_at") is None:
                await self._put({**held.change, "issue": now or held.change["issue"]}, held.before)
            del self._held[fingerprint]

    async def _put(self, change: dict[str, Any], before: Bookmark) -> None:
        if self._is_wanted(change):
            event = {**without_templates(change), "exporter_url": self._options["exporter_url"]}
            if self._options["limit_hosts"]:
                event["meta"] = {"hosts": [await self._inventory.pattern_for(change["issue"].get("server"))]}
            await self._give(event, before)

    async def _give(self, event: dict[str, Any], before: Bookmark) -> None:
        if self._given is None or before.number < self._given.number:
            self._given = before
        try:
            await self._engine.give(event)
        except NotTaken:
            log.error(
                "The rule engine did not acknowledge the event %s; a restart will bring it again", event.get("id")
            )
            if self._refused is None or before.number < self._refused.number:
                self._refused = before

    async def _save(self) -> None:
        """Save where a restart has to go on: before the oldest change that is held back, or that the engine has not taken."""
        if self._given is not None:
            if await self._engine.took_all():
                self._given = None
            else:
                log.info("The rule engine has not taken all events yet; the cursor stays before them")
        waiting = [held.before for held in self._held.values()]
        waiting += [place for place in (self._given, self._refused) if place is not None]
        cursor = min([self._at, *waiting], key=lambda place: place.number).cursor
        if cursor not in (None, "latest", self._saved):
            await asyncio.to_thread(self._file.write, cursor)
            self._saved = cursor

    async def _breathe(self, page: dict[str, Any], took: float) -> None:
        """Ask no faster than twice a second when the feed answers at once with nothing."""
        if not page["items"] and took < FIRST_PAUSE:
            await asyncio.sleep(FIRST_PAUSE - took)

    async def _jump(self, oldest: str | None) -> None:
        log.warning("The exporter no longer keeps what came after the cursor; going on with the oldest change")
        await self._give({"change": "gap", "exporter_url": self._options["exporter_url"]}, self._at)
        self._move(oldest)

    async def _pause(self) -> None:
        ceiling = min(self._options["max_backoff"], FIRST_PAUSE * 2 ** min(self._failures, 16))
        self._failures += 1
        await asyncio.sleep(random.uniform(ceiling / 2, ceiling))

    def _is_wanted(self, change: dict[str, Any]) -> bool:
        issue = change["issue"]
        return all(
            not wanted or value in wanted
            for wanted, value in (
                (self._options["change"], change.get("change")),
                (self._options["severity"], issue.get("severity")),
                (self._options["kind"], issue.get("kind")),
            )
        )


def without_templates(value: Any) -> Any:
    """Return the value with no text in it that would begin a template: whoever names a server must not run code."""
    if isinstance(value, str):
        return TEMPLATE_BEGINS.sub("{ ", value)
    if isinstance(value, list):
        return [without_templates(one) for one in value]
    if isinstance(value, dict):
        return {without_templates(name): without_templates(one) for name, one in value.items()}
    return value


def checked(args: dict[str, Any]) -> dict[str, Any]:
    """Return the options with their defaults.

    :raises ValueError: for one that is unknown or makes no sense; that ends the rulebook at its start.
    """
    options = event_options.checked(args, SCHEMA, EXPORTER_VARIABLES)
    options["wait"] = min(options["wait"], MAX_WAIT)
    return options


def trust_of(options: dict[str, Any]) -> ssl.SSLContext:
    """Return which certificates are trusted, and the one to show."""
    context = ssl.create_default_context(cafile=options["ca_file"])
    if not options["validate_certs"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options["client_cert"]:
        context.load_cert_chain(options["client_cert"], options["client_key"])
    return context


def session_of(options: dict[str, Any]) -> aiohttp.ClientSession:
    """Return a session with credentials, certificates and time-outs.

    :raises ValueError: if a certificate is none.
    """
    try:
        trust = trust_of(options)
    except (ssl.SSLError, OSError):
        raise ValueError("ca_file, client_cert and client_key have to be files in PEM; one of them is not") from None
    headers = {"Accept": "application/json"}
    if options["token"]:
        headers["Authorization"] = "Bearer {0}".format(options["token"])
    return aiohttp.ClientSession(
        headers=headers,
        auth=aiohttp.BasicAuth(options["username"], options["password"]) if options["username"] else None,
        connector=aiohttp.TCPConnector(ssl=trust),
        timeout=aiohttp.ClientTimeout(total=options["wait"] + options["timeout"]),
        trust_env=options["use_proxy"] and options["proxy_url"] is None,
    )


async def main(queue: asyncio.Queue[Any], args: dict[str, Any]) -> None:
    """Follow the feed; ansible-rulebook calls this."""
    options = checked(args)
    feedback = next((args[name] for name in event_options.FEEDBACK_QUEUES if args.get(name) is not None), None)
    async with session_of(options) as session:
        await Source(options, Feed(options, session), queue, feedback).run()


if __name__ == "__main__":
    # To look at the feed by hand.
    class _Printer:
        async def put(self, event: dict[str, Any]) -> None:
            """Print the event."""
            print(json.dumps(event))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(_Printer(), {"start": "oldest"}))  # type: ignore[arg-type]
