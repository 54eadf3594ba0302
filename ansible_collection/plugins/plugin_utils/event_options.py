# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of an event source, which nobody checks before it gets them: by what its documentation says, and as modules do."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.patrolserver.monitoring.plugins.module_utils import connection
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

CREDENTIALS = ("token", "username", "password")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
FEEDBACK_QUEUES = ("eda_feedback_queue", "feedback_queue")
NO_ARGUMENTS_OF_OURS = ("_source_name", "source_name", *FEEDBACK_QUEUES)


def checked(args: dict[str, Any], schema: dict[str, dict[str, Any]], variables: dict[str, str]) -> dict[str, Any]:
    """Return the options with their defaults; ``variables`` names those of the connection, in capitals the environment's.

    :raises ValueError: for one that is unknown or makes no sense; that ends the rulebook at its start.
    """
    given = {name: value for name, value in args.items() if name not in NO_ARGUMENTS_OF_OURS}
    unknown = sorted(set(given) - set(schema))
    if unknown:
        raise ValueError("patrolserver.monitoring.issues does not know {0}".format(", ".join(unknown)))
    given = {
        **_environment(given, variables),
        **{name: value for name, value in given.items() if not _is_unset(value)},
    }
    options = {
        name: _typed(name, option, given[name]) if name in given else option.get("default")
        for name, option in schema.items()
    }
    if isinstance(args.get("change"), (list, str)) and not options["change"]:
        raise ValueError("change is empty, so that nothing would ever make an event; leave it out for its default")
    _check_pairs(options)
    _check_cursor_file(options["cursor_file"])
    try:
        return connection.checked(options, "exporter_url")
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _is_unset(value: Any) -> bool:
    return value is None or value == ""


def _environment(given: dict[str, Any], variables: dict[str, str]) -> dict[str, str]:
    """Return what the environment says of the connection. Who names credentials wants no others."""
    named = any(not _is_unset(given.get(name)) for name in CREDENTIALS)
    found = {name: os.environ.get(variable.upper()) for name, variable in variables.items()}
    return {name: value for name, value in found.items() if value and not (named and name in CREDENTIALS)}


def _check_pairs(options: dict[str, Any]) -> None:
    if options["username"] and options["token"]:
        raise ValueError("token and username exclude each other")
    for one, other in (("username", "password"), ("client_cert", "client_key")):
        if bool(options[one]) != bool(options[other]):
            raise ValueError("{0} and {1} go together".format(one, other))


def _check_cursor_file(path: str | None) -> None:
    folder = os.path.dirname(os.path.abspath(path or "."))
    if path and (os.path.isdir(path) or not os.access(folder, os.W_OK | os.X_OK)):
        raise ValueError("cursor_file: {0} has to be a file in a folder that is there and writable".format(path))


def _typed(name: str, option: dict[str, Any], value: Any) -> Any:
    """Return the value in the option's type; what a variable brings may be written as text.

    :raises ValueError: if it is none of that type, out of bounds, or none of the choices.
    """
    kind = option["type"]
    if kind == "list":
        return _chosen(name, option["choices"], value)
    if kind == "bool":
        word = str(value).lower()
        if word not in TRUE + FALSE:
            raise ValueError("{0} has to be true or false, not {1!r}".format(name, value))
        return word in TRUE
    if kind in ("str", "path"):
        return _text(name, kind, value)
    return _number(name, option, value)


def _number(name: str, option: dict[str, Any], value: Any) -> float:
    try:
        number = (int if option["type"] == "int" else float)(str(value))
    except ValueError:
        raise ValueError("{0} has to be a number, not {1!r}".format(name, value)) from None
    # The connection's bounds are the modules' own.
    if "minimum" in option and not option["minimum"] <= number <= option["maximum"]:  # Neither holds for NaN.
        raise ValueError(
            "{0} has to be from {1} to {2}, not {3}".format(name, option["minimum"], option["maximum"], value)
        )
    return number


def _text(name: str, kind: str, value: Any) -> str:
    # ansible-rulebook makes numbers of variables that look like one.
    if isinstance(value, int) and not isinstance(value, bool) and name in CREDENTIALS:
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("{0} has to be text".format(name))
    return os.path.expanduser(value) if kind == "path" else value


def _chosen(name: str, choices: list[str], value: Any) -> list[str]:
    values = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)):
        raise ValueError("{0} has to be a list".format(name))
    wrong = [str(one) for one in values if one not in choices]
    if wrong:
        raise ValueError("{0} knows {1}, not {2}".format(name, ", ".join(choices), ", ".join(wrong)))
    return list(values)
