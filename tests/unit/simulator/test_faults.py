from __future__ import annotations

import zlib

from patrolserver_exporter.simulator.faults import Fault, FaultKind, Faults, gzip_bomb


def test_a_fault_strikes_the_calls_of_its_pattern() -> None:
    """Path and method pick them."""
    faults = Faults(1)
    faults.add(Fault(kind=FaultKind.STATUS, path="servers/*/software", method="GET"))
    assert faults.striking("GET", "servers/12/software")
    assert not faults.striking("POST", "servers/12/software")
    assert not faults.striking("GET", "servers")


def test_a_counted_fault_ends_by_itself() -> None:
    """It strikes so many times, and the hits are told."""
    faults = Faults(1)
    faults.add(Fault(kind=FaultKind.HTML, count=2))
    assert [bool(faults.striking("GET", "user")) for _ in range(4)] == [True, True, False, False]
    assert [fault["hits"] for fault in faults.documents()] == [2]


def test_a_fault_of_some_probability_lets_calls_through() -> None:
    """About as many as it says, and the same ones for the same seed."""
    runs = []
    for _ in range(2):
        faults = Faults(1)
        faults.add(Fault(kind=FaultKind.STATUS, probability=0.2))
        runs.append([bool(faults.striking("GET", "user")) for _ in range(1000)])
    assert runs[0] == runs[1]
    assert 150 < sum(runs[0]) < 250


def test_latency_adds_to_one_other_fault() -> None:
    """The oldest of the others strikes; a fault behind it is not counted."""
    faults = Faults(1)
    for kind in (FaultKind.LATENCY, FaultKind.STATUS, FaultKind.HTML):
        faults.add(Fault(kind=kind))
    assert [fault.kind for fault in faults.striking("GET", "user")] == [FaultKind.LATENCY, FaultKind.STATUS]
    assert [fault["hits"] for fault in faults.documents()] == [1, 1, 0]


def test_faults_can_be_cleared() -> None:
    """One of them, or all."""
    faults = Faults(1)
    first, _ = faults.add(Fault(kind=FaultKind.HTML)), faults.add(Fault(kind=FaultKind.STATUS))
    faults.clear(first)
    assert [fault["kind"] for fault in faults.documents()] == ["status"]
    faults.clear()
    assert not faults.documents()
    assert not faults.striking("GET", "user")


def test_the_bomb_is_small_and_true() -> None:
    """A thousandth of its size on the wire, one gzip member, its checksum right, JSON behind blanks."""
    size = 5 * 1024 * 1024 + 17
    bomb = gzip_bomb(size)
    assert len(bomb) < size // 500
    unpacked = zlib.decompress(bomb, wbits=31)
    assert len(unpacked) == size + len(b'{"data":[]}')
    assert unpacked.strip() == b'{"data":[]}'
