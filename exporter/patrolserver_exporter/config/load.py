"""Loading: a file and the environment in, the frozen configuration out, or every mistake at once."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.clock import SystemClock
from patrolserver_exporter.config import environment, rules, values
from patrolserver_exporter.config.keys import CONFIG, WAIVERS
from patrolserver_exporter.config.nodes import MAX_BYTES, Mapping, Node, Place, Scalar, node_of, parse_nodes
from patrolserver_exporter.config.problem import ConfigError, Problem
from patrolserver_exporter.config.reading import WRONG, Reading
from patrolserver_exporter.config.schema import Account, Config

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as AbstractMapping

    from patrolserver_exporter.clock import Clock
    from patrolserver_exporter.issues.model import Waiver


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, and what should be said about it."""

    config: Config
    warnings: tuple[str, ...] = ()
    """Each with its place, safe to print."""


def load_config(path: Path | None, environ: AbstractMapping[str, str], *, clock: Clock | None = None) -> Loaded:
    """Load the configuration file; without one, the environment alone.

    Where the file has no ``accounts``, the environment's account is taken; otherwise the environment only plays
    through ``!env``. The clock tells which waivers have run out. Raises `ConfigError` with every mistake.
    """
    today = dt.datetime.fromtimestamp((clock or SystemClock()).now(), dt.UTC).date()
    reading = Reading(file=str(path), folder=path.parent if path else Path(), environ=environ)
    root = _top_level(_read_file(path), reading.file) if path else Mapping(Place(), ())
    given = CONFIG.values(reading, root, "")
    extra = []
    if "accounts" not in given:
        account = _environment_account(reading, environ, path)
        given["accounts"] = (account,) if account else WRONG
        if account and values.is_plain_http_abroad(account.api_url):
            extra.append(Problem(environment.PLACE, None, None, environment.API_URL, rules.plain_http_warning()))
    reading.problems.extend(rules.check(reading))
    _raise_if_any(reading.problems)
    warnings = [*rules.warn(reading, path, today), *extra]
    return Loaded(Config(**given), tuple(str(warning) for warning in _in_order(warnings)))


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
    waivers: Any = WAIVERS.read(reading, node, "")
    _raise_if_any(reading.problems)
    return tuple(waivers)


def _json_nodes(raw: bytes, source: str) -> Node | None:
    """Return the nodes of sound JSON; YAML 1.1 knows neither its surrogate pairs nor every place of its tabs."""
    if len(raw) > MAX_BYTES or not raw.lstrip().startswith(b"["):
        return None
    try:
        data = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return node_of(data, source)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # The reader of YAML says where it is.
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _read_file(path: Path) -> Node:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        message = f"cannot be read ({reason}); correct --config.file, or let the exporter's user read it"
        raise ConfigError((Problem(str(path), None, None, "", message),)) from None
    return parse_nodes(raw, str(path))


def _top_level(root: Node, file: str) -> Mapping:
    if isinstance(root, Scalar) and root.is_null:
        return Mapping(root.place, ())
    if not isinstance(root, Mapping):
        message = "needs keys and values, such as accounts: and poll:"
        raise ConfigError((Problem(file, root.place.line, root.place.column, "", message),))
    return root


def _environment_account(reading: Reading, environ: AbstractMapping[str, str], path: Path | None) -> Account | None:
    if path and not environment.names_account(environ):
        reading.wrong(
            None,
            "accounts",
            f"is missing; add it, or set {environment.KEY} and {environment.SECRET} in the environment",
        )
        return None
    own = Reading(file=environment.PLACE)
    account = environment.account_of(environ, own)
    reading.problems.extend(own.problems)
    reading.secrets.extend(own.secrets)
    return account


def _raise_if_any(problems: Iterable[Problem]) -> None:
    if found := _in_order(problems):
        raise ConfigError(found)


def _in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
