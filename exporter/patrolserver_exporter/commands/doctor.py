"""The `doctor` command: what is wrong, in plain words, and what to do about it."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter.app.checkup import Finding, Grade, check_up
from patrolserver_exporter.commands import flags, output
from patrolserver_exporter.commands.files import load_files
from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.secret import holds_certificates
from patrolserver_exporter.logs import Redactor
from patrolserver_exporter.web.http.web_config import warnings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from patrolserver_exporter.config.load import Loaded
    from patrolserver_exporter.web.http.web_config import WebConfig

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
    if values["ca-file"] is not None and not os.path.isfile(values["ca-file"]):  # noqa: PTH113  # It never raises.
        flag_parser.refuse(f"--ca-file: there is no file {values['ca-file']}")
    if values["ca-file"] is not None and not holds_certificates(Path(values["ca-file"])):
        flag_parser.refuse(f"--ca-file: {values['ca-file']} cannot be read, or holds no certificates in PEM")
    config_file, web_config_file = (
        Path(values[flag]) if values[flag] else None for flag in ("config.file", "web.config.file")
    )
    as_table = values["format"] == "table"
    redactor = Redactor()
    try:
        loaded, web_config = load_files(config_file, web_config_file, _with_credentials(config_file, os.environ))
    except ConfigError as error:
        findings = [Finding("configuration", Grade.TROUBLE, str(mistake), "correct it") for mistake in error.errors]
        _show(findings, redactor, as_table=as_table)
        return BAD_CONFIG
    redactor.register(*hidden_values(loaded.config))
    found = check_up(loaded.config, external_url=external_url, ca_file=values["ca-file"], environ=dict(os.environ))
    findings = [*_configuration(loaded), *_web_configuration(web_config, web_config_file), *found]
    _show(findings, redactor, as_table=as_table)
    return TROUBLE if any(finding.grade is Grade.TROUBLE for finding in findings) else FINE


def _with_credentials(config_file: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with the credentials that systemd hands to the service, which are beside its configuration."""
    folder = None if config_file is None else config_file.parent / "credentials"
    if folder is None or not os.path.isdir(folder):  # noqa: PTH112  # It never raises.
        return environ
    return {"CREDENTIALS_DIRECTORY": str(folder.absolute()), **environ}


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    accounts = ", ".join(account.name for account in loaded.config.accounts)
    yield Finding("configuration", Grade.OK, f"it is sound; accounts: {accounts}")
    for warning in loaded.warnings:
        yield Finding("configuration", Grade.WARNING, warning)


def _web_configuration(config: WebConfig, file: Path | None) -> Iterator[Finding]:
    if file is None:
        return
    check = "web configuration"
    tls = "TLS" if config.tls_server_config is not None else "no TLS"
    yield Finding(check, Grade.OK, f"it is sound: {tls}, {len(config.basic_auth_users) or 'no'} users")
    for warning in warnings_of(config, file):
        yield Finding(check, Grade.WARNING, warning)


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
    return "\n".join([*lines, "", sum_of(Counter(finding.grade for finding in findings))]) + "\n"


def sum_of(number: Counter[Grade]) -> str:
    """All of it in a sentence. What was not looked at is not called fine."""
    if troubles := number[Grade.TROUBLE]:
        return f"{troubles} {'thing is' if troubles == 1 else 'things are'} in trouble."
    but = []
    if warnings := number[Grade.WARNING]:
        but.append(f"{warnings} {'warning' if warnings == 1 else 'warnings'}")
    if skipped := number[Grade.SKIPPED]:
        but.append(f"{skipped} {'thing' if skipped == 1 else 'things'} not looked at")
    return f"All is fine but for {' and '.join(but)}." if but else "All is fine."
