"""The `doctor` command: what is wrong, in plain words, and what to do about it."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.app.checkup import Finding, Grade, check_up
from patrolserver_exporter.commands import flags, output
from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.web.http.tls import build_context
from patrolserver_exporter.web.http.web_config import load_web_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patrolserver_exporter.config.load import Loaded

FINE, TROUBLE, BAD_CONFIG = 0, 1, 2
_WIDTH = 100

_DESCRIPTION = """\
Looks at everything that an exporter needs, and says in plain words what is wrong and what to do: the configuration,
each account with a real list call and one poll, the clock, the store and its room, the exporter that runs on this
machine, and the webhook's URL from outside in. It changes nothing. Run it as the exporter's user, with the flags of
the service."""

_EPILOG = """\
exit codes: 0 fine, warnings aside; 1 trouble; 2 bad flags or configuration"""


def parser() -> flags.Parser:
    """All flags of the doctor."""
    found = flags.Parser("patrolserver-exporter doctor", _DESCRIPTION, _EPILOG)
    found.add_argument("--config.file", metavar="FILE", help="configuration in YAML; without one, the environment")
    found.add_argument("--web.config.file", metavar="FILE", help="as the service has it")
    found.add_argument(
        "--web.external-url", metavar="URL", default="", help="as PatrolServer calls it: what comes before /webhook/…"
    )
    found.add_argument("--ca-file", metavar="FILE", help="certificates to trust at that URL instead of the system's")
    found.add_argument("--format", choices=["table", "json"], default="table", help="default: table")
    return found


def main(arguments: Sequence[str]) -> int:
    """Look, tell, and return the exit code."""
    flag_parser = parser()
    values: dict[str, Any] = flags.read(flag_parser, arguments)
    external_url = flags.external_url(flag_parser, values["web.external-url"])
    if values["ca-file"] is not None and not Path(values["ca-file"]).is_file():
        flag_parser.refuse(f"--ca-file: there is no file {values['ca-file']}")
    as_table = values["format"] == "table"
    redactor = Redactor()
    try:
        loaded = _loaded(values)
    except ConfigError as error:
        findings = [Finding("configuration", Grade.TROUBLE, str(mistake), "correct it") for mistake in error.errors]
        _show(findings, redactor, as_table=as_table)
        return BAD_CONFIG
    redactor.register(*hidden_values(loaded.config))
    found = check_up(loaded.config, external_url=external_url, ca_file=values["ca-file"], environ=dict(os.environ))
    findings = [*_configuration(loaded), *found]
    _show(findings, redactor, as_table=as_table)
    return TROUBLE if any(finding.grade is Grade.TROUBLE for finding in findings) else FINE


def _loaded(values: dict[str, Any]) -> Loaded:
    config_file, web_config_file = values["config.file"], values["web.config.file"]
    loaded = load_config(Path(config_file) if config_file else None, dict(os.environ))
    if web_config_file:
        tls = load_web_config(Path(web_config_file)).tls_server_config
        if tls is not None:
            build_context(tls)
    return loaded


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    accounts = ", ".join(account.name for account in loaded.config.accounts)
    yield Finding("configuration", Grade.OK, f"it is sound; accounts: {accounts}")
    for warning in loaded.warnings:
        yield Finding("configuration", Grade.WARNING, warning)


def _show(findings: Sequence[Finding], redactor: Redactor, *, as_table: bool) -> None:
    if as_table:
        output.show(redactor.redact(_table(findings)))
    else:
        output.show(redactor.redact(msgspec.json.format(msgspec.json.encode(findings)).decode()) + "\n")


def _table(findings: Sequence[Finding]) -> str:
    width = max(len(finding.check) for finding in findings)
    lines: list[str] = []
    for finding in findings:
        head = f"{finding.grade:<8}  {finding.check:<{width}}  "
        text = finding.found.removesuffix(".") + (f" — {finding.do}" if finding.do else "")
        indent = " " * len(head)
        lines += textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False)
    worst = sum(finding.grade is Grade.TROUBLE for finding in findings)
    lines += ["", "All is fine." if not worst else f"{worst} {'thing is' if worst == 1 else 'things are'} in trouble."]
    return "\n".join(lines) + "\n"
