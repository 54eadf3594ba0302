# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rule engine that an event source feeds, and the cursor that is kept for what it took."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import time
from typing import Any

TAKEN_TIMEOUT = 5.0
FEEDBACK_TIMEOUT = 30.0
LOOK_EVERY = 0.05

log = logging.getLogger("patrolserver.monitoring.issues")


class NotTaken(Exception):
    """The engine fetched an event and did not acknowledge it."""


class Engine:
    """The rule engine: hands it events, and tells which it took.

    ansible-rulebook wraps its queue, for filters, and fetches from the inner one in the same step in which it matches the rules.
    """

    def __init__(self, queue: Any, feedback: Any) -> None:
        self._queue = queue
        self._inner = getattr(queue, "queue", queue)
        self._feedback = feedback

    async def give(self, event: dict[str, Any]) -> None:
        """Put the event into the queue; waits while that is full. With feedback, waits for the engine's answer, too."""
        if self._feedback is None:
            await self._queue.put(event)
            return
        while not self._feedback.empty():
            self._feedback.get_nowait()
        await self._queue.put(event)
        # A filter may have dropped it: nothing was put into the queue, and nobody will answer.
        if not self._fetched():
            await self._answer()

    async def took_all(self) -> bool:
        """Whether the engine took all that it was given; waits a moment for it."""
        ends = time.monotonic() + TAKEN_TIMEOUT
        while not self._fetched():
            if time.monotonic() > ends:
                return False
            await asyncio.sleep(LOOK_EVERY)
        return True

    def _fetched(self) -> bool:
        return bool(self._inner.empty()) if hasattr(self._inner, "empty") else True

    async def _answer(self) -> None:
        while not self._fetched() and self._feedback.empty():
            await asyncio.sleep(LOOK_EVERY)
        try:
            await asyncio.wait_for(self._feedback.get(), FEEDBACK_TIMEOUT)
        except asyncio.TimeoutError:
            raise NotTaken from None


class CursorUnreadable(Exception):
    """The file of the cursor is there and holds none."""


class CursorFile:
    """Keeps the cursor, so that a restart goes on where it was; without a path it keeps nothing."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    def read(self) -> str | None:
        """Return the saved cursor, if there is one.

        :raises CursorUnreadable: if nobody can tell what was saved.
        """
        if not self._path:
            return None
        try:
            with open(self._path, encoding="utf-8") as file:
                cursor = json.load(file)["cursor"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise CursorUnreadable from None
        if not isinstance(cursor, str):
            raise CursorUnreadable
        return cursor

    def write(self, cursor: str) -> None:
        """Save the cursor atomically. A failure is logged: events matter more than their bookmark."""
        if not self._path:
            return
        folder = os.path.dirname(os.path.abspath(self._path))
        try:
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".cursor-")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"cursor": cursor}, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self._path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            log.warning("The cursor cannot be written to %s: %s", self._path, error.strerror)
