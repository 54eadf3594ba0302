# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issues as events, from the exporter's change feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import ssl
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml

DOCUMENTATION = r"""
---
short_description: Issues that open, become worse, are fixed or waived, as the exporter learns of them
description:
  - Follows the exporter's change feed by long poll. Each change is an event.
  - An event has C(change), C(at), C(id), C(exporter_url) and C(issue), which is the issue after the change as M(patrolserver.monitoring.issues_info)
    returns it, with its C(exploits) and C(severity_since).
  - C(worsened) means that an open issue got a higher severity, or one more exploit that counts; C(eased) means that it got a lower severity.
    Who reacts to C(opened) has to react to C(worsened), too. A known issue of medium severity that becomes critical does not open again.
  - With O(cursor_file), it goes on where it was after a restart of the rulebook, so that nothing is missed; an event may then come twice.
  - An exporter that is down, restarts or refuses is no reason to end. The source waits, longer each time, and goes on at its cursor.
  - A webhook's issue is C(reported), with severity C(high), until a poll has looked at it; only then it may turn out to be critical. Such an issue
    is held back until it is confirmed, and comes once, as it is then. That a poll made it worse or better is no event of its own then.
    See O(confirm_timeout).
  - If the exporter no longer keeps the changes after the cursor, it goes on with the oldest one that is kept, and says so with an event
    whose C(change) is C(gap).
  - An option that is unknown or has a wrong value ends the rulebook at its start, with an error that names it.
options:
  exporter_url:
    description: Where the exporter listens, without the path of its API.
    type: str
    default: http://127.0.0.1:10058
  token:
    description: An API token of the exporter. If unset, the environment variable E(PATROLSERVER_EXPORTER_TOKEN) is taken.
    type: str
  username:
    description: A user of the exporter's basic authentication. Excludes O(token).
    type: str
  password:
    description: The password of O(username).
    type: str
  start:
    description: Where to start without a saved cursor, V(latest) for what is new from now on, V(oldest) for all that is kept, or a cursor.
    type: str
    default: latest
  cursor_file:
    description: A file that keeps the cursor. Each activation needs its own.
    type: str
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
  wait:
    description: Seconds that one question may wait for a change, up to 60.
    type: int
    default: 30
  limit:
    description: How many changes to ask for at once, up to 1000.
    type: int
    default: 100
  validate_certs:
    description: Whether the certificate of an C(https) URL has to be trusted.
    type: bool
    default: true
  ca_file:
    description: A file with the CA certificates to trust, in PEM.
    type: str
  proxy_url:
    description: The proxy to use. If unset, the environment's.
    type: str
  timeout:
    description: Seconds to wait for an answer, beyond O(wait).
    type: float
    default: 15
  max_backoff:
    description: The longest pause after a failure, in seconds.
    type: float
    default: 60
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

SCHEMA: dict[str, dict[str, Any]] = yaml.safe_load(DOCUMENTATION)["options"]
DAY = 86400
BOUNDS = {"confirm_timeout": (0, 30 * DAY), "wait": (0, DAY), "limit": (1, 1000), "timeout": (0.1, DAY), "max_backoff": (0.01, DAY)}
MAX_WAIT = 60
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
JUDGED_ANEW = ("worsened", "eased")
FIRST_PAUSE = 0.5
WAIT_WHILE_HOLDING = 2
NO_ARGUMENTS_OF_OURS = ("_source_name", "source_name", "eda_feedback_queue", "feedback_queue")


class CursorLost(Exception):
    """The exporter does not keep what comes after the cursor any more; ``oldest`` is where it begins now."""

    def __init__(self, oldest: str | None) -> None:
        super().__init__("the exporter no longer keeps the changes after the cursor")
        self.oldest = oldest


class Refused(Exception):
    """The exporter answered with an error, or with what is no page of changes."""


class CursorFile:
    """Keeps the cursor, so that a restart goes on where it was; without a path it keeps nothing."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def read(self) -> str | None:
        """Return the saved cursor, if there is one."""
        if not self._path:
            return None
        try:
            with open(self._path, encoding="utf-8") as file:
                return json.load(file)["cursor"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            log.warning("The cursor in %s cannot be read; starting without it", self._path)
            return None

    def write(self, cursor: str) -> None:
        """Save the cursor atomically. A failure is logged: events matter more than their bookmark."""
        if not self._path:
            return
        folder = os.path.dirname(os.path.abspath(self._path))
        try:
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".cursor-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"cursor": cursor}, file)
            os.replace(temporary, self._path)
        except OSError as error:
            log.warning("The cursor cannot be written to %s: %s", self._path, error.strerror)


class Feed:
    """The exporter's change feed, and how an issue stands now."""

    def __init__(self, options: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._root = options["exporter_url"].rstrip("/") + "/api/v1"

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
            raise Refused("HTTP {0} {1}".format(status, page.get("detail") or "").strip())
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


class Held:
    """A change whose issue is not confirmed yet."""

    def __init__(self, change: dict[str, Any], cursor: str | None, until: float) -> None:
        self.change = change
        self.cursor = cursor
        self.until = until


class Source:
    """From the feed to the queue, for ever."""

    def __init__(self, options: dict[str, Any], feed: Feed, queue: Any) -> None:
        self._options = options
        self._feed = feed
        self._queue = queue
        self._file = CursorFile(options["cursor_file"])
        start = options["start"]
        self._cursor = self._file.read() or (None if start == "oldest" else start)
        self._saved: str | None = None
        self._held: dict[str, Held] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._failures = 0

    async def run(self) -> None:
        """Follow the feed; only a cancellation ends it."""
        while True:
            begun = time.monotonic()
            wait = min(self._options["wait"], WAIT_WHILE_HOLDING) if self._held else self._options["wait"]
            try:
                page = await self._feed.page(self._cursor, wait)
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

    async def _take(self, page: dict[str, Any]) -> None:
        for change in page["items"]:
            if isinstance(change, dict) and isinstance(change.get("issue"), dict):
                await self._take_change(change)
        self._cursor = page["next_cursor"]
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
            self._held.setdefault(fingerprint, Held(change, self._cursor, until))
        elif not self._is_told(change):
            if change.get("change") == "fixed":
                self._held.pop(fingerprint, None)
            await self._put(change)

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
                await self._put({**held.change, "issue": now})
            elif (now is None or now.get("fixed_at") is None) and time.monotonic() < held.until:
                continue
            elif now is None or now.get("fixed_at") is None:
                await self._put({**held.change, "issue": now or held.change["issue"]})
            del self._held[fingerprint]

    async def _put(self, change: dict[str, Any]) -> None:
        if self._is_wanted(change):
            await self._queue.put({**change, "exporter_url": self._options["exporter_url"]})

    async def _save(self) -> None:
        """Save where a restart has to go on: before the oldest change that is held back."""
        oldest = next(iter(self._held.values()), None)
        cursor = self._cursor if oldest is None else oldest.cursor
        if cursor not in (None, "latest", self._saved):
            await asyncio.to_thread(self._file.write, cursor)
            self._saved = cursor

    async def _breathe(self, page: dict[str, Any], took: float) -> None:
        """Ask no faster than twice a second when the feed answers at once with nothing."""
        if not page["items"] and took < FIRST_PAUSE:
            await asyncio.sleep(FIRST_PAUSE - took)

    async def _jump(self, oldest: str | None) -> None:
        log.warning("The exporter no longer keeps what came after the cursor; going on with the oldest change")
        await self._queue.put({"change": "gap", "exporter_url": self._options["exporter_url"]})
        self._cursor = oldest

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


def checked(args: dict[str, Any]) -> dict[str, Any]:
    """Return the options with their defaults.

    :raises ValueError: for one that is unknown or makes no sense; that ends the rulebook at its start.
    """
    given = {name: value for name, value in args.items() if name not in NO_ARGUMENTS_OF_OURS}
    unknown = sorted(set(given) - set(SCHEMA))
    if unknown:
        raise ValueError("patrolserver.monitoring.issues does not know {0}".format(", ".join(unknown)))
    options = {}
    for name, option in SCHEMA.items():
        value = given.get(name)
        options[name] = option.get("default") if value is None or value == "" else _typed(name, option, value)
    if isinstance(given.get("change"), (list, str)) and not options["change"]:
        raise ValueError("change is empty, so that nothing would ever make an event; leave it out for its default")
    url = urlsplit(options["exporter_url"])
    if url.scheme not in ("http", "https") or not url.hostname or "/api/" in url.path:
        raise ValueError("exporter_url has to be like https://exporter.example.org, without the path of the API")
    if options["username"] and options["token"]:
        raise ValueError("token and username exclude each other")
    if not options["username"]:
        options["token"] = options["token"] or os.environ.get("PATROLSERVER_EXPORTER_TOKEN") or None
    options["wait"] = min(options["wait"], MAX_WAIT)
    return options


def _typed(name: str, option: dict[str, Any], value: Any) -> Any:
    """Return the value in the option's type; what a variable brings may be written as text.

    :raises ValueError: if it is none of that type, out of bounds, or none of the choices.
    """
    kind = option["type"]
    if kind == "list":
        return _chosen(name, option["choices"], value)
    if kind == "bool":
        word = str(value).lower()
        if word not in TRUE + FALSE:
            raise ValueError("{0} has to be true or false, not {1!r}".format(name, value))
        return word in TRUE
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError("{0} has to be text".format(name))
        return value
    try:
        number = (int if kind == "int" else float)(str(value))
    except ValueError:
        raise ValueError("{0} has to be a number, not {1!r}".format(name, value)) from None
    lowest, highest = BOUNDS[name]
    if not lowest <= number <= highest:  # Neither holds for NaN.
        raise ValueError("{0} has to be from {1} to {2}, not {3}".format(name, lowest, highest, value))
    return number


def _chosen(name: str, choices: list[str], value: Any) -> list[str]:
    values = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)):
        raise ValueError("{0} has to be a list".format(name))
    wrong = [str(one) for one in values if one not in choices]
    if wrong:
        raise ValueError("{0} knows {1}, not {2}".format(name, ", ".join(choices), ", ".join(wrong)))
    return list(values)


