"""``patrolserver-exporter demo``: simulator and exporter in one process, and a story that plays by itself."""

from __future__ import annotations

import secrets
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.app.service import ServiceOptions
from patrolserver_exporter.commands import flags, output
from patrolserver_exporter.commands.serve import FAILED, listen_address, serve
from patrolserver_exporter.commands.simulator import add_fleet_flags, simulator_address
from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.logs import setup_logging
from patrolserver_exporter.simulator.options import SimulatorOptions
from patrolserver_exporter.simulator.server import Simulator
from patrolserver_exporter.web.operator_token import local_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.web.http.addresses import Address

_DESCRIPTION = """\
Starts a simulated PatrolServer and an exporter that watches it, and tells what happens: a scan, a new critical issue
by webhook, a fix. No account is needed, and nothing is kept: the state lives in a temporary folder. Ctrl-C ends it."""

_CONFIG = """\
accounts:
  - name: demo
    api_url: {api_url}
    key: demo
    secret: demo
    webhook_tokens: [{token}]
poll: {{interval: 30s, max_requests_per_minute: 6000}}
issues: {{settle: 10s}}
webhook: {{max_event_requests_per_minute: 600}}
store: {{url: "sqlite:///{state}"}}
"""

_OPEN_THIS = """
The demo runs; Ctrl-C ends it. Open

  {url}/                                   the fleet, for people
  {url}/metrics                            the metrics, for Prometheus
  {url}/api/v1/issues?severity=critical    the JSON API

and watch the issues change:

  watch -n1 "curl -s {url}/metrics | grep patrolserver_server_issues | sort -rnk2 | head"
  {program} gate {server} --exporter-url={url}
  STATE_DIRECTORY={folder} {program} inbox list --exporter-url={url}

What happens, as it happens:
"""


def parser() -> flags.Parser:
    """All flags of the demo."""
    found = flags.Parser("patrolserver-exporter demo", _DESCRIPTION)
    found.add_argument(
        "--web.listen-address",
        metavar="ADDRESS",
        type=listen_address,
        default="127.0.0.1:10058",
        help="of the exporter (default: 127.0.0.1:10058)",
    )
    found.add_argument(
        "--simulator.listen-address",
        metavar="ADDRESS",
        type=simulator_address,
        default="127.0.0.1:0",
        help="of the simulator (default: any free port)",
    )
    add_fleet_flags(found)
    found.add_argument(
        "--story.speed", metavar="X", type=flags.above_zero, default=1.0, help="how fast the story plays (default: 1)"
    )
    found.switch("--story", default=True, help="let things happen by themselves")
    found.add_argument("--log.level", choices=flags.LEVELS, default="warn", help="of the log on stderr (default: warn)")
    found.add_argument("--log.format", choices=flags.FORMATS, default="logfmt", help="of the log (default: logfmt)")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run both until a signal says stop."""
    values: dict[str, Any] = flags.read(parser(), arguments)
    simulator_options = SimulatorOptions(
        listen_address=values["simulator.listen-address"],
        servers=values["servers"],
        software=values["software"],
        seed=values["seed"],
        story=False,
        story_speed=values["story.speed"],
    )
    simulator = Simulator(simulator_options, on_line=_say)
    try:
        api_url = simulator.start()
    except socket.gaierror:
        _say(_cannot_listen(simulator_options.listen_address, "the host cannot be resolved"))
        return FAILED
    except OSError as error:
        _say(_cannot_listen(simulator_options.listen_address, error.strerror or str(error)))
        return FAILED
    with tempfile.TemporaryDirectory(prefix="patrolserver-demo-") as folder:
        try:
            return _serve(values, simulator, api_url, Path(folder))
        finally:
            simulator.stop()


def _cannot_listen(address: str, why: str) -> str:
    return f"The simulator cannot listen on {address}: {why}: choose another --simulator.listen-address"


def _serve(values: dict[str, Any], simulator: Simulator, api_url: str, folder: Path) -> int:
    redactor = setup_logging(values["log.level"], values["log.format"])
    token = secrets.token_urlsafe(24)
    config_file = folder / "patrolserver.yml"
    config_file.touch(mode=0o600)
    config_file.write_text(_CONFIG.format(api_url=api_url, token=token, state=folder / "patrolserver.db"))
    loaded = load_config(config_file, {})
    redactor.register(*hidden_values(loaded.config))
    options = ServiceOptions(config_file=config_file, listen_addresses=(values["web.listen-address"],), environ={})

    def started(addresses: tuple[Address, ...]) -> None:
        url = local_url(addresses, "http", "")
        simulator.world.outbox.add_webhook(simulator.world.demo.id, f"{url}/webhook/{token}")
        names = [server.name for server in simulator.world.servers(simulator.world.demo)]
        server = names[0] if names else "SERVER"
        _say(_OPEN_THIS.format(url=url, server=server, program=_program(), folder=folder))
        if values["story"]:
            simulator.story.start(values["story.speed"])

    return serve(options, loaded, redactor, on_started=started)


def _program() -> str:
    """How this command was called, so that the next one can be copied as it stands."""
    return sys.argv[0] if Path(sys.argv[0]).name == "patrolserver-exporter" else "patrolserver-exporter"


def _say(line: str) -> None:
    # The demo talks to people, as far as somebody reads it.
    output.show(f"{line}\n")
