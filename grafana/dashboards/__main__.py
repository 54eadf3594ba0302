"""Writes the dashboards' JSON; with ``--check`` only says, by its exit code, whether the files are fresh."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana.dashboards.files import FOLDER, rendered
from grafana.settings import load


def main() -> int:
    """Write or check; 1 when ``--check`` finds a stale file, 2 when the settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m grafana.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--settings", type=Path, help="what is to be other than in grafana/settings.yml")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON files")
    arguments = parser.parse_args()
    try:
        files = rendered(load(arguments.settings))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    stale = [
        name
        for name, text in files.items()
        if not (arguments.out / name).is_file() or (arguments.out / name).read_text() != text
    ]
    for name in stale:
        if arguments.check:
            sys.stderr.write(f"{name} is stale: run python -m grafana.dashboards\n")
        else:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / name).write_text(files[name])
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
