"""A database that is late, as at boot: the start waits for it and tells systemd, and ends at once if it is told to."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.lasting import LastingTrouble
from patrolserver_exporter.store import still_away

if TYPE_CHECKING:
    from patrolserver_exporter.app.systemd import Supervisor

log = logging.getLogger(__name__)

_AGAIN: Final = 1.0
"""Seconds from one try to the next."""
_LONGER: Final = 30.0
"""Seconds more that systemd is asked for, each time."""


async def database_answers(url: str, supervisor: Supervisor) -> bool:
    """Wait until it does; False if a signal ends the start. Raises ``StoreUnavailable`` where waiting helps nothing."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    trouble = LastingTrouble(log, SystemClock())
    try:
        while (reason := await _look(url, supervisor, stop)) is not None:
            if stop.is_set():
                log.info("Stopped while waiting for the database")
                return False
            trouble.lasts("The database does not answer yet; the start waits for it", err=reason)
            supervisor.waits("Waiting for the database", _LONGER)
            await _sleep(stop)
        trouble.is_over("The database answers")
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    return not stop.is_set()


async def _look(url: str, supervisor: Supervisor, stop: asyncio.Event) -> str | None:
    """One try, in a thread that nobody has to wait for: resolving a name may take long."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()

    def tell(reason: str | None, error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(reason)
        else:
            found.set_exception(error)

    def look() -> None:
        reason, failure = None, None
        try:
            reason = still_away(url)
        except Exception as error:  # noqa: BLE001  # It belongs to who waits.
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, reason, failure)

    threading.Thread(target=look, name="database", daemon=True).start()
    stopped = asyncio.ensure_future(stop.wait())
    awaited: set[asyncio.Future[Any]] = {found, stopped}
    try:
        while not found.done() and not stop.is_set():
            await asyncio.wait(awaited, timeout=_LONGER / 3, return_when=asyncio.FIRST_COMPLETED)
            if not found.done():
                supervisor.waits("Waiting for the database", _LONGER)
    finally:
        stopped.cancel()
    if not found.done():
        found.cancel()
        return "nobody waits any more"
    return found.result()


async def _sleep(stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), _AGAIN)
    except TimeoutError:
        return
