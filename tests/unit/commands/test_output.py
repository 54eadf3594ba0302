from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from patrolserver_exporter.commands import output

pytestmark = pytest.mark.promise("outputs")
NOBODY = 65534


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    """As if the shell had made it, and nothing else is left in the folder."""
    file = tmp_path / "report"
    umask = os.umask(0o027)
    try:
        output.write_file(str(file), "text\n")
    finally:
        os.umask(umask)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("text\n", 0o640)
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    """A reader that has the old one open goes on reading that, and what was secret stays so."""
    file = tmp_path / ("long" * 60)
    file.write_text("before")
    file.chmod(0o600)
    with file.open() as before:
        output.write_file(str(file), "after")
        assert before.read() == "before"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("after", 0o600)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path, *, exists: bool) -> None:
    """Over several links, relative ones too, and where there was no file yet."""
    (tmp_path / "kept").mkdir()
    target = tmp_path / "kept" / "report"
    if exists:
        target.write_text("before")
    (tmp_path / "second").symlink_to("kept/report")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    output.write_file(str(tmp_path / "first"), "after")
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert not target.is_symlink()
    assert target.read_text() == "after"


def test_links_that_go_round_are_an_error(tmp_path: Path) -> None:
    """They lead to no file."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        output.write_file(str(tmp_path / "a"), "text")


def test_a_fifo_is_written_in_place(tmp_path: Path) -> None:
    """Its reader gets the text, and it is still there."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    output.write_file(str(fifo), "text" * 50_000)
    reader.join(10)
    assert read == ["text" * 50_000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_in_place() -> None:
    """A full one is an error, and none is replaced by a file."""
    output.write_file(os.devnull, "text")
    with pytest.raises(OSError, match="No space left"):
        output.write_file("/dev/full", "text")
    assert all(stat.S_ISCHR(Path(one).stat().st_mode) for one in (os.devnull, "/dev/full"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """It is told."""
    with pytest.raises(OSError, match="directory"):
        output.write_file(str(tmp_path), "text")


def test_a_descriptor_gets_the_text_where_it_stands(tmp_path: Path) -> None:
    """What was written through it before is kept."""
    with (tmp_path / "all").open("w+") as file:
        file.write("before ")
        file.flush()
        output.write_file(f"/dev/fd/{file.fileno()}", "after")
        file.seek(0)
        assert file.read() == "before after"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_file_in_a_folder_that_takes_none_is_written_in_place() -> None:
    """As somebody who may write the file, but not beside it; a file that is not there cannot be made."""
    folder = Path("/tmp") / f"output-{os.getpid()}"  # noqa: S108  # pytest's own folders are closed to others.
    folder.mkdir(mode=0o755)
    file = folder / "report"
    try:
        file.write_text("before, and longer")
        os.chown(file, NOBODY, NOBODY)
        before = file.stat().st_ino
        program = (
            "import os, random, runpy, sys; module = runpy.run_path(sys.argv[1]); os.setuid(65534); "
            "module['write_file'](sys.argv[2], 'after')"
        )
        # The checkout may be closed to others, too.
        copy = folder / "output.py"
        copy.write_text(Path(output.__file__).read_text())
        command = [sys.executable, "-c", program, str(copy)]
        subprocess.run([*command, str(file)], check=True, timeout=30)
        assert (file.read_text(), file.stat().st_ino) == ("after", before)
        assert subprocess.run(
            [*command, str(folder / "new")], check=False, timeout=30, stderr=subprocess.PIPE
        ).returncode
    finally:
        for one in folder.iterdir():
            one.unlink()
        folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_file_stays_its_owners(tmp_path: Path) -> None:
    """A root in a container writes what a user outside reads and removes."""
    file = tmp_path / "report"
    file.write_text("before")
    os.chown(file, NOBODY, NOBODY)
    output.write_file(str(file), "after")
    assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == ("after", NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("-", True), ("/dev/stdout", True), ("/dev/fd/1", True), ("/dev/stderr", False), ("./-", False)],
)
def test_what_stands_for_standard_output(path: str, expected: bool) -> None:  # noqa: FBT001
    """``-`` and its devices."""
    assert output.is_stdout(path) is expected


def test_standard_output_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other letters are replaced, and where there is no standard output nothing happens."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    output.show("web – \ud800\n")
    assert stream.buffer.getvalue() == b"web ? ?\n"
    monkeypatch.setattr(sys, "stdout", None)
    output.show("text")
