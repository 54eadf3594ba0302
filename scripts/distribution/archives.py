"""Archives that are the same, byte for byte, whoever builds them when: names in order, one time, no owner."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SUMS = "SHA256SUMS"
"""The file that tells a build's folder from others."""


def normalise_tarball(path: Path, epoch: int) -> None:
    """Write a ``.tar.gz`` anew, with the same files."""
    packed = io.BytesIO()
    with tarfile.open(path) as before, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as after:
        for member in sorted(before.getmembers(), key=lambda one: one.name):
            content = before.extractfile(member) if member.isfile() else None
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime, member.pax_headers = epoch, {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            after.addfile(member, content)
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=0))


def write_sums(folder: Path) -> Path:
    """``SHA256SUMS`` of everything in the folder, as ``sha256sum --check`` reads it."""
    names = sorted(path.name for path in folder.iterdir() if path.name != SUMS)
    lines = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    sums = folder / SUMS
    sums.write_text("".join(lines))
    return sums
