"""Small stumbles of people at the command line: each is told in a line or two that says what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from patrolserver_exporter.cli import main
from patrolserver_exporter.commands import flags, gate, inbox
from patrolserver_exporter.commands.exporter_client import ExporterClient, ExporterError
from patrolserver_exporter.commands.flags import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str]:
    """The exit code, and what standard error says."""
    try:
        code: int | str | None = main(arguments)
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """It is what people type first."""
    assert main(["help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As with other programs that have commands."""
    with pytest.raises(SystemExit) as ended:
        main(["help", name])
    assert ended.value.code == 0
    assert f"usage: patrolserver-exporter {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["gaet", "web-01"], ["help", "gaet"], ["web-01"], ["\udcff"], ["x" * 500]])
def test_a_mistyped_command_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the one that was meant, and nothing of all the flags of the service."""
    code, said = told(arguments, capsys)
    assert code == 2
    assert all(f"  {name} " in said for name in COMMANDS)
    assert ("did you mean gate?" in said) is ("gaet" in arguments)
    assert "--web" not in said
    assert max(map(len, said.splitlines())) < 160


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gate", "web", "--baseline=none.json"], "--baseline none.json: it cannot be read"),
        (["gate", "web", "--waivers=none.yml"], "none.yml"),
        (["gate", "web", "--ca-file=none.pem"], "there is no file none.pem"),
        (["gate", "web", "--token-file=none"], "cannot be read"),
        (["inbox", "list", "--token-file=none"], "cannot be read"),
        (["gate", "web", "--token-file=none"], "--token-file: the file none cannot be read"),
        (["gate", "web", "--token-file=none"], "correct the path, or let your own user read it"),
        (["doctor", "--ca-file=none.pem"], "there is no file none.pem"),
        (["--config.check", "--config.file=none.yml"], "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not the usage of all flags, in which it drowns."""
    monkeypatch.chdir(tmp_path)
    code, err = told(arguments, capsys)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["demo", "--story.speed=0"], "--story.speed"),
        (["demo", "--story.speed=nan"], "--story.speed"),
        (["demo", "--story.speed=-1"], "--story.speed"),
        (["demo", "--servers=-1"], "--servers"),
        (["simulator", "--software=-1"], "--software"),
        (["gate", "web", "--timeout=0s"], "--timeout"),
        (["gate"], "SERVER"),
        (["inbox", "list", "--nope"], "--nope"),
        (["--nope"], "--nope"),
        (["simulator", "--web.listen-address=\udcff:1"], "--web.listen-address"),
        (["simulator", "--webhook.url=http://\udcff/"], "--webhook.url"),
        (["demo", "--simulator.listen-address=\udcff:1"], "--simulator.listen-address"),
        (["gate", "web", "--exporter-url=http://\udcff"], "--exporter-url"),
        (["demo", "--web.listen-address=x"], "--web.listen-address"),
        (["demo", "--simulator.listen-address=x"], "--simulator.listen-address"),
        (["demo", "--servers=9999999"], "--servers"),
        (["demo", "--seed=x"], "--seed: needs a whole number"),
        (["simulator", "--web.listen-address=:99999"], "--web.listen-address"),
        (["simulator", "--webhook.url=canary"], "--webhook.url: needs a URL like http://"),
        (["--webhook.listen-address=x"], "--webhook.listen-address"),
        (["gate", "web", "--max-age=6"], "--max-age: needs a duration with a unit"),
        (["gate", "web", "--grace=high"], "--grace: needs a duration"),
        (["gate", "web", "--grace=hgih=7d"], "--grace: needs a severity and a duration, such as high=7d"),
        (["gate", "web", "--max-risk=11"], "--max-risk: needs a number from 0 to 10"),
        (["gate", "web", "--max-risk=nan"], "--max-risk: needs a number from 0 to 10"),
        (["gate", "web", "--format=jsn"], "--format: there is no jsn; did you mean json?"),
        (["--store.rebuild=yes"], "--no-store.rebuild: takes no value"),
        (
            ["--config.file=x", "gate", "web"],
            "a command comes first, and its flags behind it: patrolserver-exporter gate",
        ),
        (["gate", "web", "--exporter-url=x"], "--exporter-url (or PATROLSERVER_EXPORTER_URL) has to be like http://"),
        (["--log.level=warning"], "--log.level: there is no warning; did you mean warn?"),
    ],
)
def test_a_bad_flag_is_named(arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With where all flags are told, and without telling them all."""
    code, err = told(arguments, capsys)
    assert code == 2
    assert flag in err
    assert "--help" in err
    assert len(err.splitlines()) == 2
    assert "canary" not in err, "a webhook's URL holds its token"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["--web.listen-addres=:1"], "--web.listen-address"),
        (["--web-listen-address", ":1"], "--web.listen-address"),
        (["gate", "web", "--max-hihg=0", "--no-allow-emtpy"], "--max-high and --no-allow-empty"),
        (["doctor", "--config-file=x"], "--config.file"),
        (["-config.file=x", "--config.check"], "--config.file"),
        (["-log.level", "debug"], "--log.level"),
        (["demo", "--story-speed=2"], "--story.speed"),
    ],
)
def test_a_mistyped_flag_names_the_one_that_was_meant(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No flag may be abbreviated, so that nothing else is done by guess."""
    code, err = told(arguments, capsys)
    assert code == 2
    assert f"; did you mean {meant}?" in err
    assert len(err.splitlines()) == 2


def test_a_flag_like_none_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """Nor is the value of one."""
    _, err = told(["gate", "web", "--zzz", "-x", "max-high"], capsys)
    assert "unrecognized arguments: --zzz -x" in err
    assert "did you mean" not in err


@pytest.mark.parametrize(
    ("arguments", "actions"),
    [
        (["inbox"], "{list,show,replay,drop}"),
        (["store"], "{copy}"),
        (["inbox", "lst"], "there is no lst; did you mean list? There are: list, show, replay, drop"),
        (["inbox", "x"], "there is no x; there are: list, show, replay, drop"),
        (["store", "Copy"], "did you mean copy?"),
    ],
)
def test_a_command_without_its_action_names_them(
    arguments: list[str], actions: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And asks for nothing that only some of them need."""
    code, err = told(arguments, capsys)
    assert code == 2
    assert actions in err
    assert " ID" not in err


@pytest.mark.parametrize(
    ("arguments", "servers"),
    [
        (["a", "--refresh", "b"], ["a", "b"]),
        (["--max-high=0", "a", "--timeout", "1s", "b"], ["a", "b"]),
        (["--refresh", "--", "-a", "--b"], ["-a", "--b"]),
    ],
)
def test_flags_stand_anywhere(arguments: list[str], servers: list[str]) -> None:
    """Also between two servers; behind two dashes is none."""
    assert flags.read(gate.parser(), arguments)["servers"] == servers


@pytest.mark.parametrize("name", ["inbox", "store"])
def test_help_behind_a_command_with_actions_is_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server may have that name, but no action has."""
    with pytest.raises(SystemExit) as ended:
        main([name, "help"])
    assert ended.value.code == 0
    assert f"usage: patrolserver-exporter {name}" in capsys.readouterr().out


def test_ids_may_stand_behind_flags() -> None:
    """As people write it."""
    values = flags.read(inbox.parser(), ["show", "--format=json", "9"])
    assert (values["action"], values["ids"]) == ("show", ["9"])


@pytest.mark.parametrize("command", [["--config.check"], ["doctor"], ["--once"]])
def test_mistakes_of_both_files_are_told_at_once(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each on its line, the configuration's first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yml").write_text("accounts: [{kei: k}]\n\n\npoll: {intervall: 15m}\n")
    (tmp_path / "w.yml").write_text("rate_limit: {bursts: 1}\nhttp_server_config: {http2:true}\n")
    assert main([*command, "--config.file=c.yml", "--web.config.file=w.yml"]) == 2
    said = " ".join("".join(capsys.readouterr()).split())
    places = [said.index(place) for place in ("c.yml:1:", "c.yml:4:", "w.yml:1:", "w.yml:2:")]
    assert places == sorted(places)


def test_stores_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that there is not is no flag's; the mistakes of both are told."""
    monkeypatch.chdir(tmp_path)
    assert told(["store", "copy", "none.yml", "new.yml"], capsys) == (
        2,
        "patrolserver-exporter store: error: there is no configuration file none.yml\n",
    )
    for name in ("old.yml", "new.yml"):
        (tmp_path / name).write_text("poll: {intervall: 1m}\n")
    code, err = told(["store", "copy", "old.yml", "new.yml"], capsys)
    assert code == 2
    assert all(f"{name}:1: poll.intervall: is unknown" in err for name in ("old.yml", "new.yml"))


def test_authorities_of_doctor_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no trouble of the webhook's URL."""
    (tmp_path / "ca.pem").touch()
    code, err = told(["doctor", f"--ca-file={tmp_path / 'ca.pem'}"], capsys)
    assert code == 2
    assert "holds no certificates in PEM" in err


def test_two_bad_files_are_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each names the flag that leads to it."""
    monkeypatch.chdir(tmp_path)
    code, err = told(["--config.check", "--config.file=none.yml", "--web.config.file=none"], capsys)
    assert code == 2
    assert ["--web.config.file" in line for line in err.splitlines()] == [False, True]


def test_a_report_that_cannot_be_written_leaves_the_verdict_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else would tell why the exit code is what it is."""

    def nobody(*_: object) -> None:
        raise ExporterError("Nobody is there.")

    monkeypatch.setattr(ExporterClient, "post", nobody)
    code, err = told(["gate", "web", f"--output={tmp_path}/none/report"], capsys)
    assert code == 4
    assert "could not be written" in err
    assert "The verdict is unknown." in err


@pytest.mark.parametrize("address", ["\udcff:1", "a b:1", "\x1b[2J:1"])
def test_a_host_that_is_none_is_refused(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is looked up."""
    code, err = told(["--config.check", f"--web.listen-address={address}"], capsys)
    assert code == 2
    assert "the host is no name and no address" in err


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", "2>&-", "| true"])
def test_checking_the_configuration_minds_no_closed_output(redirection: str, tmp_path: Path) -> None:
    """The exit code is about the configuration."""
    shell = f'"$@" {redirection}; echo "${{PIPESTATUS[0]}}" >> {tmp_path / "code"}'
    program = [sys.executable, "-m", "patrolserver_exporter", "--config.check"]
    environ = {"PATROLSERVER_KEY": "k", "PATROLSERVER_SECRET": "s", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        ["bash", "-c", shell, "-", *program], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (tmp_path / "code").read_text() == "0\n"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (
            "key: abc, secret: def}]\nstore: {url: 'sqlite:///nowhere/state.db'}",
            "nowhere of the state file state.db does",
        ),
        ("key: abc, secret: def}]\nstore: {url: 'sqlite:///.'}", "is a folder. Name a file in it"),
        ("key: abc, secret: '${SECRET}'}]", "holds a variable like ${NAME}"),
        ("key: abc, secret: !file secrets.env}]", "holds NAME=value"),
        ("key: abc, secret: def, ca_file: secrets.env}]", "ca_file: holds no certificates in PEM"),
        (
            "key: abc, secret: def}]\nstore: {url: 'postgresql+psycopg://u:${PASS}@h/d'}",
            "holds a variable like ${NAME}",
        ),
    ],
)
def test_the_check_finds_what_cannot_start(
    written: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is missing, and secrets that somebody else was to fill in, are found before the start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secrets.env").write_text("API_SECRET=abcdefgh\n")
    (tmp_path / "c.yml").write_text("accounts: [{" + written + "\n")
    code, shown = told(["--config.check", "--config.file=c.yml"], capsys)
    assert code == 2
    assert said in shown
