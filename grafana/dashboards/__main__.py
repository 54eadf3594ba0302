"""Writes the dashboards' JSON; with ``--check`` only says, by its exit code, whether the files are fresh."""

from __future__ import annotations

import argparse
import sys

from grafana.dashboards.files import FOLDER, rendered


def main() -> int:
    """Write or check; 1 when ``--check`` finds a stale file."""
    parser = argparse.ArgumentParser(prog="python -m grafana.dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    stale = [
        name
        for name, text in rendered().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]
    for name in stale:
        if check:
            sys.stderr.write(f"{name} is stale: run python -m grafana.dashboards\n")
        else:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(rendered()[name])
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
