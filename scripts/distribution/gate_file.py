"""``patrolserver-gate``: the gate's command as one file that any Python from 3.9 on runs, with no library.

It is an archive that Python runs, of the package's own modules as they are: which ones follows from their imports. They
are stored, not packed, so that an editor shows what the file does. What the command takes from the types of the package
is written into it as data.
"""

from __future__ import annotations

import ast
import io
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patrolserver_exporter.commands import gate
from patrolserver_exporter.commands.gate_file import PROGRAM, WaiverMember
from patrolserver_exporter.issues.model import Waiver

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
_SOURCES: Final = ROOT / "exporter"
_PACKAGE: Final = "patrolserver_exporter"
_ENTRY: Final = f"{_PACKAGE}.commands.gate_file"
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_MAIN: Final = '''\
"""The deploy gate of patrolserver-exporter, in one file: Python's own library is all it needs.

Made by scripts/distribution of the same modules as the package's `patrolserver-exporter gate`.
"""

import sys

if sys.version_info < (3, 9):
    sys.stderr.write("{program}: error: it needs Python 3.9 or newer, and this is %d.%d.\\n" % sys.version_info[:2])
    sys.exit(4)

from patrolserver_exporter.commands.gate_file import WaiverMember, edition, main
from patrolserver_exporter.commands.gate_policy import PolicyFlag

POLICY_FLAGS = (
    {flags},
)
WAIVER_MEMBERS = (
    {members},
)

sys.exit(main(edition(POLICY_FLAGS, WAIVER_MEMBERS)))
'''


_PYTHON: Final = (3, 9)
"""The oldest that runs it."""


class NeedsLibrary(Exception):
    """A module of the file needs what is not Python's own."""


def build(output: Path, epoch: int) -> Path:
    """Write the file into the folder; returns its path. Raises `NeedsLibrary`."""
    packed = io.BytesIO(_SHEBANG)
    packed.seek(0, io.SEEK_END)
    files = {"__main__.py": _main(), **{str(path.relative_to(_SOURCES)): path.read_text() for path in modules()}}
    with zipfile.ZipFile(packed, "a") as archive:
        for name, text in sorted(files.items()):
            member = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, text)
    file = output / PROGRAM
    file.write_bytes(packed.getvalue())
    file.chmod(0o755)
    return file


def _main() -> str:
    flags = ",\n    ".join(map(repr, gate.policy_flags()))
    members = ",\n    ".join(map(repr, waiver_members()))
    return _MAIN.format(program=PROGRAM, flags=flags, members=members)


def waiver_members() -> Iterator[WaiverMember]:
    """The members of a waiver, from the type that the configuration takes them from."""
    info: Any = msgspec.inspect.type_info(Waiver)
    for one in info.fields:
        kinds = [kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind for kind in _of(one.type)]
        choices = tuple(str(word) for kind in kinds if isinstance(kind, msgspec.inspect.EnumType) for word in kind.cls)
        is_date = any(isinstance(kind, msgspec.inspect.DateType) for kind in kinds)
        yield WaiverMember(one.encode_name, one.required, choices, is_date)


def _of(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def modules(entry: str = _ENTRY) -> list[Path]:
    """The modules of the package that the entry needs, and the packages that they are in. Raises `NeedsLibrary`."""
    found: dict[str, Path] = {}
    left = [entry]
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = path = _path(name)
        left += _imports(path)
        left += [name.rpartition(".")[0]] if "." in name else []
    return sorted(found.values())


def _path(name: str) -> Path:
    place = _SOURCES / name.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports; raises `NeedsLibrary` for those of others."""
    for name in _imported(ast.parse(path.read_text(), feature_version=_PYTHON).body):
        if name.partition(".")[0] == _PACKAGE:
            yield name
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            raise NeedsLibrary(f"{path.relative_to(ROOT)} imports {name}, which is not of Python's own library")


def _imported(statements: list[ast.stmt]) -> Iterator[str]:
    for one in statements:
        if isinstance(one, ast.Import):
            yield from (alias.name for alias in one.names)
        elif isinstance(one, ast.ImportFrom):
            module = one.module or ""
            inner = [f"{module}.{alias.name}" for alias in one.names]
            modules = [name for name in inner if module.startswith(_PACKAGE) and _path(name).is_file()]
            yield from modules or [module]
        elif not (isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"):
            # What a function imports, too.
            yield from _imported([inner for inner in ast.walk(one) if inner is not one and isinstance(inner, ast.stmt)])
