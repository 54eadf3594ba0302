"""The gate's command as the package has it, and as the one file that is given out for CI machines."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patrolserver_exporter.cli import main

if TYPE_CHECKING:
    import pytest

IN_PACKAGE, IN_FILE = "package", "file"
OLDEST = 9
"""Minor version of the oldest Python that runs the file."""


class Ran(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class GateEdition:
    """One of the two; calling it runs it."""

    name: str
    file: Path
    folder: Path
    """An empty one, or nearly so, to run the file in."""
    capsys: pytest.CaptureFixture[str]
    python: str = sys.executable

    @property
    def program(self) -> list[str]:
        """The start of its command line. The file gets a Python that knows no site-packages and no PYTHON* variable."""
        if self.name == IN_PACKAGE:
            return [self.python, "-m", "patrolserver_exporter", "gate"]
        return [self.python, "-I", "-S", "-W", "error", str(self.file)]

    def __call__(self, *arguments: str) -> Ran:
        """Run it to its end; that of the package within this process."""
        if self.name == IN_PACKAGE:
            try:
                code = main(["gate", *arguments])
            except SystemExit as refused:
                code = int(refused.code or 0)
            return Ran(code, *self.capsys.readouterr())
        command = [*self.program, *arguments]
        ended = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        return Ran(ended.returncode, ended.stdout, ended.stderr)


def pythons() -> dict[str, str]:
    """The Pythons of this machine that are new enough, by version; the one that runs the tests is always there."""
    found = {f"3.{sys.version_info[1]}": sys.executable}
    for minor in range(OLDEST, 20):
        installed = [Path(f"/usr/bin/python3.{minor}"), Path(f"/usr/local/bin/python3.{minor}")]
        installed += sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
        for path in installed:
            if path.exists():
                found.setdefault(f"3.{minor}", str(path))
    return dict(sorted(found.items(), key=lambda pair: int(re.sub(r"\D", "", pair[0]))))
