"""Build everything that is given out: ``python -m scripts.distribution FOLDER [PART…]``."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scripts.distribution import debian, gate_file, manual
from scripts.distribution.archives import SUMS, normalise_tarball, write_sums

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parents[2]


def _epoch() -> int:
    """The time that everything carries: SOURCE_DATE_EPOCH, or that of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(shown.stdout)


def _python_packages(output: Path, epoch: int) -> None:
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, env=environ, stdout=subprocess.DEVNULL)


def _debian_package(output: Path, epoch: int) -> None:
    if shutil.which("dpkg-deb") is None:
        sys.stderr.write("dist: no Debian package: dpkg-deb is not installed here\n")
        return
    debian.build(next(output.glob("*.whl")), output, epoch)


def _gate_file(output: Path, epoch: int) -> None:
    gate_file.build(output, epoch)


def _manual(output: Path, epoch: int) -> None:
    work = output / ".manual"
    manual.write(work, dt.datetime.fromtimestamp(epoch, dt.UTC).date())
    archive = output / f"{next(output.glob('*.whl')).name.split('-py3')[0].replace('_', '-')}-manual.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        for path in sorted(work.rglob("*")):
            packed.add(path, str(path.relative_to(work)), recursive=False)
    normalise_tarball(archive, epoch)
    shutil.rmtree(work)


def _collection(output: Path, epoch: int) -> None:
    tools = subprocess.run(
        [ROOT / "scripts" / "ansible-env"], capture_output=True, text=True, check=True
    ).stdout.strip()
    source = output / ".collection"
    # Only what git knows: caches and test output of this machine stay out.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "ansible_collection"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        target = source / Path(name).relative_to("ansible_collection")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    galaxy = Path(tools) / "tools" / "bin" / "ansible-galaxy"
    command = [str(galaxy), "collection", "build", str(source), "--output-path", str(output), "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(source)
    normalise_tarball(next(output.glob("patrolserver-monitoring-*.tar.gz")), epoch)


def _bill_of_materials(output: Path, epoch: int) -> None:
    del epoch  # It carries no time.
    venv = ROOT / "build" / "sbom"
    subprocess.run([ROOT / "scripts" / "sbom", output / "sbom.cdx.json", venv], cwd=ROOT, check=True)


PARTS: Final[dict[str, Callable[[Path, int], None]]] = {
    "python": _python_packages,
    "gate": _gate_file,
    "manual": _manual,
    "debian": _debian_package,
    "collection": _collection,
    "sbom": _bill_of_materials,
}


def main() -> None:
    """Build the parts, all of them unless some are named, and their sums."""
    parser = argparse.ArgumentParser(prog="dist", description="Build what is given out, the same bytes each time.")
    parser.add_argument("folder", type=Path, help="where to put it, in place of an earlier build")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="python always comes first (default: all)")
    values = parser.parse_args()
    output: Path = values.folder.absolute()
    if output.exists() and any(output.iterdir()) and not (output / SUMS).exists():
        parser.error(f"{output} holds other things than an earlier build, and what lies there would go; name another")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # A build that breaks off is one, too.
    (output / SUMS).touch()
    os.umask(0o022)
    epoch = _epoch()
    for part in dict.fromkeys(("python", *(values.parts or PARTS))):
        PARTS[part](output, epoch)
    sys.stdout.write(write_sums(output).read_text())


if __name__ == "__main__":
    main()
