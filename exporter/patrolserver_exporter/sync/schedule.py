"""What is due when, for one account: a heap of monotonic times, so that a clock that is set moves nothing."""

from __future__ import annotations

import heapq
from enum import StrEnum
from typing import NamedTuple

_OUTDATED_KEPT = 64
"""Entries beside the tasks that the heap may hold before it is cleaned."""


class Job(StrEnum):
    """What is done with a server."""

    POLL = "poll"
    CHECK_SCAN = "check_scan"
    """Nobody may take a scan that was announced for over, or for running, before it is."""
    LOOK_FOR_SCAN = "look_for_scan"
    """One that nobody announced may run: asked only as far as the budget allows."""


class Task(NamedTuple):
    """A job on a server."""

    job: Job
    server_id: int


class Schedule:
    """Each task at most once. Times are monotonic seconds. Not safe to share between threads by itself."""

    def __init__(self) -> None:
        self._due: dict[Task, float] = {}
        self._heap: list[tuple[float, Task]] = []
        self._first_holds = True
        """The first entry of the heap is planned like that. Asked a few times a second, for hundreds of accounts."""

    def __len__(self) -> int:
        return len(self._due)

    def put(self, task: Task, at: float) -> None:
        """Plan a task; one that is planned later already moves to ``at``, one that is planned sooner stays."""
        planned_at = self._due.get(task)
        if planned_at is None or at < planned_at:
            self._due[task] = at
            heapq.heappush(self._heap, (at, task))
            if len(self._heap) > 2 * len(self._due) + _OUTDATED_KEPT:
                self._heap = [(at, task) for task, at in self._due.items()]
                heapq.heapify(self._heap)

    def remove(self, task: Task) -> None:
        """Forget a task."""
        self._due.pop(task, None)
        self._first_holds = False

    def drop(self, server_id: int) -> None:
        """Forget a server's tasks."""
        for job in Job:
            self._due.pop(Task(job, server_id), None)
        self._first_holds = False

    def next_at(self) -> float | None:
        """When the next task is due."""
        self._forget_outdated()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> Task | None:
        """Take the task that has been due for longest."""
        self._forget_outdated()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, task = heapq.heappop(self._heap)
        del self._due[task]
        self._first_holds = False
        return task

    def _forget_outdated(self) -> None:
        # A task that is planned anew comes before its old entry, so that `put` leaves this as it is.
        if self._first_holds:
            return
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        self._first_holds = True
