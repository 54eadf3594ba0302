"""The account that the environment gives: enough to start without a configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config import values
from patrolserver_exporter.config.nodes import Place
from patrolserver_exporter.config.problem import ConfigError, Problem, Unfit
from patrolserver_exporter.config.reading import FoundSecret, Reading
from patrolserver_exporter.config.schema import Account
from patrolserver_exporter.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY = "PATROLSERVER_KEY"
SECRET = "PATROLSERVER_SECRET"  # noqa: S105 - a variable's name
API_URL = "PATROLSERVER_API_URL"
WEBHOOK_TOKEN = "PATROLSERVER_WEBHOOK_TOKEN"  # noqa: S105 - a variable's name
VARIABLES = (KEY, f"{KEY}_FILE", SECRET, f"{SECRET}_FILE", API_URL, WEBHOOK_TOKEN, f"{WEBHOOK_TOKEN}_FILE")
PLACE = "environment"


def names_account(environ: Mapping[str, str]) -> bool:
    """Whether any variable of the account is set. An empty one is not: compose files pass those on."""
    return any(environ.get(variable) for variable in VARIABLES)


def account_of(environ: Mapping[str, str], reading: Reading) -> Account | None:
    """Return the account, or None after noting what is missing or does not fit."""
    key = _secret(environ, reading, KEY, values.credential)
    secret = _secret(environ, reading, SECRET, values.credential)
    token = _secret(environ, reading, WEBHOOK_TOKEN, values.token)
    given: dict[str, Any] = {"webhook_tokens": (token,)} if token is not None else {}
    if url := environ.get(API_URL):
        try:
            given["api_url"] = values.api_url(url)
        except Unfit as error:
            _note(reading, API_URL, str(error))
    for variable, value in ((KEY, key), (SECRET, secret)):
        if value is None and not _is_set(environ, variable):
            _note(
                reading, variable, f"is not set; set it or {variable}_FILE, or give accounts in a file by --config.file"
            )
    if key is None or secret is None or reading.problems:
        return None
    return Account(key=key, secret=secret, **given)


def _is_set(environ: Mapping[str, str], variable: str) -> bool:
    return bool(environ.get(variable) or environ.get(f"{variable}_FILE"))


def _secret(environ: Mapping[str, str], reading: Reading, variable: str, parse: Callable[[str], str]) -> Secret | None:
    value, file = environ.get(variable), environ.get(f"{variable}_FILE")
    if value and file:
        _note(reading, variable, f"is set, and {variable}_FILE too; unset one of them")
        return None
    if not value and not file:
        return None
    shown = f"{variable}_FILE" if file else variable
    try:
        secret = Secret.from_file(Path(file)) if file else Secret.from_env(variable, environ)
        parse(secret.reveal())
    except ConfigError as error:
        _note(reading, shown, error.errors[0].message)
        return None
    except Unfit as error:
        _note(reading, shown, str(error))
        return None
    reading.secrets.append(FoundSecret(secret, PLACE, Place(), shown))
    return secret


def _note(reading: Reading, variable: str, message: str) -> None:
    reading.problems.append(Problem(PLACE, None, None, variable, message))
