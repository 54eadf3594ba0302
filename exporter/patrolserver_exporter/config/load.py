"""Loading: a file and the environment in, the frozen configuration out, or every mistake at once."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.inspect import type_info
from yaml import MappingNode, ScalarNode

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config import proxy, schema, values
from patrolserver_exporter.config.hidden import url_passwords
from patrolserver_exporter.config.nodes import MAPPING, MAX_BYTES, TEXT, node_of, parse_nodes
from patrolserver_exporter.config.problem import ConfigError, Mistake, Unfit
from patrolserver_exporter.config.reading import WRONG, Reading
from patrolserver_exporter.config.secret import Secret, holds_certificates, is_world_readable, read_file
from patrolserver_exporter.config.values import MAKE_TOKEN
from patrolserver_exporter.issues.model import Waiver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yaml import Node

    from patrolserver_exporter.clock import Clock

KEY = "PATROLSERVER_KEY"
SECRET = "PATROLSERVER_SECRET"  # noqa: S105 - a variable's name
API_URL = "PATROLSERVER_API_URL"
WEBHOOK_TOKEN = "PATROLSERVER_WEBHOOK_TOKEN"  # noqa: S105 - a variable's name
GOOD_TOKEN = 16
"""Characters of a token that is not guessed."""
VARIABLES = (KEY, f"{KEY}_FILE", SECRET, f"{SECRET}_FILE", API_URL, WEBHOOK_TOKEN, f"{WEBHOOK_TOKEN}_FILE")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, and what should be said about it."""

    config: schema.Config
    warnings: tuple[str, ...] = ()
    """Each with its place, safe to print."""


def load_config(path: Path | None, environ: Mapping[str, str], *, clock: Clock | None = None) -> Loaded:
    """Load the configuration file; without one, the environment alone.

    Where the file has no ``accounts``, the environment's account is taken; otherwise the environment only plays
    through ``!env``. The clock tells which waivers have run out. Raises `ConfigError` with every mistake.
    """
    reading = Reading(file=str(path), folder=path.parent if path else Path(), environ=environ)
    environment = replace(reading, file="environment", folder=Path(), found={})
    root = read_nodes(path, "--config.file") if path else MappingNode(MAPPING, [])
    config: schema.Config = reading.read(type_info(schema.Config), root, "")
    accounts: tuple[schema.Account, ...] | None = None
    if reading.found.get("accounts", (root, WRONG))[1] == ():
        # An empty variable is not set: compose files pass those on.
        if path and not any(environ.get(variable) for variable in VARIABLES):
            reading.wrong(None, "accounts", f"is missing; add it, or set {KEY} and {SECRET} in the environment")
        else:
            accounts = (_environment_account(environment, environ),)
    today = dt.datetime.fromtimestamp((clock or SystemClock()).now(), dt.UTC).date()
    is_open = path is not None and is_world_readable(path)
    _check_secrets(environment, reading, is_open=is_open)
    _check_values(environment, reading, is_open=is_open, today=today)
    if not reading.mistakes:
        accounts = tuple(_with_proxy(environment, account, environ) for account in accounts or config.accounts)
    if reading.mistakes:
        raise ConfigError(tuple(reading.mistakes))
    warnings = ConfigError(tuple(reading.warnings)).errors
    return Loaded(replace(config, accounts=accounts or ()), tuple(map(str, warnings)))


def read_nodes(path: Path, flag: str, *, may_be_empty: bool = False) -> Node:
    """Read the file that the flag names; raises `ConfigError`."""
    try:
        return parse_nodes(read_file(path, MAX_BYTES, flag), str(path), may_be_empty=may_be_empty)
    except Unfit as error:
        raise ConfigError((Mistake(str(path), None, None, "", str(error)),)) from None


