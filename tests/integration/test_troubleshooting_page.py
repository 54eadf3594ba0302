"""What Prometheus says of a scrape that fails has its row on the page of symptoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from tests.harness.process import Exporter
from tests.harness.prometheus import Prometheus, free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"
NOBODY = "http://127.0.0.1:1"
_JOB = """\
  - {{job_name: {name}, scheme: {scheme}, static_configs: [{{targets: ["{target}"]}}], tls_config: {{ca_file: {ca}}}}}
"""


def symptoms() -> dict[str, str]:
    """What is done about each symptom of the section, by the symptom."""
    section = PAGE.read_text().partition("## Prometheus shows the target as down")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| `")]
    return {symptom: what for symptoms, what in rows for symptom in symptoms.split("`")[1::2]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a certificate for this machine, its authority, and one that nobody knows."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "s.key")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "s.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    keys = "cert_file: s.pem, key_file: s.key, client_ca_file: ca.pem"
    (tmp_path / "web.yml").write_text(
        f"tls_server_config: {{{keys}, client_auth_type: RequireAndVerifyClientCert, min_version: TLS13}}\n"
    )
    return tmp_path


def test_what_prometheus_says_is_on_the_page(folder: Path, require_program: Callable[[str], str]) -> None:
    """TLS on one side alone, no certificate, an unknown authority, no right, nobody there; with what helps."""
    (folder / "tls").mkdir()
    (folder / "plain").mkdir()
    closed = {"extra": "web: {metrics_need_token: true}\napi: {tokens: [{name: a, token: token-0123456789abcdef}]}\n"}
    with (
        Exporter.watching(folder / "tls", NOBODY, f"--web.config.file={folder / 'web.yml'}") as over_tls,
        Exporter.watching(folder / "plain", NOBODY, **closed) as plain,
    ):
        tls, http = (one.url.partition("//")[2] for one in (over_tls, plain))
        jobs = {
            "400": ("http", tls, "ca", "server returned HTTP status 400 Bad Request"),
            "no-tls": ("https", http, "ca", "http: server gave HTTP response to HTTPS client"),
            "no-certificate": ("https", tls, "ca", "tls: certificate required"),
            "authority": ("https", tls, "other", "x509: certificate signed by unknown authority"),
            "401": ("http", http, "ca", "server returned HTTP status 401"),
            "nobody": ("http", f"127.0.0.1:{free_port()}", "ca", "connection refused"),
        }
        extra = "".join(
            _JOB.format(name=name, scheme=scheme, target=target, ca=folder / f"{ca}.pem")
            for name, (scheme, target, ca, _) in jobs.items()
        )
        with Prometheus(folder, require_program("prometheus"), {}, extra=extra) as prometheus:

            def scraped() -> dict[str, str] | None:
                answer: Any = requests.get(f"{prometheus.url}/api/v1/targets", timeout=10).json()
                targets = answer["data"]["activeTargets"]
                said = {one["labels"]["job"]: one["lastError"] for one in targets}
                return said if len(said) == len(jobs) and all(said.values()) else None

            said = eventually(scraped, within=60)
    assert said is not None
    known = symptoms()
    for name, (*_, symptom) in jobs.items():
        assert symptom in known, f"the page has nothing on {symptom}"
        assert symptom in said[name]