def session_of(options: dict[str, Any]) -> aiohttp.ClientSession:
    """Return a session with credentials, certificates and time-outs."""
    trust: ssl.SSLContext | bool = True
    if not options["validate_certs"]:
        trust = False
    elif options["ca_file"]:
        trust = ssl.create_default_context(cafile=options["ca_file"])
    headers = {"Accept": "application/json"}
    if options["token"]:
        headers["Authorization"] = "Bearer {0}".format(options["token"])
    return aiohttp.ClientSession(
        headers=headers,
        auth=aiohttp.BasicAuth(options["username"], options["password"] or "") if options["username"] else None,
        connector=aiohttp.TCPConnector(ssl=trust),
        timeout=aiohttp.ClientTimeout(total=options["wait"] + options["timeout"]),
        trust_env=options["proxy_url"] is None,
    )


async def main(queue: asyncio.Queue[Any], args: dict[str, Any]) -> None:
    """Follow the feed; ansible-rulebook calls this."""
    options = checked(args)
    async with session_of(options) as session:
        await Source(options, Feed(options, session), queue).run()


if __name__ == "__main__":
    # To look at the feed by hand.
    class _Printer:
        async def put(self, event: dict[str, Any]) -> None:
            """Print the event."""
            print(json.dumps(event))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(_Printer(), {"start": "oldest"}))  # type: ignore[arg-type]
