"""Files for ``promtool test rules``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def rules_hold(
    promtool: str, rules: Path, tests: list[dict[str, Any]], folder: Path, *, step: str = "1m", timeout: float = 240
) -> str:
    """What promtool has to say against these tests; empty when they hold.

    It evaluates groups in any order unless it is told one, so that what reads another group's series is one step late.
    """
    file = folder / "cases.test.yml"
    order = [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]]
    whole = {"rule_files": [str(rules)], "evaluation_interval": step, "group_eval_order": order, "tests": tests}
    file.write_text(yaml.safe_dump(whole))
    done = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=timeout
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def firing(alert: str, severity: str = "") -> str:
    """A query for how many of an alert fire; 0 and not nothing when none does."""
    with_severity = f',severity="{severity}"' if severity else ""
    return f'count(ALERTS{{alertname="{alert}",alertstate="firing"{with_severity}}}) or vector(0)'


def counted(expr: str, number: float, minute: int) -> dict[str, Any]:
    """What a query that yields one number has to yield at a minute."""
    return {"expr": expr, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": number}]}


def series(found: Mapping[str, str]) -> list[dict[str, str]]:
    """Series and their values."""
    return [{"series": name, "values": values} for name, values in found.items() if values]
