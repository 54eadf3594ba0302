"""The Debian package: the exporter with the libraries of its lock, for Debian's own Python; built by dpkg-deb."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.distribution import manual

ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = ROOT / "packaging" / "debian"
_NAME: Final = manual.PROGRAM
_LIBRARY: Final = f"usr/lib/{_NAME}"
_CONFIGURATION: Final = f"etc/{_NAME}/patrolserver.yml"
_PLATFORMS: Final = {
    "amd64": ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"),
    "arm64": ("manylinux_2_34_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64"),
}
"""Wheels that Debian's C library of 2.36 can load."""
_CONTROL: Final = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {name} contributors <noreply@example.org>
Installed-Size: {size}
Depends: python3 (>= {python}), python3 (<< {next_python}), procps, systemd
Recommends: ca-certificates
Section: net
Priority: optional
Homepage: https://github.com/patrolserver-exporter/patrolserver-exporter
Description: Prometheus exporter for PatrolServer
 Takes PatrolServer's webhooks, polls its API, and shows open issues and outdated
 software of every server to Prometheus. Its gate stops deployments on open issues.
 The libraries that it needs come along, in the versions of its lock.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a package is built for."""

    architecture: str = "amd64"
    python: str = "3.11"
    """Debian 12 has this one."""


def build(wheel: Path, output: Path, epoch: int, *, target: Target = Target()) -> Path:
    """Build the package from the wheel; returns its path. Needs ``dpkg-deb``, and reads the lock's wheels."""
    version = re.sub(r"(?<=\d)(rc|a|b|\.dev)", r"~\1", wheel.name.split("-")[1]) + "-1"
    tree = output / ".debian"
    shutil.rmtree(tree, ignore_errors=True)
    _install(wheel, tree / _LIBRARY, target)
    _files(tree, epoch)
    _control(tree, version, target)
    _settle(tree, epoch)
    package = output / f"{_NAME}_{version}_{target.architecture}.deb"
    # One thread and one compressor, so that the bytes are the same on every machine.
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "-z2", "--threads-max=1", "--build", tree, package],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )
    shutil.rmtree(tree)
    return package


def _install(wheel: Path, library: Path, target: Target) -> None:
    version = target.python.replace(".", "")
    platforms = [f"--platform={platform}" for platform in (*_PLATFORMS[target.architecture], "any")]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-deps",
    ]
    aimed = [*platforms, f"--python-version={target.python}", "--implementation=cp", f"--abi=cp{version}", "--abi=abi3"]
    for what in (["--require-hashes", f"--requirement={ROOT / 'requirements' / 'run.txt'}"], [wheel]):
        subprocess.run(
            [*pip, *aimed, "--abi=none", "--only-binary=:all:", f"--target={library}", "--upgrade", *what], check=True
        )
    shutil.rmtree(library / "bin", ignore_errors=True)
    # Where a file came from, and the list with that file's sum, say where this machine built it.
    for origin in library.glob("*.dist-info/direct_url.json"):
        origin.unlink()
        record = origin.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if "direct_url.json" not in line))
    for record in library.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(sorted(line for line in lines if not line.startswith("../../bin/"))))


def _files(tree: Path, epoch: int) -> None:
    for source, place, mode in (
        (_SOURCES / _NAME, f"usr/bin/{_NAME}", 0o755),
        (_SOURCES / "sysusers.conf", f"usr/lib/sysusers.d/{_NAME}.conf", 0o644),
        (_SOURCES / "tmpfiles.conf", f"usr/lib/tmpfiles.d/{_NAME}.conf", 0o644),
        (ROOT / "LICENSE", f"usr/share/doc/{_NAME}/copyright", 0o644),
        (ROOT / "grafana" / "rules" / "patrolserver.yml", f"usr/share/{_NAME}/rules/patrolserver.yml", 0o644),
    ):
        _put(tree / place, source.read_bytes(), mode)
    for dashboard in sorted((ROOT / "grafana" / "dashboards" / "json").glob("*.json")):
        _put(tree / f"usr/share/{_NAME}/dashboards/{dashboard.name}", dashboard.read_bytes())
    unit = (ROOT / "packaging" / f"{_NAME}.service").read_text()
    _put(tree / f"lib/systemd/system/{_NAME}.service", unit.replace(f"/opt/{_NAME}/bin/", "/usr/bin/").encode())
    _put(tree / _CONFIGURATION, _configuration().encode())
    _put(tree / f"usr/share/doc/{_NAME}/changelog.gz", _packed((ROOT / "CHANGELOG.md").read_text()))
    date = dt.datetime.fromtimestamp(epoch, dt.UTC).date()
    for name, text in manual.manual_pages(date):
        _put(tree / f"usr/share/man/man1/{name}.gz", _packed(text))
    for shell, name, text in manual.completions():
        folder = {"bash": "bash-completion/completions", "zsh": "zsh/vendor-completions"}[shell]
        _put(tree / "usr/share" / folder / name, text.encode())


def _configuration() -> str:
    """The example, with key and secret as the unit hands them over."""
    text = (ROOT / "packaging" / "patrolserver.yml").read_text()
    for name in ("key", "secret"):
        before = f"{name}: !env PATROLSERVER_{name.upper()}"
        if before not in text:
            raise ValueError(f"packaging/patrolserver.yml has no line {before!r}")
        text = text.replace(before, f'{name}: !file "${{CREDENTIALS_DIRECTORY}}/{name}"')
    return text


def _control(tree: Path, version: str, target: Target) -> None:
    major, minor = target.python.split(".")
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) // 1024
    control = _CONTROL.format(
        name=_NAME,
        version=version,
        architecture=target.architecture,
        size=size,
        python=target.python,
        next_python=f"{major}.{int(minor) + 1}",
    )
    _put(tree / "DEBIAN" / "control", control.encode())
    _put(tree / "DEBIAN" / "conffiles", f"/{_CONFIGURATION}\n".encode())
    for script in ("postinst", "prerm", "postrm"):
        _put(tree / "DEBIAN" / script, (_SOURCES / script).read_bytes(), 0o755)


def _put(path: Path, content: bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def _packed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def _settle(tree: Path, epoch: int) -> None:
    """One time for all, and modes that do not come from this machine's umask."""
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
