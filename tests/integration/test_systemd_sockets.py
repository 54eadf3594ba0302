"""Sockets that systemd opens and hands over, as its own protocol says: descriptors from 3 on, and three variables."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

HAND_OVER = """\
import os, socket, sys
names, flavour = sys.argv[1].split(":"), sys.argv[2]
sockets = [socket.socket(socket.AF_UNIX if flavour == "unix" else socket.AF_INET) for _ in names]
for place, sock in enumerate(sockets):
    if flavour != "unix":
        sock.bind(("127.0.0.1", 0))
    if flavour == "listening":
        sock.listen()
high = [os.dup2(sock.fileno(), 100 + place) for place, sock in enumerate(sockets)]
for place, one in enumerate(high):
    os.dup2(one, 3 + place, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
os.execv(sys.argv[3], sys.argv[3:])
"""
LISTENING = re.compile(r"listening on (http://[^\s\"]+)")
DELIVERY = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": 1}


def handed_over(folder: Path, names: str, flavour: str = "listening") -> Exporter:
    """An exporter to which such sockets are handed over."""
    wrap = (sys.executable, "-c", HAND_OVER, names, flavour)
    exporter = Exporter.watching(folder, "http://127.0.0.1:1", wrap=wrap)
    exporter.flags = ("--web.systemd-socket",)
    return exporter


def test_the_sockets_of_systemd_are_listened_on(tmp_path: Path) -> None:
    """Those that are named webhook take webhooks alone, as with the flag; the operator's token leads to the other."""
    exporter = handed_over(tmp_path, "web:webhook")
    exporter.start(wait=False)
    try:
        eventually(lambda: len(LISTENING.findall(exporter.log())) == 2)
        main, hook = LISTENING.findall(exporter.log())
        assert requests.get(f"{main}/-/healthy", timeout=10).status_code == 200
        assert requests.get(f"{hook}/-/healthy", timeout=10).status_code == 404
        assert requests.post(f"{hook}/webhook/{TOKEN}", json=DELIVERY, timeout=10).status_code == 202
        assert requests.post(f"{main}/webhook/{TOKEN}", json=DELIVERY, timeout=10).status_code == 404
        assert (tmp_path / "patrolserver-exporter.token").read_text().splitlines()[0] == main
        assert requests.get(f"{main}/config", headers=exporter.operator, timeout=10).status_code == 200
    finally:
        exporter.kill()


@pytest.mark.parametrize(
    ("names", "flavour", "said"),
    [
        ("web", "bound", "is no TCP socket that listens"),
        ("web", "unix", "is no TCP socket that listens"),
        ("webhook", "listening", "one for webhooks alone is not enough"),
    ],
)
def test_what_cannot_be_listened_on_ends_the_start(tmp_path: Path, names: str, flavour: str, said: str) -> None:
    """With what to write in the unit, and without a traceback."""
    exporter = handed_over(tmp_path, names, flavour)
    exporter.start(wait=False)
    try:
        eventually(lambda: exporter.has_ended)
    finally:
        exporter.kill()
    assert said in exporter.log()
    assert "Traceback" not in exporter.log()


def test_without_systemd_the_flag_says_what_is_missing(tmp_path: Path) -> None:
    """Sockets of another process, which the variables may tell of as well, are not taken."""
    exporter = Exporter.watching(tmp_path, "http://127.0.0.1:1", environ={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    exporter.flags = ("--web.systemd-socket",)
    exporter.start(wait=False)
    try:
        eventually(lambda: exporter.has_ended)
    finally:
        exporter.kill()
    assert "systemd has handed no socket over" in exporter.log()
