"""A pool of threads that can be waited for with a bound."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Threads:
    """Like ``ThreadPoolExecutor``, but a call to a silent API cannot hold up a stop for its whole time-out."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._idle = threading.Condition()
        self._running = 0

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have a thread do it; does nothing after `shutdown`."""
        with self._idle:
            self._running += 1
        try:
            future = self._executor.submit(work, *arguments)
        except RuntimeError:
            self._done()
            return
        future.add_done_callback(lambda _: self._done())

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more work."""
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)

    def join(self, patience: float) -> bool:
        """Wait until nothing runs, at most ``patience`` seconds; False if something still does."""
        with self._idle:
            return self._idle.wait_for(lambda: self._running == 0, patience)

    def _done(self) -> None:
        with self._idle:
            self._running -= 1
            self._idle.notify_all()
