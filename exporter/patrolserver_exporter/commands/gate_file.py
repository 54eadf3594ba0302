"""The gate as one file for CI machines: what the package takes from its libraries is written into the file as data.

``scripts/distribution`` builds it. It takes waivers as JSON alone, as Python has no YAML of its own.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.commands import documents, gate_asking
from patrolserver_exporter.commands.gate_policy import Edition
from patrolserver_exporter.config import values
from patrolserver_exporter.config.problem import ConfigError, Mistake, Unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patrolserver_exporter.commands.gate_policy import PolicyFlag

PROGRAM = "patrolserver-gate"
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class WaiverMember:
    """A member of a waiver."""

    name: str
    required: bool
    choices: tuple[str, ...] = ()
    """Words that it may be, where not every text will do."""
    is_date: bool = False


@dataclass(frozen=True)
class _Waivers:
    """Reads a file of waivers, as strictly as the configuration's, into what a request holds."""

    members: tuple[WaiverMember, ...]

    def __call__(self, raw: bytes, source: str) -> list[dict[str, Any]]:
        wrong = partial(_mistake, source)
        if len(raw) > _MAX_BYTES:
            raise ConfigError((wrong("", f"is over {_MAX_BYTES} bytes; shorten it"),))
        try:
            data = json.loads(raw, object_pairs_hook=_unique)
            documents.decode(raw)
        except Unfit as error:
            raise ConfigError((wrong("", str(error)),)) from None
        except (ValueError, RecursionError):
            message = f"is not JSON, and {PROGRAM} reads no YAML; write it as JSON, with the same members"
            raise ConfigError((wrong("", message),)) from None
        if isinstance(data, dict) and list(data) == ["waivers"]:
            data = data["waivers"]
        if not isinstance(data, list):
            raise ConfigError((wrong("", "needs a list"),))
        mistakes: list[Mistake] = []
        waivers = [self._waiver(one, f"[{place}]", wrong, mistakes) for place, one in enumerate(data)]
        if mistakes:
            raise ConfigError(tuple(mistakes))
        return waivers

    def _waiver(
        self, data: Any, path: str, wrong: Callable[[str, str], Mistake], mistakes: list[Mistake]
    ) -> dict[str, Any]:
        if not isinstance(data, dict):
            mistakes.append(wrong(path, "needs an object"))
            return {}
        known = {member.name: member for member in self.members}
        mistakes += [
            wrong(f"{path}.{name}", f"is unknown; known here: {', '.join(known)}") for name in data if name not in known
        ]
        read = {}
        for name, member in known.items():
            if name not in data or (data[name] is None and not member.required):
                if member.required:
                    mistakes.append(wrong(f"{path}.{name}", "is missing; add it"))
                continue
            try:
                read[name] = _parsed(member, data[name])
            except Unfit as error:
                mistakes.append(wrong(f"{path}.{name}", str(error)))
        return read


def _parsed(member: WaiverMember, value: Any) -> str:
    if value is None or isinstance(value, (dict, list)):
        raise Unfit("needs a single value")
    written = str(value).lower() if isinstance(value, bool) else str(value)
    if member.is_date:
        return values.date(written).isoformat()
    if member.choices:
        return values.choice(dict(zip(member.choices, member.choices)))(written)
    return values.text(written)


def _mistake(source: str, key: str, message: str) -> Mistake:
    return Mistake(source, None, None, key, message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Unfit("gives a key twice")
    return dict(pairs)


def edition(policy_flags: tuple[PolicyFlag, ...], waiver_members: tuple[WaiverMember, ...]) -> Edition:
    """The command, with what the package takes from its types."""
    return Edition(PROGRAM, policy_flags, "JSON", _Waivers(waiver_members))


def main(this: Edition, argv: Sequence[str] | None = None) -> int:
    """Ask, report, and return the exit code."""
    try:
        return gate_asking.main(sys.argv[1:] if argv is None else argv, this)
    except KeyboardInterrupt:
        # A gate without an answer is unknown.
        return gate_asking.EXIT_CODES["unknown"]
    finally:
        if argv is None:
            # A late Ctrl-C must not take the place of the exit code that is decided.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
