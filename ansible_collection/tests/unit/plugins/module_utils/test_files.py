# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are written whole or not at all, and what hinders it is told with the option and the path."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput, Unwritten
from ansible_collections.patrolserver.monitoring.plugins.module_utils.files import read_text, write_text


@contextlib.contextmanager
def room_for(size):
    """No file of this process gets larger than so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path, monkeypatch):
    """By its name alone, through a link, and a new one gets what the umask leaves."""
    monkeypatch.chdir(tmp_path)
    write_text("report_file", "new.json", "one", dry=False)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat("new.json").st_mode) == 0o666 & ~umask
    os.chmod("new.json", 0o640)
    os.symlink("new.json", "link.json")
    write_text("report_file", "link.json", "two", dry=False)
    assert os.path.islink("link.json")
    assert read_text("x", "new.json") == "two"
    assert stat.S_IMODE(os.stat("new.json").st_mode) == 0o640
    assert sorted(os.listdir(".")) == ["link.json", "new.json"]


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("path", "why"),
    [(".", "it is a folder"), ("no/such.json", "its folder does not exist"), ("/dev/null", "it is no regular file")],
)
def test_what_hinders_is_told_before_too(tmp_path, monkeypatch, path, why, dry):
    """In check mode as in a real run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unwritten, match="report_file: {0} cannot be written: {1}".format(path, why)):
        write_text("report_file", path, "text", dry)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    """And says so."""
    path = str(tmp_path / "report.json")
    write_text("report_file", path, "old", dry=False)
    with room_for(1000), pytest.raises(Unwritten, match="report_file: .* cannot be written: File too large"):
        write_text("report_file", path, "x" * 5000, dry=False)
    assert read_text("x", path) == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """With its option; a binary file is no text."""
    with pytest.raises(InvalidInput, match="waivers_file: /no/such cannot be read: No such file"):
        read_text("waivers_file", "/no/such")
    with pytest.raises(InvalidInput, match="Is a directory"):
        read_text("waivers_file", str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="it is no text in UTF-8"):
        read_text("waivers_file", str(tmp_path / "binary"))
