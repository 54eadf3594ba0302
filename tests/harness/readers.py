"""Clients that read as much as they can, in a process of their own, and deliveries that are timed meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from statistics import quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from tests.harness.process import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection


class Request(NamedTuple):
    """What a reader asks again and again."""

    method: str
    path: str
    body: Any = None


class Deliveries(NamedTuple):
    """How long acknowledged deliveries took, in seconds, and how many were answered otherwise."""

    took: list[float]
    refused: int

    @property
    def p50(self) -> float:
        """Seconds."""
        return quantiles(self.took, n=100, method="inclusive")[49]

    @property
    def p99(self) -> float:
        """Seconds."""
        return quantiles(self.took, n=100, method="inclusive")[98]


class Answers(NamedTuple):
    """What the readers got."""

    statuses: Counter[int]
    """0 stands for a connection that broke."""
    without_retry_after: int
    """Refusals that did not say when to come back."""


@contextmanager
def readers(port: int, requests: Sequence[Request], clients: int) -> Iterator[list[Answers]]:
    """So many clients ask these in turn, as fast as they are answered; what they got is in the list at the end."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_read, args=(port, requests, clients, there))
    process.start()
    found: list[Answers] = []
    try:
        here.recv()
        yield found
        here.send(None)
        found.append(here.recv())
    finally:
        here.close()
        process.terminate()
        process.join()


def _read(port: int, requests: Sequence[Request], clients: int, pipe: Connection) -> None:
    stop = threading.Event()
    statuses: Counter[int] = Counter()
    silent: Counter[str] = Counter()
    begun = threading.Barrier(clients + 1)

    def ask(first: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        begun.wait()
        turn = first
        while not stop.is_set():
            request = requests[turn % len(requests)]
            turn += 1
            body = None if request.body is None else msgspec.json.encode(request.body)
            try:
                connection.request(request.method, request.path, body, {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, HTTPException):
                statuses[0] += 1
                connection.close()
                continue
            statuses[response.status] += 1
            if response.status in {429, 503}:
                wait = response.headers.get("retry-after")
                silent["retry-after"] += wait is None
                stop.wait(float(wait or 1))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    begun.wait()
    pipe.send("begun")
    pipe.recv()
    stop.set()
    for thread in threads:
        thread.join(60)
    pipe.send(Answers(statuses, silent["retry-after"]))


def deliver(port: int, count: int, *, every: float, first: int = 1) -> Deliveries:
    """Post so many deliveries, each ``every`` seconds after the last one began, over one connection."""
    took: list[float] = []
    refused = 0
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    due = time.monotonic()
    for number in range(first, first + count):
        time.sleep(max(due - time.monotonic(), 0.0))
        due += every
        body = b'{"webhook_patrolserver":1,"identifier":"webhook.scan_finished","event_id":%d,"webhook_id":7}' % number
        began = time.perf_counter()
        connection.request("POST", f"/webhook/{TOKEN}", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status == 202:
            took.append(time.perf_counter() - began)
        else:
            refused += 1
    connection.close()
    return Deliveries(took, refused)
