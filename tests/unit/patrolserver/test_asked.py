"""A reply about another server or event than was asked for is never taken for the one that was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from patrolserver_exporter.patrolserver.errors import Unreadable
from patrolserver_exporter.patrolserver.wire import (
    pages_of_software,
    parse_event,
    parse_is_scanning,
    read_installed,
)

if TYPE_CHECKING:
    from patrolserver_exporter.patrolserver.models import Parsed, Software

FINE: dict[str, Any] = {"name": "bash", "version": "5.2", "supported": "yes", "exploits": []}
BASE = "https://api.example.org"


def installed(document: Any) -> Parsed[tuple[Software, ...]]:
    """What is read of a reply to the call for server 1."""
    pages = pages_of_software(BASE, "servers/1/software", "scope=exploits", 1)
    pages.add(json.dumps(document).encode())
    return read_installed(pages)


def about(server: Any) -> list[dict[str, Any]]:
    """Replies that say in each known way that they are about this server."""
    return [
        {"server_id": server, "data": [FINE]},
        {"server": server, "data": [FINE]},
        {"server": {"id": server, "name": "web"}, "software": [FINE]},
        {"data": {"server": {"id": server}, "software": [FINE]}},
        {"data": {"id": server, "name": "web", "software": [FINE]}},
        {"data": [FINE, FINE | {"name": "php", "server_id": server}]},
        {"data": [FINE | {"server": {"id": server}}]},
    ]


@pytest.mark.parametrize("reply", about(7), ids=json.dumps)
def test_the_list_of_another_server_is_a_part(reply: dict[str, Any]) -> None:
    """It fixes nothing, and the gate does not pass."""
    assert "software: page 1 is about server 7" in installed(reply).partial_because


@pytest.mark.parametrize("reply", [*about(1), *about("1"), *about("web-7"), *about(None)], ids=json.dumps)
def test_the_list_of_the_one_that_was_asked_for_is_whole(reply: dict[str, Any]) -> None:
    """However its id is written; a name, or nothing, says nothing."""
    assert installed(reply).partial_because == ()


def test_an_id_that_is_not_the_servers_says_nothing() -> None:
    """That of a software, of the call or of the account."""
    for reply in (
        {"id": 7, "data": [FINE | {"id": 7}]},
        {"id": 7, "software": [FINE]},
        {"account": {"id": 7}, "software": [FINE]},
    ):
        assert installed(reply).partial_because == ()


@pytest.mark.parametrize(("path", "follows"), [("servers/1/software", True), ("servers/7/software", False)])
def test_a_next_page_of_another_server_is_not_followed(path: str, follows: bool) -> None:  # noqa: FBT001
    """Its software would be taken for this one's."""
    pages = pages_of_software(BASE, "servers/1/software", "scope=exploits", 1)
    pages.add(json.dumps({"data": [FINE], "next_page_url": f"{BASE}/{path}?page=2"}).encode())
    assert pages.go_on() is follows
    if not follows:
        why = " ".join(read_installed(pages).partial_because)
        assert "leads to another server, so it is not followed" in why


@pytest.mark.parametrize(
    "reply",
    [{"data": {"server_id": 7, "scanning": False}}, {"server": {"id": 7}, "data": False}, {"data": False, "server": 7}],
    ids=json.dumps,
)
def test_whether_another_server_is_scanned_says_nothing(reply: dict[str, Any]) -> None:
    """Taken for a no, it would end a scan."""
    with pytest.raises(Unreadable, match="about server 7"):
        parse_is_scanning(json.dumps(reply).encode(), server_id=1)
    own = json.loads(json.dumps(reply).replace("7", "1"))
    assert parse_is_scanning(json.dumps(own).encode(), server_id=1) is False


@pytest.mark.parametrize("member", [{"event_id": 4000}, {"webhook_id": 77}, {"event_id": "4000"}])
def test_another_event_is_not_applied(member: dict[str, Any]) -> None:
    """What the one that was asked for is about would be lost."""
    event = {"server_id": 1, "new_issues": []}
    for reply in ({"data": event | member}, {"data": event} | member, event | member):
        with pytest.raises(Unreadable, match="about another event"):
            parse_event(json.dumps(reply).encode(), asked=(1, 2))
    own = {"data": event | {"event_id": 2, "webhook_id": "1"}}
    assert parse_event(json.dumps(own).encode(), asked=(1, 2)).value.server_id == 1
