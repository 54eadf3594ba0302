"""The families that every server has: names, help and the lines that a summary makes, as data.

The lines are, to the byte, those of the client library: labels in alphabetical order, numbers as Go writes them.
All are gauges, whose lines are the same in the text format and in OpenMetrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client.utils import floatToGoString

from patrolserver_exporter.issues.model import SEVERITIES, STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from patrolserver_exporter.issues.summary import ExploitInfo, ServerSummary, SoftwareInfo


class ServerLabels(NamedTuple):
    """The labels that every series of a server has, rendered; apart, because other labels stand between them."""

    account: str
    server: str
    configured: Mapping[str, str]
    """Those that the configuration gives the server, not rendered: only the info series has them."""


_SAMPLES = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


class SeriesFamily(NamedTuple):
    """A family of which more is known than its lines. Its name is that of OpenMetrics: without ``_total``."""

    name: str
    help: str
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    def header(self, *, openmetrics: bool) -> bytes:
        """The lines before the samples: the two formats differ in how a counter is called there."""
        name = self.name if openmetrics else self.sample_name
        return f"# HELP {name} {self.help}\n# TYPE {name} {self.kind}\n".encode()

    @property
    def sample_name(self) -> str:
        """What the samples of a gauge or a counter are called."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def sample_names(self) -> frozenset[str]:
        """What its samples are called."""
        return frozenset(self.name + suffix for suffix in _SAMPLES[self.kind])


