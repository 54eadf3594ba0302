"""What the collection prints at its loudest, while things go wrong: no secret, neither raw nor as URLs spell it."""

from __future__ import annotations

import base64
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
import requests
from tests.harness.ansible import Ansible, java_home, virtual_environments
from tests.harness.waiting import eventually

from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY, SECRET, TOKEN = "canary key/+1ä", "canary&secret=2%", "canary+token/3 x"
PROXY_PASSWORD = "canary-proxy~4"
USER, PASSWORD = "someone", "canary pass/5+ü"
BASIC = f"{USER}:{PASSWORD}"


@contextmanager
def silent_port() -> Iterator[int]:
    """A port on which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    yield port


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorOptions(listen_address="127.0.0.1:0", servers=2, key=KEY, secret=SECRET)) as running:
        yield running


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    return Ansible(virtual_environments() / "core" / "bin", tmp_path / "controller", {"ANSIBLE_DEBUG": "0"})


def order(simulator: Simulator, path: str, /, **body: Any) -> None:
    response = requests.post(f"{simulator.base_url}/-/simulator{path}", json=body, timeout=10)
    assert response.ok, response.text


class Echo(BaseHTTPRequestHandler):
    """A peer, or a proxy, that refuses all and repeats what it was sent: as it is, quoted, and encoded."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        sent = f"{self.path} {' '.join(f'{name}: {value}' for name, value in self.headers.items())}"
        forms = [sent, repr(sent), repr(sent.encode()), quote(sent), quote_plus(sent)]
        forms += [base64.b64encode(f"{'.' * offset}{sent}".encode()).decode() for offset in range(3)]
        forms += [base64.urlsafe_b64encode(sent.encode()).decode()]
        # As long as it may be and still be told whole, one form at a time.
        form = forms[self.server.next_form(len(forms))]  # type: ignore[attr-defined]
        body = json.dumps({"detail": form[-900:], "title": "No"}).encode()
        self.send_response(400, quote(sent)[-200:])
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_CONNECT = _refuse  # noqa: N815  # the names that the library calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class EchoServer(ThreadingHTTPServer):
    """It goes through the forms, a request each."""

    daemon_threads = True
    _count = 0

    def next_form(self, forms: int) -> int:
        """Return the number of the form for this request."""
        self._count += 1
        return self._count % forms


@contextmanager
def echo() -> Iterator[str]:
    """A peer that repeats what it was sent; yields its URL."""
    with EchoServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def spellings(secret: str) -> set[str]:
    """Return what a leak would look like: raw, quoted by Python or JSON, percent-encoded, in base64 at each offset."""
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), quote_plus(secret).lower()}
    found |= {repr(secret)[1:-1], repr(secret.encode())[2:-1], json.dumps(secret)[1:-1]}
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The characters at both ends depend on what stands around it.
            found.add(encode(b"." * offset + secret.encode()).decode().rstrip("=")[offset + 2 : -2])
    return found


def assert_hidden(text: str) -> None:
    """No secret stands in the text, in any form."""
    for secret in (KEY, SECRET, TOKEN, PROXY_PASSWORD, PASSWORD, BASIC):
        for spelling in spellings(secret):
            assert spelling not in text, text[max(0, text.index(spelling) - 300) :][:600]


def shout(
    ansible: Ansible, tasks: list[dict[str, Any]], *, end: str = "", basic: bool = False, **variables: Any
) -> str:
    """Run the tasks at -vvvv, whatever becomes of each; returns the output, which holds no secret.

    ``end`` is what the credentials end in; with ``basic`` the exporter gets a user instead of a token.
    """
    login = [("username", "CANARY_USER"), ("password", "CANARY_PASSWORD")] if basic else [("token", "CANARY_TOKEN")]
    playbook = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "ignore_errors": True,
            "module_defaults": {
                "group/patrolserver.monitoring.api": {
                    "api_url": "{{ api_url }}",
                    "api_key": "{{ lookup('ansible.builtin.env', 'CANARY_KEY') }}",
                    "api_secret": "{{ lookup('ansible.builtin.env', 'CANARY_SECRET') }}",
                    "retries": 0,
                },
                "group/patrolserver.monitoring.exporter": {
                    "exporter_url": "{{ api_url }}",
                    "retries": 0,
                },
            },
            "vars": {
                **{
                    f"patrolserver_exporter_{name}": f"{{{{ lookup('ansible.builtin.env', '{env}') }}}}"
                    for name, env in login
                },
                "patrolserver_exporter_url": "{{ api_url }}",
                "patrolserver_exporter_retries": 0,
            },
            "tasks": tasks,
        }
    ]
    secrets = {"KEY": KEY, "SECRET": SECRET, "TOKEN": TOKEN, "USER": USER, "PASSWORD": PASSWORD}
    ansible.environ.update({f"CANARY_{name}": value + end for name, value in secrets.items()})
    output = ansible.playbook(playbook, "-vvvv", **variables).output
    assert_hidden(output)
    assert "Traceback" not in output
    for report in ansible.folder.glob("report.*"):
        assert_hidden(report.read_text())
    return output


