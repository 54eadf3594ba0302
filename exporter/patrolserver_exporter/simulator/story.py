"""The story that plays by itself: a scan, a critical issue, its fix, and then smaller things without end."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .fleet import dice
from .software import Change, Kind, Software
from .webhooks import TEST_DATA
from .wire import ApiError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from .world import Server, World

SCAN_SECONDS = 4.0
CRITICAL = "php"
"""What breaks first, where a server has it."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Something has happened: a line for people, and how long nothing follows (seconds at speed 1)."""

    line: str
    pause: float


def play(world: World, *, speed: float = 1.0) -> Iterator[Beat]:
    """Tell the story: each step acts on the world and then yields. The first minute is always the same; then it loops.

    It ends only when the account has no servers.
    """
    chance = dice(world.options.seed, "story")
    yield from _opening(world, speed)
    while world.servers(world.demo):
        try:
            yield from chance.choice((_outdated, _routine, _mended, _unsupported, _tested))(world, speed, chance)
        except ApiError:
            # A test took the server away in the middle of a scene.
            yield Beat("the story lost its server and goes on with another", 1.0)


def _opening(world: World, speed: float) -> Iterator[Beat]:
    servers = world.servers(world.demo)
    if not servers:
        return
    yield Beat(f"watching {len(servers)} servers", 3.0)
    first = servers[0]
    yield from _scan(world, first, speed)
    stage = _stage(world, servers)
    if stage is None:
        return
    server, software = stage
    world.change(server, Change(Kind.EXPLOITABLE, software.canonical_name, software.location, 9.8), tell=True)
    yield Beat(f"critical: {software.name} {software.version or ''} on {server.name} is exploitable, risk 9.8", 16.0)
    world.change(server, Change(Kind.MENDED, software.canonical_name, software.location), at_scan=True)
    yield Beat(f"{software.name} on {server.name} was updated; the next scan will show it", 3.0)
    yield from _scan(world, server, speed)
    yield Beat(f"fixed: {software.name} on {server.name} is up to date", 10.0)


def _stage(world: World, servers: list[Server]) -> tuple[Server, Software] | None:
    """The first server, but the very first, with the software that breaks; or whatever there is."""
    for server in [*servers[1:50], servers[0]]:
        for one in world.installed(server):
            if one.software.canonical_name == CRITICAL and not one.software.broken:
                return server, one.software
    stages = ((server, one.software) for server in servers for one in world.installed(server))
    return next(stages, None)


def _scan(world: World, server: Server, speed: float) -> Iterator[Beat]:
    world.start_scan(server, SCAN_SECONDS / speed)
    yield Beat(f"scan of {server.name} started", SCAN_SECONDS + 0.5)
    world.tick()
    yield Beat(f"scan of {server.name} finished", 4.0)


def _pick(world: World, chance: random.Random) -> Server:
    return chance.choice(world.servers(world.demo))


def _routine(world: World, speed: float, chance: random.Random) -> Iterator[Beat]:
    yield from _scan(world, _pick(world, chance), speed)


def _outdated(world: World, speed: float, chance: random.Random) -> Iterator[Beat]:
    server = _pick(world, chance)
    touched = world.change(server, Change(Kind.OUTDATED), at_scan=True)
    yield from _scan(world, server, speed)
    yield Beat(f"{touched[0].software.name} on {server.name} is outdated", 8.0)


def _unsupported(world: World, speed: float, chance: random.Random) -> Iterator[Beat]:
    server = _pick(world, chance)
    touched = world.change(server, Change(Kind.UNSUPPORTED), tell=True)
    yield Beat(f"{touched[0].software.name} on {server.name} is not supported anymore", 8.0)
    world.change(server, Change(Kind.MENDED), at_scan=True)
    yield from _scan(world, server, speed)


def _mended(world: World, speed: float, chance: random.Random) -> Iterator[Beat]:
    server = _pick(world, chance)
    world.change(server, Change(Kind.MENDED), at_scan=True)
    yield from _scan(world, server, speed)
    yield Beat(f"everything on {server.name} was brought up to date", 8.0)


def _tested(world: World, speed: float, chance: random.Random) -> Iterator[Beat]:
    del speed, chance
    world.outbox.emit(world.demo.id, "webhook.test", TEST_DATA)
    yield Beat("somebody pressed \u201cTest webhook\u201d", 6.0)


class StoryTeller:
    """Plays the story in a thread; ``stop`` ends it between two steps."""

    def __init__(self, world: World, *, on_line: Callable[[str], None] | None = None) -> None:
        self._world = world
        self._on_line = on_line
        self._lines: deque[str] = deque(maxlen=200)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def playing(self) -> bool:
        """Whether it is playing."""
        return self._thread is not None and self._thread.is_alive()

    def lines(self) -> list[str]:
        """What was told so far."""
        return list(self._lines)

    def start(self, speed: float = 1.0) -> None:
        """Play from the beginning, ``speed`` times as fast; without effect while playing."""
        if not self.playing:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(speed,), name="simulator-story", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Play no more; the world stays as it is."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, speed: float) -> None:
        for beat in play(self._world, speed=speed):
            self._lines.append(beat.line)
            if self._on_line is not None:
                self._on_line(beat.line)
            if self._stop.wait(beat.pause / speed):
                return
