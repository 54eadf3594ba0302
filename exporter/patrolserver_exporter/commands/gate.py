"""The `gate` command as the package has it: its flags are those of the policy's types, and waivers may be YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec

from patrolserver_exporter.commands import gate_asking
from patrolserver_exporter.commands.gate_policy import Edition, FlagKind, PolicyFlag
from patrolserver_exporter.config.load import parse_waivers
from patrolserver_exporter.gate.policy import Count, Duration, Grace, KindLimits, Policy, Risk, SeverityLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patrolserver_exporter.commands.flags import Parser

_KINDS: dict[Any, FlagKind] = {
    Count: "count",
    Risk: "risk",
    Duration: "duration",
    bool: "switch",
    Grace: "grace",
}


def policy_flags() -> Iterator[PolicyFlag]:
    """A flag for each member of the policy; waivers come in a file."""
    for name, hint in get_type_hints(Policy, include_extras=True).items():
        if hint in (SeverityLimits, KindLimits):
            for member, limit in get_type_hints(hint, include_extras=True).items():
                yield PolicyFlag(f"--max-{member}", f"{name}.{member}", _KINDS[_without_null(limit)])
        elif name != "waivers":
            yield PolicyFlag(f"--{name.replace('_', '-')}", name, _KINDS[_without_null(hint)])


def _without_null(hint: Any) -> Any:
    inner = [one for one in get_args(hint) if one is not type(None)]
    return inner[0] if type(None) in get_args(hint) else hint


def _waivers(text: bytes, source: str) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(waiver) for waiver in parse_waivers(text, source=source)]


EDITION = Edition(
    program="patrolserver-exporter gate",
    policy_flags=tuple(policy_flags()),
    waivers="YAML or JSON",
    read_waivers=_waivers,
)


def parser() -> Parser:
    """All flags of the gate."""
    return gate_asking.parser(EDITION)


def main(arguments: Sequence[str]) -> int:
    """Ask, report, and return the exit code."""
    return gate_asking.main(arguments, EDITION)
