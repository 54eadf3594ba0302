"""The inputs that are kept: one file for each target, each line one input in base64, those first that reached new code.

Rewritten after a long run by ``python -m tests.faults.fuzz.corpus TARGET FOLDER`` from a folder that libFuzzer merged.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Final

import yaml

_FOLDER: Final = Path(__file__).parent / "corpus"
_MOST: Final = 400
"""Inputs that are kept for a target; the smallest ones."""

_SERVER: Final = {"id": 12, "name": "web-1.example.org", "is_verified": 1}
_SOFTWARE: Final = {
    "name": "OpenSSL",
    "canonical_name": "openssl",
    "version": "1.0.2",
    "supported": False,
    "location": "/usr/bin",
    "new_versions": ["1.0.2u", "3.0.1"],
    "newest_bugfix_release": "1.0.2u",
    "exploits": [{"id": "77", "title": "CVE-2026-0001", "risk": "9.8", "url": "https://example.org/1"}],
}
_EVENT: Final = {
    "identifier": "webhook.new_server_issues",
    "id": 5,
    "event_data": {
        "server_id": 12,
        "new_issues": [{"title": "Upgrade", "description": "old", "software": {"version": "1", "software": _SOFTWARE}}],
    },
}
_REPLIES: Final = (
    {"data": [_SERVER], "error": False},
    {"data": {"servers": [_SERVER], "total": 2, "per_page": 1, "next_page_url": "/api/v1/servers?page=2"}},
    {"data": _SERVER},
    {"data": [_SOFTWARE], "meta": {"complete": False, "warnings": ["scan failed"]}},
    {"data": {"openssl": _SOFTWARE}},
    {"data": _EVENT},
    _EVENT,
    {"data": {"isScanning": "false"}},
    {"error": {"code": 401, "message": "no"}, "success": False},
    [_SERVER, 1, None, "x", [[_SOFTWARE]]],
)
_DELIVERY: Final = {"webhook_patrolserver": 1, "webhook_id": 1, "event_id": "7", "identifier": "webhook.scan_finished"}
_GATE: Final = {
    "servers": ["web-*", 12, {"account": "main", "server": "db"}],
    "account": "main",
    "detail": "all",
    "policy": {
        "max_by_severity": {"critical": 0, "high": 1},
        "max_by_kind": {"unsupported": 0},
        "max_total": 3,
        "max_risk": 7.5,
        "max_age": "6h",
        "grace": {"high": "7d"},
        "baseline": [{"fingerprint": "abc", "kind": "outdated", "severity": "medium", "risk": None, "exploits": []}],
        "waivers": [{"server": "*", "software": "php", "until": "2027-01-31", "reason": "r", "kind": "outdated"}],
        "policy": "production",
        "allow_empty": True,
        "fixable_only": False,
    },
}
_CONFIG: Final = """\
accounts:
  - {name: main, api_url: https://api.example.org, key: k, secret: s, webhook_tokens: [0123456789abcdef]}
  - &other {name: other, key: k, secret: s, servers: {include: ["web-*"], exclude: ["*.lab"]}}
poll: {interval: 15m, concurrency: 8, timeout: 10s, max_requests_per_minute: 600, max_pause: 1h}
webhook: {allowed_networks: [10.0.0.0/8, "::1"], inbox_limit: 100}
issues:
  exploit_risk: 5.0
  settle: 5m
  waivers: [{server: "*.example.org", software: php, kind: outdated, until: 2027-01-31, reason: "why"}]
gate:
  default_policy: production
  inline: tighten
  policies: {production: {max_by_severity: {critical: 0}, max_age: 6h}}
metrics: {software: true, software_limit_per_server: 200}
store: {url: "sqlite:///x.db", retention: 90d}
api: {tokens: [{name: a, token: 0123456789abcdef, scopes: [read]}]}
web: {trusted_proxies: [127.0.0.1]}
"""
_WEB_CONFIG: Final = """\
tls_server_config: {cert_file: server.crt, key_file: server.key, client_auth_type: NoClientCert, min_version: TLS12}
http_server_config: {http2: false, headers: {Strict-Transport-Security: max-age=1, X-Frame-Options: deny}}
basic_auth_users: {ops: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}
rate_limit: {interval: 1s, burst: 2}
"""


def seeds(target: str) -> list[bytes]:
    """Well-formed inputs to begin with. Their first byte is what the target takes for its choice."""
    written = [json.dumps(reply).encode() for reply in _REPLIES]
    multipart = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), str(value).encode())
        for name, value in _DELIVERY.items()
    )
    found = {
        "webhook": [
            b"\1" + json.dumps(_DELIVERY).encode(),
            b"\2" + b"&".join(f"{name}={value}".encode() for name, value in _DELIVERY.items()),
            b"\3" + multipart + b"--x--\r\n",
        ],
        "replies": [bytes([parser]) + reply for parser in range(5) for reply in written],
        "config": [_CONFIG.encode()],
        "web_config": [_WEB_CONFIG.encode()],
        "policy": [bytes([gate]) + json.dumps(_GATE).encode() for gate in range(3)],
    }
    return found[target]


def words(target: str) -> list[str]:
    """Words of the target's language, for libFuzzer's dictionary."""
    text = {
        "webhook": json.dumps(_DELIVERY) + 'Content-Disposition: form-data; name="',
        "replies": json.dumps(_REPLIES),
        "config": _CONFIG + "proxy_url ca_file labels servers replica_name metrics_need_token",
        "web_config": _WEB_CONFIG + "RequireAndVerifyClientCert client_ca_file cipher_suites curve_preferences",
        "policy": json.dumps(_GATE),
    }[target]
    split = "".join(char if char.isalnum() or char in "_-*." else " " for char in text).split()
    return sorted({word for word in split if len(word) > 1} | {": ", "- ", "{", "[", "null", "true", "!env "})


def kept(target: str) -> list[bytes]:
    """The inputs of earlier runs."""
    file = _FOLDER / f"{target}.txt"
    return [base64.b64decode(line) for line in file.read_text().split()] if file.exists() else []


def keep(target: str, folder: Path) -> int:
    """Write the corpus anew from a folder of inputs; how many there are now."""
    inputs = sorted({path.read_bytes() for path in folder.iterdir()}, key=lambda data: (len(data), data))[:_MOST]
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{target}.txt").write_text("".join(base64.b64encode(data).decode() + "\n" for data in inputs))
    return len(inputs)


def lay_out(target: str, folder: Path) -> tuple[Path, Path]:
    """Folder of inputs and file of words for a run of libFuzzer."""
    inputs, dictionary = folder / "inputs", folder / "words"
    inputs.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*seeds(target), *kept(target)]):
        (inputs / f"kept-{number}").write_bytes(data)
    quoted = (json.dumps(word) for word in words(target))
    dictionary.write_text("".join(f"{word}\n" for word in quoted))
    return inputs, dictionary


def mutated_structure(text: bytes, draw: int) -> bytes | None:
    """The same JSON or YAML with one value changed, doubled, taken away or put elsewhere; None if it is neither."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        try:
            document = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
    places: list[tuple[dict[str, object] | list[object], object]] = []
    _walk(document, places, depth=0)
    if not places:
        return None
    holder, key = places[draw % len(places)]
    draw //= len(places)
    odd: list[object] = [None, True, 0, -1, 2**53, 1e400, "", "a\ud800", "\x00", [], {}, [{}] * 40, "9" * 400, 0.1]
    other_holder, other_key = places[draw % len(places)]
    change = [odd[draw % len(odd)], other_holder[other_key], [holder[key]], {"data": holder[key]}]  # type: ignore[index,call-overload]
    holder[key] = change[draw % 7 % 4]  # type: ignore[index,call-overload]
    try:
        return json.dumps(document).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, RecursionError):
        return None


def _walk(value: object, places: list[tuple[dict[str, object] | list[object], object]], depth: int) -> None:
    if depth > 30 or len(places) > 500:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            places.append((value, key))
            _walk(inner, places, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            places.append((value, index))
            _walk(inner, places, depth + 1)


if __name__ == "__main__":
    sys.stdout.write(f"{keep(sys.argv[1], Path(sys.argv[2]))} inputs kept\n")