def parse_waivers(text: str | bytes, *, source: str = "waivers") -> tuple[Waiver, ...]:
    """Parse a list of waivers, YAML or JSON, as strictly as the configuration's, or a file with the key ``waivers``.

    ``source`` names the text in errors. Tags are refused, as the text may come from someone who must not read our
    files. Raises `ConfigError` with every mistake.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    try:
        # YAML 1.1 knows neither JSON's surrogate pairs nor every place of its tabs, but it says where a mistake is.
        node = node_of(json.loads(raw[: MAX_BYTES + 1], object_pairs_hook=_unique), source)
    except (ValueError, RecursionError):
        node = parse_nodes(raw, source)
    if isinstance(node, MappingNode) and [key.value for key, _ in node.value] == ["waivers"]:
        # As Ansible's variables have it, so that one file serves both.
        ((_, node),) = node.value
    return _waivers(node, source)


def waivers_of(data: object, *, source: str = "waivers") -> tuple[Waiver, ...]:
    """Read a list of waivers from decoded JSON, as strictly as from text; raises `ConfigError`."""
    return _waivers(node_of(data, source), source)


def _waivers(node: Node, source: str) -> tuple[Waiver, ...]:
    waivers: tuple[Waiver, ...] = Reading(file=source).whole(tuple[Waiver, ...], node)
    return waivers


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _environment_account(reading: Reading, environ: Mapping[str, str]) -> schema.Account:
    given: dict[str, Any] = {}
    kinds = {KEY: schema.Credential, SECRET: schema.Credential, WEBHOOK_TOKEN: schema.Token, API_URL: schema.ApiUrl}
    for variable, kind in kinds.items():
        value, file = environ.get(variable), environ.get(f"{variable}_FILE") if variable != API_URL else None
        if value and file:
            given[variable] = reading.wrong(None, variable, f"is set, and {variable}_FILE too; unset one of them")
        elif file:
            given[variable] = reading.read(type_info(kind), ScalarNode("!file", file), f"{variable}_FILE")
        elif value:
            given[variable] = reading.read(type_info(kind), ScalarNode("!env", variable), variable)
        elif variable in {KEY, SECRET}:
            remedy = f"set it or {variable}_FILE, or give accounts in a file by --config.file"
            given[variable] = reading.wrong(None, variable, f"is not set; {remedy}")
    tokens = (given[WEBHOOK_TOKEN],) if WEBHOOK_TOKEN in given else ()
    account = schema.Account(key=given[KEY], secret=given[SECRET], webhook_tokens=tokens)
    return replace(account, api_url=given.get(API_URL, account.api_url))


def _with_proxy(reading: Reading, account: schema.Account, environ: Mapping[str, str]) -> schema.Account:
    """The account with the proxy that the environment names, where it names none itself."""
    if account.proxy_url is not None or (variable := proxy.variable_for(account.api_url, environ)) is None:
        return account
    try:
        return replace(account, proxy_url=proxy.proxy_from(variable, environ))
    except Unfit as error:
        if variable not in reading.found:
            # Once, however many accounts there are.
            reading.wrong(None, variable, str(error))
            reading.found[variable] = MappingNode(MAPPING, []), WRONG
    return account


def _check_secrets(*readings: Reading, is_open: bool) -> None:
    """Warn of secrets that others may know, and refuse a token that is given twice."""
    first: dict[str, str] = {}
    for reading, (path, (node, secret)) in ((one, found) for one in readings for found in one.found.items()):
        if not isinstance(secret, Secret):
            continue
        origin, _, source = secret.origin.partition(" ")
        if origin == "file" and is_world_readable(Path(source)):
            reading.warn(node, path, f"is read from a file that everyone may read; chmod o-r {source}")
        elif origin == "literal" and is_open:
            remedy = f"chmod o-r {reading.file}, or use !file"
            reading.warn(node, path, f"is a secret in a file that everyone may read; {remedy}")
        if "token" not in path.lower():
            continue
        if (twin := first.setdefault(secret.reveal(), path)) != path:
            reading.wrong(node, path, f"is the same token as {twin}; give each its own ({MAKE_TOKEN})")
        if len(secret.reveal()) < GOOD_TOKEN:
            reading.warn(node, path, f"is shorter than {GOOD_TOKEN} characters and may be guessed; {MAKE_TOKEN}")


def _check_values(*readings: Reading, is_open: bool, today: dt.date) -> None:
    """Note what does not go together, and warn of what should not stay so."""
    first: dict[tuple[str, str], str] = {}
    for reading, (path, (node, value)) in ((one, found) for one in readings for found in one.found.items()):
        match re.sub(r"\[\d+\]", "[]", path), value:
            case ("accounts[].name" | "api.tokens[].name") as place, str():
                item = path.removesuffix(".name")
                if (twin := first.setdefault((place, value), item)) != item:
                    hint = " (without one it is default)" if value == "default" else ""
                    reading.wrong(node, path, f"is the same as that of {twin}; give each its own name{hint}")
            case (("accounts[].api_url" | "PATROLSERVER_API_URL"), str()) if values.is_plain_http_abroad(value):
                reading.warn(node, path, "sends key and secret over plain http, where others can read them; use https")
            case "accounts[].ca_file", Path() if not holds_certificates(value):
                reading.wrong(node, path, "holds no certificates in PEM, or cannot be read; correct the path")
            case "store.url", str() if is_open and node.tag == TEXT and url_passwords(value):
                remedy = "chmod o-r the file, or use !file"
                reading.warn(node, path, f"holds a password in a file that everyone may read; {remedy}")
            case "gate.default_policy", str() if (policies := reading.found["gate.policies"][1]) is not WRONG:
                known = f"known are {', '.join(policies)}" if policies else "there are none; add it, or leave this out"
                if value not in policies:
                    reading.wrong(node, path, f"names no policy of gate.policies; {known}")
            case _, dt.date() if value < today:
                remedy = "the waiver has no effect any more, remove or renew it"
                reading.warn(node, path, f"has passed ({value}); {remedy}")
