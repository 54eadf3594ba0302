"""No command in a sentence is wrong: ours take it as it stands, what is another program's is run by a test."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.harness.page_blocks import ROOT
from tests.harness.page_sentences import SAID, begins

from patrolserver_exporter.cli import COMMANDS
from patrolserver_exporter.web.api.catalogue import OPERATIONS

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from tests.harness.page_sentences import Said

PROGRAM = "patrolserver-exporter"
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*(?:\.[\w-]+)*")
UNITS = ROOT / "packaging"
COLLECTION = ROOT / "ansible_collection"

ELSEWHERE = {
    "antsibull-changelog release": ("scripts/ansible-checks", "antsibull-changelog release"),
    "apt-get install": ("tests/integration/test_installed.py", 'said("apt-get")'),
    "apt-get remove": ("tests/integration/test_installed.py", 'said("apt-get")'),
    "chown": ("tests/integration/test_installed.py", 'said("chown")'),
    "curl": ("tests/integration/test_page_commands.py", "curl"),
    "htpasswd": ("tests/integration/test_installed.py", 'said("htpasswd")'),
    "initdb --data-checksums": ("tests/harness/postgres.py", '"initdb", "--data-checksums"'),
    "journalctl -r -g": ("tests/integration/test_grafana_runbooks.py", "journalctl"),
    "kill -9": ("tests/faults/test_kill.py", "kill"),
    "kill -HUP": ("tests/faults/test_stop_and_reload.py", "SIGHUP"),
    "npm ci": ("tests/harness/chromium.py", '"ci"'),
    "podman-compose -f packaging/compose.yml up": ("tests/harness/container.py", "podman-compose"),
    "promtool check config": ("tests/harness/promtool.py", "promtool"),
    "ss": ("tests/integration/test_installed.py", 'said("ss")'),
    "systemctl": ("tests/integration/test_installed.py", 'said("systemctl"'),
    "systemd-analyze": ("tests/integration/test_installed.py", '"systemd-analyze")'),
}
"""Of other programs: which test runs it, and by what word that test is known to."""

OTHERS = sorted({name.split()[0] for name in ELSEWHERE} | {"chmod", "openssl", "sqlite3"})
OURS = [said for said in SAID if begins(said, PROGRAM, "patrolserver-gate", *COMMANDS)]
MAKES = [said for said in SAID if begins(said, "make")]
SCRIPTS = [said for said in SAID if re.match(r"scripts/[\w-]+", said.text)]
MODULES = [said for said in SAID if begins(said, "python", "python3")]
ANSIBLE = [said for said in SAID if begins(said, "ansible-doc", "ansible-playbook")]
SYSTEMD = [said for said in SAID if begins(said, "systemctl", "systemd-analyze")]
CALLS = [said for said in SAID if re.match(r"(?:GET|POST|PUT|DELETE) /api/v1/", said.text)]
FOREIGN = [said for said in SAID if begins(said, *OTHERS)]


def test_sentences_have_commands() -> None:
    """The reading finds them, also over the end of a line."""
    assert len(MAKES) > 30
    assert len(OURS) > 12
    assert {said.page for said in SAID} >= {"README.md", "SECURITY.md", "CHANGELOG.md", "grafana/runbooks.md"}
    assert all(map(len, (SCRIPTS, MODULES, ANSIBLE, SYSTEMD, CALLS, FOREIGN)))


def parser_of(command: str) -> ArgumentParser:
    """That of one of our commands."""
    parser: ArgumentParser = importlib.import_module(f"{PROGRAM.replace('-', '_')}.commands.{command}").parser()
    return parser


def flags_of(parser: ArgumentParser) -> set[str]:
    """Every flag that it takes."""
    return set(FLAG.findall(parser.format_help())) | {"--version", "--help"}


OUR_FLAGS = {flag for command in ("serve", *COMMANDS) for flag in flags_of(parser_of(command))}
OF_TOOLS = {"--settings": "grafana.alerting", "--out": "grafana.alerting"}
OF_OTHERS = {"--vars": "ansible-rulebook", "--persistence-id": "ansible-rulebook"}


@pytest.mark.parametrize("said", OURS, ids=str)
def test_our_own_command_takes_it(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    """Its real parser; a sentence may leave out what has to be given besides."""
    first, *arguments = said.words
    if first == "patrolserver-gate":
        arguments.insert(0, "gate")
    elif first != PROGRAM:
        arguments.insert(0, first)
    if arguments == ["help"]:
        return
    command = arguments.pop(0) if not arguments[0].startswith("-") else "serve"
    assert command in ("serve", *COMMANDS)
    try:
        parser_of(command).parse_args(arguments)
    except SystemExit:
        told = capsys.readouterr().err
        assert "the following arguments are required" in told or re.search(r"expected (one|at least one) arg", told), (
            told
        )


@pytest.mark.parametrize("said", [said for said in SAID if said.text.startswith("--")], ids=str)
def test_a_flag_in_a_sentence_is_a_flag(said: Said) -> None:
    """Of one of our commands, or of the program that the sentence is about."""
    assert set(FLAG.findall(said.text)) <= OUR_FLAGS | {*OF_TOOLS, *OF_OTHERS}


@pytest.mark.parametrize("said", MAKES, ids=str)
def test_make_has_the_target_and_takes_the_variable(said: Said) -> None:
    """And what a variable names is there."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    _, target, *settings = said.words
    rule = re.search(rf"^{target}:.*\n(?:\t.*\n)*", makefile, re.MULTILINE)
    assert rule, f"there is no target {target}"
    for setting in settings:
        name, _, value = setting.partition("=")
        assert f"$({name})" in rule[0]
        for one in value.split():
            if name == "DEMO_FLAGS":
                parser_of("demo").parse_args([one])
            else:
                assert any((ROOT / place.format(one)).exists() for place in PLACES[name]), one


