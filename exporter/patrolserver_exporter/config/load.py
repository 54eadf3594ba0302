"""Loading: a file and the environment in, the frozen configuration out, or every mistake at once."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaml import MappingNode, Node, ScalarNode

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config import schema
from patrolserver_exporter.config.nodes import MAX_BYTES, is_null, node_of, parse_nodes
from patrolserver_exporter.config.problem import ConfigError, Problem
from patrolserver_exporter.config.reading import Reading, Section, shape_of
from patrolserver_exporter.config.secret import is_world_readable
from patrolserver_exporter.issues.model import Waiver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.config.reading import Value

KEY = "PATROLSERVER_KEY"
SECRET = "PATROLSERVER_SECRET"  # noqa: S105 - a variable's name
API_URL = "PATROLSERVER_API_URL"
WEBHOOK_TOKEN = "PATROLSERVER_WEBHOOK_TOKEN"  # noqa: S105 - a variable's name
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
    today = dt.datetime.fromtimestamp((clock or SystemClock()).now(), dt.UTC).date()
    reading = Reading(file=str(path), folder=path.parent if path else Path(), environ=environ)
    given: dict[str, Any] = {}
    if path:
        root = _root(path)
        reading.is_open = is_world_readable(path)
        given = Section(schema.Config).values(reading, root, "")
    if "accounts" not in given:
        # An empty variable is not set: compose files pass those on.
        if path and not any(environ.get(variable) for variable in VARIABLES):
            message = f"is missing; add it, or set {KEY} and {SECRET} in the environment"
            reading.wrong(None, "accounts", message)
        else:
            given["accounts"] = (_environment_account(reading, environ),)
    if reading.problems:
        raise ConfigError(tuple(reading.problems))
    for key, (node, value) in reading.found.items():
        if isinstance(value, dt.date) and value < today:
            reading.warn(node, key, f"has passed ({value}); the waiver has no effect any more, remove or renew it")
    warnings = ConfigError(tuple(reading.warnings)).errors
    return Loaded(schema.Config(**given), tuple(str(warning) for warning in warnings))


def parse_waivers(text: str | bytes, *, source: str = "waivers") -> tuple[Waiver, ...]:
    """Parse a list of waivers, YAML or JSON, as strictly as the configuration's.

    ``source`` names the text in errors. Tags are refused, as the text may come from someone who must not read our
    files. Raises `ConfigError` with every mistake.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return _waivers(_json_nodes(raw, source) or parse_nodes(raw, source), source)


def waivers_of(data: object, *, source: str = "waivers") -> tuple[Waiver, ...]:
    """Read a list of waivers from decoded JSON, as strictly as from text; raises `ConfigError`."""
    return _waivers(node_of(data, source), source)


def _waivers(node: Node, source: str) -> tuple[Waiver, ...]:
    reading = Reading(file=source)
    waivers = shape_of(tuple[Waiver, ...]).read(reading, node, "")
    if reading.problems:
        raise ConfigError(tuple(reading.problems))
    return tuple(waivers)


def _json_nodes(raw: bytes, source: str) -> Node | None:
    """Return the nodes of sound JSON; YAML 1.1 knows neither its surrogate pairs nor every place of its tabs."""
    if len(raw) > MAX_BYTES or not raw.lstrip().startswith(b"["):
        return None
    try:
        return node_of(json.loads(raw, object_pairs_hook=_unique), source)
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The reader of YAML says where it is.
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _root(path: Path) -> Node:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        message = f"cannot be read ({reason}); correct --config.file, or let the exporter's user read it"
        raise ConfigError((Problem(str(path), None, None, "", message),)) from None
    root = parse_nodes(raw, str(path))
    if not isinstance(root, MappingNode) and not is_null(root):
        mark, message = root.start_mark, "needs keys and values, such as accounts: and poll:"
        raise ConfigError((Problem(str(path), mark.line + 1, mark.column + 1, "", message),))
    return root


def _environment_account(reading: Reading, environ: Mapping[str, str]) -> schema.Account:
    own = Reading(file="environment", environ=environ, tokens=reading.tokens)
    key = _variable(own, KEY, schema.CREDENTIAL)
    secret = _variable(own, SECRET, schema.CREDENTIAL)
    token = _variable(own, WEBHOOK_TOKEN, schema.TOKEN)
    given: dict[str, Any] = {"webhook_tokens": (token,)} if token else {}
    if environ.get(API_URL):
        given["api_url"] = schema.API_URL.read(own, ScalarNode("!env", API_URL), API_URL)
    for variable, value in ((KEY, key), (SECRET, secret)):
        if value is None:
            remedy = f"set it or {variable}_FILE, or give accounts in a file by --config.file"
            own.wrong(None, variable, f"is not set; {remedy}")
    reading.problems.extend(own.problems)
    reading.warnings.extend(own.warnings)
    return schema.Account(key=key, secret=secret, **given)


def _variable(reading: Reading, variable: str, shape: Value) -> Any:
    """Return the secret that the variable or its ``…_FILE`` gives, None without both, `WRONG` after noting why."""
    environ = reading.environ or {}
    value, file = environ.get(variable), environ.get(f"{variable}_FILE")
    if value and file:
        return reading.wrong(None, variable, f"is set, and {variable}_FILE too; unset one of them")
    if file:
        return shape.read(reading, ScalarNode("!file", file), f"{variable}_FILE")
    return shape.read(reading, ScalarNode("!env", variable), variable) if value else None
