# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a module reads and writes. A message names the option and the path; a file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput, Unwritten


def read_text(option: str, path: str) -> str:
    """Return the text of a file.

    :raises InvalidInput: if it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise InvalidInput("{0}: {1} cannot be read: {2}".format(option, path, error.strerror or error)) from None
    except ValueError:
        raise InvalidInput("{0}: {1} cannot be read: it is no text in UTF-8".format(option, path)) from None


def write_text(option: str, path: str, text: str, dry: bool) -> None:
    """Replace the file by one with this text; ``dry`` only looks whether that could be done.

    A link stays, and what it leads to is replaced. A new file gets the mode that the umask leaves, an old one keeps its own.

    :raises Unwritten: if it cannot be written. What was there before is there still.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    reason = _obstacle(target, folder)
    if reason is not None:
        raise Unwritten("{0}: {1} cannot be written: {2}".format(option, path, reason))
    if dry:
        return
    try:
        _replace(target, folder, text)
    except OSError as error:
        raise Unwritten("{0}: {1} cannot be written: {2}".format(option, path, error.strerror or error)) from None


def _obstacle(target: str, folder: str) -> str | None:
    if os.path.isdir(target):
        return "it is a folder, and a file is needed"
    if os.path.exists(target) and not os.path.isfile(target):
        return "it is no regular file"
    if not os.path.isdir(folder):
        return "its folder does not exist"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "its folder is not writable"
    return None


def _replace(target: str, folder: str, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            _take_over(file.fileno(), target)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _take_over(handle: int, target: str) -> None:
    """Give the new file the mode and the owner of the old one."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        umask = os.umask(0o022)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
        return
    with contextlib.suppress(PermissionError):
        os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode))
