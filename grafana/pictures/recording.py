"""What Prometheus would have recorded of a week that it did not see: the rules, over the blocks with the samples."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import yaml

from grafana.alerting.files import RULES
from grafana.alerting.recorded import FIRING
from grafana.pictures.backfill import LONG_BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

Rule = dict[str, Any]


def passes() -> Iterator[list[Rule]]:
    """Recording rules in an order in which each finds what it reads: promtool sees only what is in blocks already."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    left = [rule for rule in rules if "record" in rule and rule["record"] != FIRING]
    while left:
        names = {rule["record"] for rule in left}
        ready = [rule for rule in left if not names & set(re.findall(r"[a-z_]+(?::[a-z0-9_]+)+", rule["expr"]))]
        yield ready
        left = [rule for rule in left if rule not in ready]
    yield [_fired(rule) for rule in rules if "alert" in rule]


def _fired(alert: Rule) -> Rule:
    """An alert as the series that the dashboard reads; how long it has to be so is left out."""
    labels = {"alertname": alert["alert"], "severity": alert["labels"]["severity"], "instance": "fleet"}
    return {"record": FIRING, "labels": labels, "expr": f"count by (job, account) (\n{alert['expr']}\n)"}


def record(
    folder: Path, start: int, end: int, step: int, running: Callable[[Path], AbstractContextManager[str]]
) -> None:
    """Write the recorded series into ``folder/tsdb``, with ``running``, which starts a Prometheus on the folder.

    Raises:
        subprocess.CalledProcessError: promtool or Prometheus does not like a rule.
    """
    # The hash of a group's name and file says at which seconds of the interval it is evaluated. With one name for all
    # passes each finds what those before it recorded for the same moment, as in Prometheus, and not for minutes before.
    # With this name that is half a minute after each scrape: what was scraped is not yet old.
    file = folder / "recorded.yml"
    for rules in passes():
        file.write_text(yaml.safe_dump({"groups": [{"name": "demo", "rules": rules}]}))
        with running(folder) as url:
            command = ["promtool", "tsdb", "create-blocks-from", LONG_BLOCKS, "rules", f"--url={url}"]
            command += [
                f"--start={start}",
                f"--end={end}",
                f"--eval-interval={step}s",
                f"--output-dir={(folder / 'tsdb').resolve()}",
                file.name,
            ]
            subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603 - the arguments are our own