def histogram_lines(
    name: str, labels: tuple[str, str], bounds: Sequence[str], counts: Iterable[int], total: float
) -> str:
    """A histogram's lines. ``labels`` are rendered: those that sort before ``le``, and those that sort behind it.

    ``counts`` are those of each bucket alone; the last of the ``bounds`` is infinite.
    """
    before, behind = labels
    end = f",{behind}" if behind else ""
    count, lines = 0, []
    for bound, more in zip(bounds, counts, strict=True):
        count += more
        lines.append(f'{name}_bucket{{{before},le="{bound}"{end}}} {number(count)}\n')
    lines.append(f"{name}_count{{{before}{end}}} {number(count)}\n{name}_sum{{{before}{end}}} {number(total)}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class Family:
    """One per-server family."""

    name: str
    help: str
    lines: Callable[[ServerSummary, ServerLabels], str]
    """Complete lines, or nothing when the server has no such series."""

    @property
    def header(self) -> bytes:
        """The lines before the samples, in either format."""
        return f"# HELP {self.name} {self.help}\n# TYPE {self.name} gauge\n".encode()


NO_LABELS: Mapping[str, str] = MappingProxyType({})


def server_labels(summary: ServerSummary, configured: Mapping[str, str] = NO_LABELS) -> ServerLabels:
    """Render the labels that all series of a server share."""
    return ServerLabels(
        f'account="{escape(summary.account)}"',
        f'server="{escape(summary.name)}",server_id="{summary.server_id}"',
        configured,
    )


def render(
    families: Sequence[Family], summary: ServerSummary, configured: Mapping[str, str] = NO_LABELS
) -> list[bytes]:
    """Make a server's lines, one item a family. A lone surrogate, which UTF-8 cannot carry, becomes a ``?``.

    ``configured`` are the labels that the configuration gives the server.
    """
    labels = server_labels(summary, configured)
    return [family.lines(summary, labels).encode("utf-8", "replace") for family in families]


def escape(value: str) -> str:
    """A label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


_SMALL_NUMBERS = tuple(f"{number}.0" for number in range(1024))


def number(value: float) -> str:
    """A value as Go writes it."""
    # Most values are small counts, and the library's function takes a microsecond.
    if isinstance(value, int) and 0 <= value < len(_SMALL_NUMBERS):
        return _SMALL_NUMBERS[value]
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _single(name: str, text: str, read: Callable[[ServerSummary], float | None]) -> Family:
    """One series without further labels; absent while ``read`` gives nothing."""

    def lines(summary: ServerSummary, labels: ServerLabels) -> str:
        value = read(summary)
        return "" if value is None else f"{name}{{{labels.account},{labels.server}}} {number(value)}\n"

    return Family(name, text, lines)


def _labelled(
    name: str,
    text: str,
    label: tuple[str, Sequence[str]],
    read: Callable[[ServerSummary], Sequence[float | None] | None],
) -> Family:
    """One series for each value of a closed label; absent where ``read`` gives nothing."""
    # The label sorts behind "server_id".
    ends = [f',{label[0]}="{value}"}} ' for value in label[1]]

    def lines(summary: ServerSummary, labels: ServerLabels) -> str:
        values = read(summary)
        if values is None:
            return ""
        begin = f"{name}{{{labels.account},{labels.server}"
        return "".join(
            [f"{begin}{end}{number(value)}\n" for end, value in zip(ends, values, strict=True) if value is not None]
        )

    return Family(name, text, lines)


_VERIFIED = {True: "true", False: "false", None: "unknown"}


def _server_info(summary: ServerSummary, labels: ServerLabels) -> str:
    verified = _VERIFIED[summary.verified]
    if labels.configured:
        rendered = {name: f'{name}="{escape(value)}"' for name, value in labels.configured.items()}
        rendered |= {"account": labels.account, "server": labels.server, "verified": f'verified="{verified}"'}
        return f"patrolserver_server_info{{{','.join(rendered[name] for name in sorted(rendered))}}} 1.0\n"
    return f'patrolserver_server_info{{{labels.account},{labels.server},verified="{verified}"}} 1.0\n'


def _software_info(summary: ServerSummary, labels: ServerLabels) -> str:
    return "".join([_software_line(info, labels) for info in summary.software_info])


def _software_line(info: SoftwareInfo, labels: ServerLabels) -> str:
    return (
        f"patrolserver_server_software_info{{{labels.account}"
        f',location="{escape(info.location)}",parent="{escape(info.parent)}",risk="{escape(info.risk)}"'
        f',{labels.server},severity="{escape(info.severity)}"'
        f',software="{escape(info.software)}",state="{escape(info.state)}"'
        f',update_to="{escape(info.update_to)}",version="{escape(info.version)}"}} 1.0\n'
    )


def _exploit_info(summary: ServerSummary, labels: ServerLabels) -> str:
    return "".join([_exploit_line(info, labels) for info in summary.exploit_info])


def _exploit_line(info: ExploitInfo, labels: ServerLabels) -> str:
    return (
        f"patrolserver_server_exploit_info{{{labels.account}"
        f',exploit="{escape(info.exploit)}",risk="{escape(info.risk)}",{labels.server}'
        f',software="{escape(info.software)}"}} 1.0\n'
    )


def _unknown_risks(summary: ServerSummary) -> int | None:
    # Where nothing is told of exploits, a zero would say that there are none.
    known = summary.software is not None and summary.exploits is not None
    return summary.exploits_unknown_risk if known else None


_SEVERITY = ("severity", SEVERITIES)
POLL_SUCCESS = "patrolserver_server_poll_success"

SERVER_FAMILIES = (
    Family("patrolserver_server_info", "A watched server; always 1.", _server_info),
    _labelled(
        "patrolserver_server_issues",
        "Open issues of the server that no waiver covers.",
        _SEVERITY,
        lambda summary: summary.open_issues,
    ),
    _single(
        "patrolserver_server_issues_waived",
        "Open issues of the server that a waiver covers.",
        lambda summary: None if summary.open_issues is None else summary.waived_issues,
    ),
    _labelled(
        "patrolserver_server_software",
        "Software installed on the server.",
        ("state", STATES),
        lambda summary: summary.software,
    ),
    _single(
        "patrolserver_server_exploits",
        "Known exploits of the server's software at or above the configured risk.",
        lambda summary: None if summary.software is None else summary.exploits,
    ),
    _single(
        "patrolserver_server_exploits_unknown_risk",
        "Those of the server's exploits whose risk nobody knows: they may be the worst.",
        _unknown_risks,
    ),
    _single(
        "patrolserver_server_exploit_risk_max",
        "Highest risk of a known exploit of the server's software, from 0 to 10.",
        lambda summary: None if summary.software is None else summary.exploit_risk_max,
    ),
    _labelled(
        "patrolserver_server_oldest_issue_timestamp_seconds",
        "Since when the open issue that has had this severity the longest has had it.",
        _SEVERITY,
        lambda summary: summary.oldest_issue,
    ),
    _single(
        "patrolserver_server_scanning",
        "Whether PatrolServer is scanning the server (1) or not (0), as far as that was announced or looked for.",
        lambda summary: int(summary.scanning),
    ),
    _single(
        "patrolserver_server_last_scan_timestamp_seconds",
        "End of the last scan seen.",
        lambda summary: summary.last_scan_at,
    ),
    _single(
        "patrolserver_server_last_poll_timestamp_seconds",
        "Start of the last successful poll of the server.",
        lambda summary: summary.last_poll_at,
    ),
    _single(
        POLL_SUCCESS,
        "Whether the last poll of the server brought data and the store kept it (1) or not (0).",
        lambda summary: int(summary.poll_success),
    ),
    _single(
        "patrolserver_server_poll_complete",
        "Whether the last successful poll of the server was whole and not empty (1) or not (0).",
        lambda summary: int(summary.poll_complete),
    ),
)

SOFTWARE_INFO = Family(
    "patrolserver_server_software_info",
    "Software that is outdated, unsupported, exploitable or reported; always 1.",
    _software_info,
)
EXPLOIT_INFO = Family(
    "patrolserver_server_exploit_info",
    "Known exploits of the server's software at or above the configured risk; always 1.",
    _exploit_info,
)