PLACES = {
    "TESTS": ("{}",),
    "BENCHES": ("tests/bench/bench_{}.py",),
    "MODULES": ("exporter/patrolserver_exporter/{}",),
}


@pytest.mark.parametrize("said", SCRIPTS, ids=str)
def test_a_script_is_there_and_knows_what_is_said_to_it(said: Said) -> None:
    """Its arguments stand in it, but for the version of a Python."""
    script, *arguments = said.words
    path = ROOT / script
    assert path.exists()
    assert path.is_dir() or path.stat().st_mode & stat.S_IXUSR
    text = path.read_text("utf-8") if arguments else ""
    assert [one for one in arguments if one != "…" and re.sub(r"py\d+$", "", one) not in text] == []


@pytest.mark.parametrize("said", MODULES, ids=str)
def test_a_module_that_is_run_is_there_and_has_the_flags(said: Said) -> None:
    """They stand in it as literals."""
    _, dash_m, module, *arguments = said.words
    assert dash_m == "-m"
    found = importlib.util.find_spec(f"{module}.__main__") or importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    tree = ast.parse(Path(found.origin).read_text("utf-8"))
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert set(FLAG.findall(" ".join(arguments))) <= literals


@pytest.mark.parametrize("said", ANSIBLE, ids=str)
def test_ansible_finds_it_in_the_collection(said: Said) -> None:
    """Module, role or playbook, and the variables that it is given."""
    program, *arguments = said.words
    (name,) = (one.rpartition(".")[2] for one in arguments if one.startswith("patrolserver.monitoring."))
    if program == "ansible-playbook":
        text = (COLLECTION / "playbooks" / f"{name}.yml").read_text("utf-8")
        variables = [one.partition("=")[0] for one in arguments if "=" in one]
        assert all(re.search(rf"\b{one}\b", text) for one in variables)
    elif "role" in arguments:
        assert (COLLECTION / "roles" / name / "meta" / "argument_specs.yml").is_file()
    else:
        assert list((COLLECTION / "plugins").glob(f"*/{name}.py"))


