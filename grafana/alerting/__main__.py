"""Writes the rules, the same for the Prometheus operator, and the page that lists the alerts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana.alerting.files import OPERATORS, PAGE, RULES, operators_rules, page, rules
from grafana.settings import load


def main() -> int:
    """Write; 2 when the settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m grafana.alerting", description=__doc__)
    parser.add_argument("--settings", type=Path, help="what is to be other than in grafana/settings.yml")
    parser.add_argument("--out", type=Path, help="folder to write into; without it the repository's own files")
    arguments = parser.parse_args()
    try:
        settings = load(arguments.settings)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    own, operators = RULES, OPERATORS
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        own, operators = arguments.out / RULES.name, arguments.out / OPERATORS.name
    else:
        PAGE.write_text(page(settings))
    own.write_text(rules(settings))
    operators.write_text(operators_rules(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
