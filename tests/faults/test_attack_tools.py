"""The promise on tools that attack: testssl.sh, slowhttptest and wapiti, against an exporter as it is installed."""

from __future__ import annotations

import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from tests.harness.process import NEW_ISSUES, TOKEN, Exporter
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST, all_or_few
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patrolserver_exporter.simulator.server import Simulator

pytestmark = [pytest.mark.promise("attack-tools"), pytest.mark.timeout(LONGEST)]

WEB_CONFIG = """\
tls_server_config: {cert_file: server.pem, key_file: server.key}
http_server_config:
  headers: {Strict-Transport-Security: max-age=31536000, X-Frame-Options: deny, X-XSS-Protection: "1"}
"""
OF_THE_CERTIFICATE = re.compile(r"cert_|DNS_CAArecord|engine_problem")
"""What testssl.sh says of the certificate, which the test makes, and of itself."""
QUICK_TESTS = ["--protocols", "--std"]
CONNECTIONS = 1000 if FULL else 200
SECONDS = 25 if FULL else 14
"""Of an attack; the exporter is to end it sooner."""
ATTACKS = {
    "slow headers": ("-H", "/metrics"),
    "slow bodies": ("-B", f"/webhook/{TOKEN}"),
    "ranges": ("-R", "/metrics"),
    "slow readers": ("-X", "/metrics"),
}
MODULES = ["cookieflags", "crlf", "csp", "exec", "file", "http_headers", "methods", "redirect", "sql", "xss"]
MORE_MODULES = ["backup", "csrf", "permanentxss", "shellshock"]
"""The rest of wapiti's guesses at names and waits, or needs a server of theirs."""


@pytest.fixture
def exporter(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    with Exporter.watching(tmp_path, simulator.base_url) as started:
        eventually(lambda: len(started.samples("patrolserver_server_info")) == 5, what="the list")
        yield started


@pytest.fixture
def with_tls(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    """With headers that only its owner can decide on."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "web.yml").write_text(WEB_CONFIG)
    flags = ("--web.config.file=web.yml",)
    with Exporter.watching(tmp_path, simulator.base_url, *flags) as started:
        yield started


def test_testssl_finds_nothing(
    tmp_path: Path, with_tls: Exporter, require_program: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """Each of its findings is in order or for information; the quick run only looks at protocols and ciphers."""
    program, port = require_program("testssl"), with_tls.url.rpartition(":")[2]
    flags = ["--quiet", "--color=0", "--add-ca", str(tmp_path / "ca.pem"), "--jsonfile", str(tmp_path / "found.json")]
    command = [program, *flags, *([] if FULL else QUICK_TESTS), f"https://localhost:{port}"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    found = json.loads((tmp_path / "found.json").read_text())
    wrong = [
        f"{one['severity']} {one['id']}: {one['finding']}"
        for one in found
        if one["severity"] not in {"OK", "INFO"} and not OF_THE_CERTIFICATE.match(one["id"])
    ]
    bound = f"testssl.sh: {len(wrong)} findings in {len(found)} checks"
    measured(request.node, load="testssl.sh" if FULL else "testssl.sh, protocols and ciphers", bound=bound)
    assert wrong == [], ended.stdout[-4000:]
    assert {"TLS1_2", "TLS1_3"} <= {one["id"] for one in found}


def held(exporter: Exporter) -> int:
    """Connections of clients that the exporter has not closed: established, or waiting for its close."""
    port = f":{int(exporter.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(port) and row[3] in {"01", "08"} for row in rows)


@pytest.mark.promise("slow-clients")
def test_slowhttptest_holds_nothing(
    exporter: Exporter, require_program: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """The service stays available through each of its attacks, deliveries are taken in, and no connection stays."""
    program = require_program("slowhttptest")

    def attack(name: str) -> str:
        kind, path = ATTACKS[name]
        flags = ["-c", str(CONNECTIONS), "-r", "200", "-i", "3", "-l", str(SECONDS), "-p", "5", "-x", "24"]
        # Slow readers: a window of a few bytes, of which they read fewer.
        flags += ["-w", "10", "-y", "20", "-n", "5", "-z", "5", "-k", "3"] if kind == "-X" else []
        command = [program, kind, *flags, "-u", exporter.url + path]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout

    refused = 0
    # One after the other in full size, and all at the same time in the quick run.
    with ThreadPoolExecutor(1 if FULL else len(ATTACKS)) as pool:
        attacks = {name: pool.submit(attack, name) for name in ATTACKS}
        for number, running in enumerate(attacks.values()):
            payload = {"webhook_patrolserver": 1, "identifier": NEW_ISSUES, "event_id": 1 + number, "webhook_id": 1}
            answer = requests.post(f"{exporter.url}/webhook/{TOKEN}", json=payload, timeout=10)
            refused += answer.status_code != 202
            running.result()
    told = {name: re.sub(r"\x1b\[[0-9;]*m", "", running.result()) for name, running in attacks.items()}
    available = {name: set(re.findall(r"service available: +(\w+)", text)) for name, text in told.items()}
    eventually(lambda: held(exporter) == 0, within=15, what="the end of all connections")
    bound = f"slowhttptest: available through {len(available)} attacks"
    measured(request.node, sent=CONNECTIONS * len(ATTACKS), lost=refused, load="slowhttptest", bound=bound)
    assert refused == 0
    assert available == {name: {"YES"} for name in ATTACKS}, told


def test_wapiti_finds_nothing(
    tmp_path: Path, with_tls: Exporter, require_program: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    """Neither a vulnerability nor an answer of 5xx, on all that its crawl reaches in the time that it has."""
    require_program("wapiti")
    modules, depth, seconds = (MODULES + MORE_MODULES, 3, 120) if FULL else (all_or_few(MODULES, 4), 1, 3)
    limits = ["-d", str(depth), "--max-scan-time", str(seconds), "--max-attack-time", str(seconds)]
    limits += ["--max-links-per-page", "30", "--max-files-per-dir", "10", "-S", "normal", "-t", "30"]
    stored = ["--store-session", str(tmp_path / "session"), "--store-config", str(tmp_path / "config")]
    report = ["-f", "json", "-o", str(tmp_path / "found.json"), "--no-bugreport", "-v", "1"]
    command = ["wapiti", "-u", f"{with_tls.url}/", "-m", ",".join(modules), *limits, *stored, *report]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    found = json.loads((tmp_path / "found.json").read_text())
    wrong: list[Any] = [
        one for kind in ("vulnerabilities", "anomalies") for some in found[kind].values() for one in some
    ]
    crawled = len(set(re.findall(r"^\[\+\] (?:GET|POST) (\S+)", ended.stdout, re.MULTILINE)))
    bound = f"wapiti: {len(wrong)} findings of {len(modules)} modules on {crawled} addresses"
    measured(request.node, load="wapiti", bound=bound)
    assert wrong == [], ended.stdout[-4000:]
    assert set(re.findall(r"Launching module (\w+)", ended.stdout)) == set(modules)