@pytest.mark.parametrize("said", SYSTEMD, ids=str)
def test_systemd_is_asked_for_a_unit_of_ours(said: Said) -> None:
    """By a verb that it has, and that the unit can do."""
    verb, *arguments = said.words[1:]
    assert verb in {"cat", "edit", "enable", "reload", "restart", "security", "start", "status"}
    assert [one for one in arguments if one.startswith("-")] in ([], ["--now"])
    for unit in (one for one in arguments if not one.startswith("-")):
        assert (UNITS / (unit if "." in unit else f"{unit}.service")).is_file()
    assert verb != "reload" or "ExecReload=" in (UNITS / f"{PROGRAM}.service").read_text("utf-8")


@pytest.mark.parametrize("said", CALLS, ids=str)
def test_the_api_takes_the_call(said: Said) -> None:
    """A method and a path that it has."""
    method, _, path = said.text.partition(" ")
    path = path.partition("?")[0].removeprefix("/api/v1")
    there = {(one.method, re.sub(r"\{\w+(?::\w+)?\}", "{}", one.path)) for one in OPERATIONS} | {
        ("GET", "/openapi.json")
    }
    assert (method, re.sub(r"\{\w+\}", "{}", path)) in there


def test_a_secret_is_made_as_the_page_says() -> None:
    """24 random bytes in hexadecimal."""
    (said,) = {said.text for said in FOREIGN if said.words[0] == "openssl"}
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    done = subprocess.run(shlex.split(said), capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[0-9a-f]{48}\n", done.stdout)


def test_a_state_is_backed_up_while_it_is_in_use(tmp_path: Path, migrated_file: Path) -> None:
    """By SQLite's own program."""
    (said,) = {said.text for said in FOREIGN if said.words[0] == "sqlite3"}
    if shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    shutil.copy(migrated_file, tmp_path / "FILE")
    with closing(sqlite3.connect(tmp_path / "FILE")) as used:
        used.execute("SELECT 1 FROM sqlite_master").fetchone()
        subprocess.run(["bash", "-c", said], cwd=tmp_path, check=True, timeout=60)
    with closing(sqlite3.connect(tmp_path / "COPY")) as copy:
        assert copy.execute("SELECT count(*) FROM sqlite_master WHERE name = 'servers'").fetchone() == (1,)


def test_what_others_may_read_is_closed_as_the_page_says(tmp_path: Path) -> None:
    """With ``chmod``, whoever the file belongs to."""
    modes = []
    for text in sorted({said.text for said in FOREIGN if said.words[0] == "chmod"}):
        file = tmp_path / "secret"
        file.write_text("x")
        file.chmod(0o664)
        subprocess.run([*shlex.split(text), str(file)], check=True)
        modes.append(stat.S_IMODE(file.stat().st_mode) & 0o007)
    assert modes == [0, 0]


@pytest.mark.parametrize("said", FOREIGN, ids=str)
def test_what_is_another_programs_is_run(said: Said) -> None:
    """By a test that names it."""
    if said.words[0] in {"chmod", "openssl", "sqlite3"}:
        return
    text = shlex.join(said.words)
    if places := [place for begin, place in ELSEWHERE.items() if text.startswith(begin)]:
        path, word = places[0]
        assert word in (ROOT / path).read_text("utf-8")
    else:
        pytest.fail("name the test that runs it")


def test_no_test_is_named_for_nothing() -> None:
    """Nor is a program overlooked that nobody has thought of."""
    texts = [shlex.join(said.words) for said in FOREIGN]
    assert [begin for begin in ELSEWHERE if not any(text.startswith(begin) for text in texts)] == []
    ours = {PROGRAM, "patrolserver-gate", *COMMANDS, "make", "python", "ansible-doc", "ansible-playbook"}
    first = {words[0] for said in SAID if len(words := said.text.split()) > 1}
    assert {word for word in first - ours - {*OTHERS} if re.fullmatch(r"[a-z][\w.-]+", word) and on_path(word)} == set()


def on_path(word: str) -> bool:
    """Whether it is a program here."""
    return shutil.which(word, path=os.defpath) is not None
