"""From what scrapes would have read to the blocks of a real Prometheus."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TARGET = 'job="patrolserver",instance="exporter:10058"'
LONG_BLOCKS = "--max-block-duration=192h"
"""Few long blocks: promtool reads its input once for each."""
_SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")


def stamped(text: str, at: int) -> str:
    """The samples of an exposition with the target's labels and the time of the scrape."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return "".join(_stamped(line, at) for line in lines)


def _stamped(line: str, at: int) -> str:
    found = _SAMPLE.match(line)
    if found is None:
        raise ValueError(f"not a sample: {line!r}")
    name, labels, value = found.groups()
    return f"{name}{{{TARGET}{',' + labels if labels else ''}}} {value} {at}\n"


def backfill(scrapes: Iterable[tuple[int, str]], folder: Path) -> None:
    """Write the scrapes, which are in order of time, as blocks into Prometheus' data ``folder``.

    Raises:
        subprocess.CalledProcessError: promtool does not like what it reads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "samples.om"
    with source.open("w") as file:
        file.writelines(stamped(text, at) for at, text in scrapes)
        file.write("# EOF\n")
    command = [
        "promtool",
        "tsdb",
        "create-blocks-from",
        LONG_BLOCKS,
        "openmetrics",
        "--quiet",
        str(source),
        str(folder),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - the arguments are our own
    source.unlink()
