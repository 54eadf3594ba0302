"""Real reverse proxies in front of an exporter: nginx, Caddy and HAProxy, as docs/proxy.md sets them up."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import trustme
from tests.harness.prometheus import free_port
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "monitoring.example.org"
PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"
PROXIES = ("nginx", "caddy", "haproxy")
_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""
_CADDY = """\
{{
    admin off
    auto_https disable_redirects
    storage file_system {folder}/caddy
}}
{servers}
"""
_FORMS = {"nginx": _NGINX, "caddy": _CADDY, "haproxy": "{servers}"}


@contextlib.contextmanager
def bare_nginx(folder: Path, upstream: str, require_program: Callable[[str], str]) -> Iterator[str]:
    """What people write first: ``proxy_pass`` and nothing more. Its URL."""
    port = free_port()
    servers = f"    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {upstream}; }} }}"
    with _running("nginx", folder, servers, port, require_program):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def documented(
    name: str, folder: Path, upstream: str, require_program: Callable[[str], str]
) -> Iterator[tuple[int, Path]]:
    """The example of the page, with other ports and a certificate. Its port, and the file of the authority."""
    port, authority = free_port(), trustme.CA()
    certificate = authority.issue_cert(NAME)
    chain, key = folder / "monitoring.pem", folder / "monitoring.key"
    # HAProxy wants both in one file, and the others do not mind.
    certificate.private_key_and_cert_chain_pem.write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    servers = example(name).replace("/etc/ssl", str(folder)).replace("127.0.0.1:10058", upstream.partition("://")[2])
    servers = servers.replace("listen 443", f"listen 127.0.0.1:{port}").replace("bind :443", f"bind 127.0.0.1:{port}")
    servers = servers.replace(f"{NAME}:443", f"{NAME}:{port}")
    with _running(name, folder, servers, port, require_program):
        yield port, folder / "authority.pem"


def example(name: str) -> str:
    """What the page says of a proxy."""
    found = re.search(rf"```{name}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"docs/proxy.md has no example of {name}"
    return found.group(1)


@contextlib.contextmanager
def _running(name: str, folder: Path, servers: str, port: int, require_program: Callable[[str], str]) -> Iterator[None]:
    program, file, log_file = require_program(name), folder / f"{name}.conf", folder / f"{name}.log"
    file.write_text(_FORMS[name].format(folder=folder, servers=servers))
    flags = {
        "nginx": ["-e", "stderr", "-p", str(folder), "-c", str(file)],
        "caddy": ["run", "--adapter", "caddyfile", "--config", str(file)],
        "haproxy": ["-db", "-f", str(file)],
    }[name]
    with log_file.open("wb") as log:
        process = subprocess.Popen([program, *flags], stdout=log, stderr=log, cwd=folder)

    def listens() -> bool:
        assert process.poll() is None, log_file.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(listens, within=20.0, what=f"the start of {name}")
        yield
    finally:
        process.terminate()
        process.wait(10)
