"""Which of our modules take part in what happens between two moments, in whatever thread."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import patrolserver_exporter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import FrameType

_HERE = str(Path(patrolserver_exporter.__file__).parent) + "/"
_STANDS_OUTSIDE = "simulator/"
"""It plays PatrolServer, so it is no part of the way."""


class ModuleTrace:
    """Notes the modules of which a function runs. It sees the threads that are started while it is `watching`."""

    def __init__(self, *, but_threads: Collection[str] = ()) -> None:
        self._but_threads = tuple(but_threads)
        """How the names of threads begin that do other work at the same time."""
        self._found: dict[str, str] = {}
        self._noting = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Be told of every call; nothing is noted yet."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def noting(self) -> Iterator[dict[str, str]]:
        """Note from here on; the modules that ran, each with the first of its functions that did."""
        self._found.clear()
        self._noting = True
        try:
            yield self._found
        finally:
            self._noting = False

    def _called(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if not self._noting or event != "call" or not code.co_filename.startswith(_HERE):
            return
        if code.co_name == "<module>" or threading.current_thread().name.startswith(self._but_threads):
            return
        module = code.co_filename.removeprefix(_HERE).removesuffix(".py")
        if not module.startswith(_STANDS_OUTSIDE):
            self._found.setdefault(module, code.co_qualname)
