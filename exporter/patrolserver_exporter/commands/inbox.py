"""``patrolserver-exporter inbox``: webhook deliveries of the running exporter, for operators."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands import exporter_client, flags, output
from patrolserver_exporter.commands.exporter_client import ExporterError
from patrolserver_exporter.commands.gate_report import cut, printable, table
from patrolserver_exporter.inbox.deliveries import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.commands.exporter_client import ExporterClient

OK, FAILED = 0, 1
_STATES = [state.value for state in DeliveryState]
_COLUMNS = ("id", "account", "identifier", "event_id", "state", "received_at", "last_error")
_MAX_ACCOUNT = 16
_WIDTH = 80
"""Letters of a line where nobody knows how many fit."""
_ID = re.compile(r"[0-9]{1,16}", re.ASCII)

_DESCRIPTION = """\
list    deliveries, one a line
show    one delivery, with the reply of PatrolServer that could not be understood, if it was kept
replay  fetch the events of deliveries again; each takes effect as of its reception, so a replay never hurts
drop    remove deliveries for good"""


def parser() -> flags.Parser:
    """All flags of the inbox."""
    found = flags.Parser("patrolserver-exporter inbox", _DESCRIPTION)
    found.actions(*_ACTIONS)
    found.add_argument("ids", metavar="ID", nargs="*", default=[], help="of deliveries, for show, replay and drop")
    found.add_argument(
        "--state", choices=_STATES, action="append", help="for list, and for replay without ids; may be repeated"
    )
    found.add_argument("--account", metavar="NAME", action="append", type=flags.text, help="the same for accounts")
    found.add_argument("--format", choices=["table", "json"], default="table", help="of list and show (default: table)")
    exporter_client.add_flags(found)
    found.version_flag()
    return found


def main(arguments: Sequence[str]) -> int:
    """Do it; returns the exit code."""
    flag_parser = parser()
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    _check(flag_parser, values)
    client = exporter_client.from_flags(flag_parser, values)
    try:
        return _ACTIONS[values["action"]](client, values)
    except ExporterError as error:
        _say(str(error))
        return FAILED


def _check(flag_parser: flags.Parser, values: dict[str, Any]) -> None:
    action, ids = values["action"], values["ids"]
    filtered = values["state"] is not None or values["account"] is not None
    for one in ids:
        if not _ID.fullmatch(one):
            flag_parser.error(f"{one} is not an id: ids are numbers, and list shows them")
    if action == "list" and ids:
        flag_parser.error("list takes no ids; show takes one")
    if action == "show" and len(ids) != 1:
        flag_parser.error("show takes one id")
    if action == "drop" and not ids:
        flag_parser.error("drop takes ids")
    if action == "replay" and not ids and values["state"] is None:
        flag_parser.error("replay takes ids, or --state")
    if filtered and (ids or action in {"show", "drop"}):
        flag_parser.error("--state and --account go with list, or with replay without ids")


def _query(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name in ("state", "account") for value in values[name] or ()]


def _list(client: ExporterClient, values: dict[str, Any]) -> int:
    items = list(client.items("/inbox", _query(values)))
    unknown = _unknown_accounts(client, values["account"] or ())
    if values["format"] == "json":
        _line(json.dumps(items, indent=2))
    elif items:
        _line(_fitting(items))
    elif not unknown:
        _say("There are no such deliveries.")
    if unknown:
        _say(unknown)
    return FAILED if unknown else OK


def _fitting(items: Sequence[dict[str, Any]]) -> str:
    """One delivery a line, as wide as the terminal; show and --format=json tell the rest."""
    width = shutil.get_terminal_size((_WIDTH, 24)).columns
    height = shutil.get_terminal_size().lines if output.is_terminal() else len(items) + 4
    kept = items if len(items) + 2 <= height else items[-max(1, height - 4) :]
    rows = [_cells(item) for item in kept]
    lines = [cut(line, width) for line in table([_COLUMNS, *rows])]
    if len(kept) < len(items):
        lines[1:1] = [
            f"… {len(items) - len(kept)} that came earlier; all of them: patrolserver-exporter inbox list | less"
        ]
    return "\n".join(lines)


def _cells(item: dict[str, Any]) -> tuple[str, ...]:
    text = {name: "" if item.get(name) is None else str(item[name]) for name in _COLUMNS}
    text["account"] = cut(text["account"], _MAX_ACCOUNT)
    text["identifier"] = text["identifier"].removeprefix("webhook.")
    # The month, the day and the minute; show tells the rest.
    text["received_at"] = text["received_at"][5:16].replace("T", " ")
    return tuple(text.values())


def _unknown_accounts(client: ExporterClient, asked: Sequence[str]) -> str | None:
    """What to say of accounts that there are not; None if there are all."""
    if not asked:
        return None
    try:
        known = [account["name"] for account in client.get("/status")["accounts"]]
    except (exporter_client.Refused, KeyError, TypeError):
        # The token may not read it.
        return None
    unknown = [name for name in asked if name not in known]
    return f"There is no account {', '.join(unknown)}; there are: {', '.join(known)}." if unknown else None


def _show(client: ExporterClient, values: dict[str, Any]) -> int:
    item = client.get(f"/inbox/{int(values['ids'][0])}")
    if values["format"] == "json":
        _line(json.dumps(item, indent=2))
        return OK
    body = item.pop("body", None)
    for name, value in item.items():
        _line(f"{name}: {printable('' if value is None else str(value))}")
    if body is not None:
        _line("body:")
        _line("\n".join(f"  {printable(line)}" for line in body.splitlines()))
    return OK


def _replay(client: ExporterClient, values: dict[str, Any]) -> int:
    ids = values["ids"] or [item["id"] for item in client.items("/inbox", _query(values))]
    if not values["ids"] and (unknown := _unknown_accounts(client, values["account"] or ())):
        _say(unknown)
        return FAILED
    if not ids:
        _say("There are no such deliveries.")
        return OK
    return _each(ids, lambda one: client.post(f"/inbox/{one}/replay"), "due again")


def _drop(client: ExporterClient, values: dict[str, Any]) -> int:
    return _each(values["ids"], lambda one: client.delete(f"/inbox/{one}"), "dropped")


def _each(ids: Sequence[int | str], act: Callable[[int], object], done: str) -> int:
    """Do it to each, even if others fail."""
    failed = 0
    for one in ids:
        try:
            act(int(one))
        except exporter_client.Refused as error:
            failed += 1
            _say(f"{int(one)}: {error}")
        else:
            _line(f"{int(one)}: {done}")
    return FAILED if failed else OK


def _line(text: str) -> None:
    output.show(f"{text}\n")


def _say(message: str) -> None:
    output.remark(printable(message))


_ACTIONS = {"list": _list, "show": _show, "replay": _replay, "drop": _drop}