API_TASKS: list[dict[str, Any]] = [
    {"patrolserver.monitoring.server": {"name": "new.example.org", "state": "verified"}},
    {"patrolserver.monitoring.scan": {"server": "1", "wait": True, "wait_timeout": "2", "poll_interval": "100ms"}},
    {"patrolserver.monitoring.software_bucket": {"server": "1", "software": [{"name": "php", "version": "8.2"}]}},
]
EXPORTER_TASKS: list[dict[str, Any]] = [
    {"patrolserver.monitoring.gate": {"servers": ["*"], "report_file": "report.json"}, "register": "verdict"},
    {"ansible.builtin.debug": {"var": "verdict"}},
    {"patrolserver.monitoring.issues_info": {}},
    {"patrolserver.monitoring.fleet_info": {}},
    {"patrolserver.monitoring.refresh": {"servers": ["*"]}},
    {"patrolserver.monitoring.waiver_report": {"report_file": "report.md"}},
    {"ansible.builtin.debug": {"msg": "{{ query('patrolserver.monitoring.issues') }}"}},
]


def test_calls_that_succeed_show_no_secret(ansible: Ansible, simulator: Simulator) -> None:
    """A server is added, a scan started and a list pushed; -vvvv tells of all three."""
    output = shout(ansible, API_TASKS, api_url=simulator.base_url)
    assert output.count("new.example.org") > 1
    assert "module_args" in output


def test_calls_that_nobody_answers_show_no_secret(ansible: Ansible) -> None:
    """The connection is refused, directly and at a proxy whose URL holds a password."""
    with silent_port() as port:
        url = f"http://127.0.0.1:{port}"
        assert "no answer" in shout(ansible, API_TASKS + EXPORTER_TASKS, api_url=url)
        proxy = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{port}"
        tasks = [{name: {**options, "proxy_url": proxy}} for task in API_TASKS for name, options in task.items()]
        assert "no answer" in shout(ansible, tasks, api_url="http://patrolserver.invalid")


def test_calls_that_are_refused_or_misled_show_no_secret(ansible: Ansible, simulator: Simulator) -> None:
    """Pages instead of JSON, a redirect that would take the credentials along, and credentials that are revoked."""
    for path, fault in (
        ("servers", {"kind": "html", "status": 502}),
        ("servers/*", {"kind": "garbage"}),
        ("*", {"kind": "redirect", "location": "http://127.0.0.1:1/elsewhere"}),
        (
            "*",
            {"kind": "error_200", "error": {"code": 3, "message": f"no: key={quote(KEY)}&secret={quote_plus(SECRET)}"}},
        ),
    ):
        order(simulator, "/faults", path=path, count=3, **fault)
    output = shout(ansible, API_TASKS * 3, api_url=simulator.base_url)
    assert "redirects elsewhere" in output
    order(simulator, "/credentials", key="other", secret="other")
    assert "HTTP 401" in shout(ansible, API_TASKS + EXPORTER_TASKS, api_url=simulator.base_url)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_credentials_that_end_in_a_line_break_are_taken_without_it_and_not_shown(
    ansible: Ansible, simulator: Simulator, end: str
) -> None:
    """Vault strings and slurped files end so: the calls succeed, and what fails then shows nothing of them."""
    output = shout(ansible, API_TASKS[:1], end=end, api_url=simulator.base_url)
    assert "failed=0" in output
    assert "ignored=0" in output
    with echo() as url:
        for basic in (False, True) if end == "\n" else (True,):
            output = shout(ansible, EXPORTER_TASKS, end=end, basic=basic, api_url=url)
            assert "HTTP 400" in output
            assert "control character" not in output


