"""Rooms: a few at the same time, a short queue, and a 503 that says when to come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from patrolserver_exporter.web.rooms import Crowded, Room, Rooms, Shared


async def turns() -> None:
    """Let all that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


class Stay:
    """Requests that stay in a room until they are told to leave."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.inside: list[str] = []
        self._leave: dict[str, asyncio.Event] = {}

    async def begin(self, name: str) -> asyncio.Task[None]:
        """Enter, or wait."""
        self._leave[name] = asyncio.Event()
        task = asyncio.ensure_future(self._stay(name))
        await turns()
        return task

    async def _stay(self, name: str) -> None:
        async with self._room.entered():
            self.inside.append(name)
            await self._leave[name].wait()
        self.inside.remove(name)

    async def leave(self, name: str) -> None:
        """Go."""
        self._leave[name].set()
        await turns()


class TestRoom:
    """So many at the same time, and so many that wait."""

    def test_who_waits_longest_is_next(self) -> None:
        """A place goes to one, in the order in which they came."""

        async def story() -> None:
            stay = Stay(Room("lists", at_once=1, queue=2))
            for name in ("a", "b", "c"):
                await stay.begin(name)
            assert stay.inside == ["a"]
            await stay.leave("a")
            assert stay.inside == ["b"]
            await stay.leave("b")
            assert stay.inside == ["c"]

        asyncio.run(story())

    def test_beyond_the_queue_one_is_told_when_to_come_back(self) -> None:
        """In whole seconds, at least one."""

        async def story() -> None:
            stay = Stay(Room("lists", at_once=1, queue=1))
            await stay.begin("inside")
            await stay.begin("waiting")
            with pytest.raises(Crowded, match="lists") as refused:
                await (await stay.begin("too many"))
            assert refused.value.status == 503
            assert 1 <= int(refused.value.headers["retry-after"]) <= 10
            await stay.leave("inside")
            assert stay.inside == ["waiting"]

        asyncio.run(story())

    def test_patience_ends(self) -> None:
        """One whose turn does not come is refused, and takes no place from those behind it."""

        async def story() -> None:
            room = Room("lists", at_once=1, queue=2, patience=0.01)
            stay = Stay(room)
            await stay.begin("inside")
            with pytest.raises(Crowded):
                await (await stay.begin("waiting"))
            await stay.leave("inside")
            await stay.begin("later")
            assert stay.inside == ["later"]

        asyncio.run(story())

    def test_who_hangs_up_frees_the_place(self) -> None:
        """Inside, and in the queue."""

        async def story() -> None:
            stay = Stay(Room("lists", at_once=1, queue=2))
            inside, waiting = await stay.begin("inside"), await stay.begin("waiting")
            await stay.begin("next")
            waiting.cancel()
            inside.cancel()
            await turns()
            assert stay.inside[-1] == "next"

        asyncio.run(story())


class TestShared:
    """Equal questions have one answer, as long as its work has not begun."""

    def test_those_that_wait_share_and_later_ones_ask_anew(self) -> None:
        """An answer never lacks what was committed before its request came."""

        async def story() -> None:
            shared, committed, done = Shared(Room("gates", at_once=1, queue=9)), ["old"], asyncio.Event()
            begun: list[int] = []

            async def work() -> list[str]:
                begun.append(1)
                seen = list(committed)
                await done.wait()
                return seen

            def ask() -> asyncio.Task[list[str]]:
                return asyncio.ensure_future(shared.answer("question", work))

            first = ask()
            await turns()
            committed.append("new")
            later = [ask() for _ in range(24)]
            await turns()
            done.set()
            assert await first == ["old"]
            assert [await one for one in later] == [["old", "new"]] * 24
            assert len(begun) == 2

        asyncio.run(story())

    def test_a_failure_is_everybodys_and_not_for_ever(self) -> None:
        """The next one asks anew."""

        async def story() -> None:
            shared = Shared(Room("gates", at_once=1, queue=9))

            async def broken() -> str:
                raise OSError("the disk is gone")

            async def sound() -> str:
                return "verdict"

            outcomes = await asyncio.gather(*(shared.answer("q", broken) for _ in range(3)), return_exceptions=True)
            assert [str(one) for one in outcomes] == ["the disk is gone"] * 3
            assert await shared.answer("q", sound) == "verdict"

        asyncio.run(story())


def scope(method: str, path: str, query: str = "") -> dict[str, Any]:
    """A request's."""
    return {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": []}


class TestRooms:
    """Each kind of route has a room of its own."""

    @staticmethod
    def asked(rooms: Rooms, path: str, method: str = "GET", query: str = "") -> asyncio.Task[list[dict[str, Any]]]:
        """What is sent to a client."""

        async def ask() -> list[dict[str, Any]]:
            sent: list[dict[str, Any]] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            await rooms(scope(method, path, query), receive, send)
            return sent

        return asyncio.ensure_future(ask())

    @pytest.mark.parametrize(
        ("crowded", "free"),
        [
            ("/api/v1/issues", ["/", "/-/ready", "/-/healthy", "/api/v1/changes", "/api/v1/operations/x"]),
            ("/", ["/api/v1/issues", "/-/ready"]),
            ("/servers/1", ["/api/v1/servers"]),
        ],
    )
    def test_a_crowd_of_one_kind_leaves_room_for_the_others(self, crowded: str, free: list[str]) -> None:
        """Beyond its queue it gets a 503, and the others an answer."""

        async def story() -> None:
            over = asyncio.Event()

            async def app(scope: Any, _receive: Any, send: Any) -> None:
                if scope["path"] == crowded:
                    await over.wait()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"fine"})

            rooms = Rooms(app)
            tasks = [self.asked(rooms, crowded) for _ in range(50)]
            await turns()
            refused = [task.result() for task in tasks if task.done()]
            assert refused
            for sent in refused:
                assert sent[0]["status"] == 503
                assert dict(sent[0]["headers"])[b"retry-after"]
            for path in free:
                assert (await self.asked(rooms, path))[0]["status"] == 200
            over.set()
            statuses = [(await task)[0]["status"] for task in tasks]
            assert statuses.count(200) == 50 - len(refused)

        asyncio.run(story())

    def test_a_large_answer_is_sent_in_slices_and_few_at_the_same_time(self) -> None:
        """A client that reads slowly keeps the others from large answers only, not from short ones."""

        async def story() -> None:
            large = bytes(3 * 1024 * 1024)

            async def app(scope: Any, _receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send(
                    {"type": "http.response.body", "body": large if scope["path"].endswith("gate") else b"short"}
                )

            rooms, slow = Rooms(app), asyncio.Event()
            held: list[Any] = []

            async def receive() -> dict[str, Any]:
                return {"type": "http.disconnect"}

            async def reads_nothing(message: Any) -> None:
                held.append(message)
                await slow.wait()

            waiting = [
                asyncio.ensure_future(rooms(scope("POST", "/api/v1/gate"), receive, reads_nothing)) for _ in range(2)
            ]
            await turns()
            queued = [self.asked(rooms, "/api/v1/gate", "POST") for _ in range(9)]
            await turns()
            assert len(held) == 2
            assert any(task.done() and task.result()[0]["status"] == 503 for task in queued)
            assert (await self.asked(rooms, "/api/v1/issues"))[-1]["body"] == b"short"
            slow.set()
            await asyncio.gather(*waiting)
            answered = [sent for sent in [await task for task in queued] if sent[0]["status"] == 200]
            assert answered
            for sent in answered:
                assert b"".join(message.get("body", b"") for message in sent) == large
                assert max(len(message.get("body", b"")) for message in sent) <= 256 * 1024

        asyncio.run(story())

    def test_an_answer_that_is_broken_off_gets_no_end(self) -> None:
        """A list without its end must not look like one without entries."""

        async def story() -> None:
            async def app(_scope: Any, _receive: Any, send: Any) -> None:
                await send({"type": "http.response.start", "status": 200, "headers": []})

            (only,) = await self.asked(Rooms(app), "/api/v1/issues", query="format=csv")
            assert only["type"] == "http.response.start"

        asyncio.run(story())
