from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from scripts.distribution.gate_file import NeedsLibrary, modules, waiver_members

from patrolserver_exporter.commands import gate, gate_file
from patrolserver_exporter.config.problem import ConfigError

ROOT = Path(__file__).parents[3]
FILE = gate_file.edition(gate.EDITION.policy_flags, tuple(waiver_members()))
WAIVER: dict[str, Any] = {"server": "web*", "software": "openssl", "until": "2099-01-31", "reason": "accepted"}


@pytest.mark.parametrize(
    "waivers",
    [
        [],
        [WAIVER],
        [WAIVER, WAIVER | {"exploit": "CVE-2026-*", "kind": "exploitable", "max_severity": "high"}],
        [WAIVER | {"exploit": None, "kind": None, "max_severity": None}],
        [WAIVER | {"reason": 5, "software": True}],
        [WAIVER | {"reason": "\N{GRINNING FACE}"}],
    ],
)
def test_waivers_in_json_are_read_as_the_package_reads_them(waivers: list[Any]) -> None:
    """Member by member, with what is null left out."""
    text = json.dumps(waivers).encode()
    assert FILE.read_waivers(text, "w.json") == gate.EDITION.read_waivers(text, "w.json")
    under_its_key = json.dumps({"waivers": waivers}).encode()
    assert FILE.read_waivers(under_its_key, "w.json") == gate.EDITION.read_waivers(under_its_key, "w.json")


REFUSED: tuple[Any, ...] = (
    {},
    WAIVER,
    [[]],
    ["web"],
    [{}],
    [WAIVER | {"until": "2027-02-30"}],
    [WAIVER | {"until": "20270131"}],
    [WAIVER | {"until": None}],
    [WAIVER | {"reason": ""}],
    [WAIVER | {"reason": " x"}],
    [WAIVER | {"reason": "a\nb"}],
    [WAIVER | {"server": ["web"]}],
    [WAIVER | {"kind": "odd"}],
    [WAIVER | {"max_severity": "HIGH"}],
    [WAIVER | {"untill": "2099-01-31"}],
    [{name: value for name, value in WAIVER.items() if name != "until"}],
    [WAIVER | {"reason": "\ud800"}],
)


@pytest.mark.parametrize(
    "text",
    [
        *map(json.dumps, REFUSED),
        '[{"server": "a", "server": "b", "software": "c", "until": "2099-01-31", "reason": "d"}]',
        " " * 1024 * 1024 + json.dumps([WAIVER]),
        "[",
        "",
    ],
)
def test_what_the_package_refuses_the_file_refuses(text: str) -> None:
    """No waiver holds here that would not hold there."""
    for edition in (gate.EDITION, FILE):
        with pytest.raises(ConfigError):
            edition.read_waivers(text.encode(), "w.json")


def test_yaml_is_refused_by_name() -> None:
    """With what to do."""
    with pytest.raises(ConfigError, match=r"^w\.yml: is not JSON, and patrolserver-gate reads no YAML; write it as"):
        FILE.read_waivers(b"- { server: web1 }\n", "w.yml")


def test_every_mistake_is_told_at_once() -> None:
    """With its place."""
    with pytest.raises(ConfigError) as caught:
        FILE.read_waivers(json.dumps([WAIVER, {"server": "a", "reasn": "b"}]).encode(), "w.json")
    places = {one.key for one in caught.value.errors}
    assert places == {"[1].reasn", "[1].software", "[1].until", "[1].reason"}


def test_what_needs_a_library_cannot_be_built() -> None:
    """The module that imports it is named, and the library."""
    with pytest.raises(NeedsLibrary, match=r"gate\.py imports msgspec"):
        modules("patrolserver_exporter.commands.gate")


def test_its_modules_are_checked_for_the_oldest_python() -> None:
    """The style's rules ask for what newer ones have, unless they are told."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["per-file-target-version"]
    modules_of_it = {str(path.relative_to(ROOT)) for path in modules() if path.name != "__init__.py"}
    assert settings == dict.fromkeys(modules_of_it, "py39")


def test_what_is_for_types_alone_is_not_in_it() -> None:
    """Nor what nobody needs."""
    names = {path.stem for path in modules()}
    assert {"gate_asking", "exporter_client", "secret"} <= names
    assert not {"gate", "load", "policy", "server", "client"} & names