@pytest.mark.parametrize("end", ["\nX-Forged: yes", "\x1b[31m"])
def test_another_control_character_in_credentials_is_refused_by_name(ansible: Ansible, end: str) -> None:
    """The option is named, and nothing of its value; nothing is sent."""
    with echo() as url:
        output = shout(ansible, API_TASKS + EXPORTER_TASKS, end=end, api_url=url)
    assert "token: it holds a control character" in output
    assert "HTTP 400" not in output


def test_a_peer_that_repeats_what_it_was_sent_shows_no_secret(ansible: Ansible) -> None:
    """The other side and a proxy, with a token, with basic authentication and with the credentials of the API."""
    with echo() as url:
        for basic in (False, True):
            assert "HTTP 400" in shout(ansible, API_TASKS + EXPORTER_TASKS, basic=basic, api_url=url)
        proxy = url.replace("//", f"//user:{PROXY_PASSWORD}@")
        through: list[dict[str, Any]] = [
            {module: {**options, "proxy_url": proxy}}
            for task in API_TASKS + EXPORTER_TASKS
            for module, options in task.items()
            if module.startswith("patrolserver")
        ]
        for scheme in ("http", "https"):
            output = shout(ansible, through, api_url=f"{scheme}://patrolserver.invalid")
            assert ("HTTP 400" if scheme == "http" else "through the proxy 127.0.0.1:") in output


def test_an_inventory_that_fails_shows_no_secret(ansible: Ansible) -> None:
    """Its token comes from a template and ends in a line break, and the peer repeats it."""
    source = ansible.folder / "x.patrolserver.yml"
    ansible.environ.update(CANARY_TOKEN=TOKEN + "\n", CANARY_PASSWORD=PASSWORD)
    with echo() as url, silent_port() as port:
        for where in (url, f"http://127.0.0.1:{port}"):
            for login in (
                {"token": "{{ lookup('ansible.builtin.env', 'CANARY_TOKEN') }}"},
                {"username": USER, "password": "{{ lookup('ansible.builtin.env', 'CANARY_PASSWORD') }}"},
            ):
                plugin = {"plugin": "patrolserver.monitoring.servers", "exporter_url": where, "retries": 0, **login}
                source.write_text(json.dumps(plugin))
                output = ansible.run("ansible-inventory", "-vvvv", "-i", str(source), "--list").output
                assert_hidden(output)
                assert "patrolserver.monitoring.servers: exporter" in output


@pytest.mark.parametrize("login", ["token", "user"])
def test_a_rulebook_whose_exporter_repeats_what_it_was_sent_shows_no_secret(
    tmp_path: Path, require_program: Callable[[str], str], login: str
) -> None:
    """The event source tells what it was refused with, and goes on; directly, and at a proxy."""
    environ = {"JAVA_HOME": java_home(require_program("java"))}
    ansible = Ansible(virtual_environments() / "tools" / "bin", tmp_path / "controller", environ)
    credentials = {"token": TOKEN + "\n"} if login == "token" else {"username": USER, "password": PASSWORD + "\n"}
    rule = {"name": "Any", "condition": "event.change is defined", "actions": [{"debug": {"msg": "An event"}}]}
    path, output = ansible.folder / "rulebook.yml", ansible.folder / "rulebook.log"
    with echo() as url:
        proxy = url.replace("//", f"//user:{PROXY_PASSWORD}@")
        through = {"exporter_url": "http://patrolserver.invalid", "proxy_url": proxy}
        sources = [
            {"name": name, "patrolserver.monitoring.issues": {**credentials, "max_backoff": 0.05, **where}}
            for name, where in (("directly", {"exporter_url": url}), ("through a proxy", through))
        ]
        path.write_text(json.dumps([{"name": "Own", "hosts": "all", "sources": sources, "rules": [rule]}]))
        command = ("ansible-rulebook", f"--rulebook={path}", f"--inventory={ansible.inventory({})}", "--verbose")
        process = ansible.start(*command, output=output)
        try:
            # More often than there are forms, from each of the two.
            eventually(lambda: output.read_text().count("HTTP 400") >= 40, within=90, what="refusals")
        finally:
            process.kill()
            process.wait()
    assert_hidden(output.read_text())
