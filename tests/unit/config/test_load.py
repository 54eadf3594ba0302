from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.config.load import load_config, parse_waivers, waivers_of
from patrolserver_exporter.config.nodes import MAX_BYTES
from patrolserver_exporter.config.problem import ConfigError, Mistake
from patrolserver_exporter.config.schema import Account, Config, Scope
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.gate.policy import Grace, Inline, KindLimits, NamedPolicy, SeverityLimits
from patrolserver_exporter.issues.model import Kind, Severity, Waiver

CASES = Path(__file__).parent / "cases"
TODAY = dt.date(2026, 6, 1)
ENVIRON = {"KEY": "the-key", "SECRET": "the-secret", "TOKEN": "the-token-0123456789", "NUMBER": "7"}
CANARY = "canary"
AUTHORITY = trustme.CA().cert_pem.bytes()
OR_FILE = "or give accounts in a file by --config.file"
MAKE_TOKEN = "make one with: openssl rand -hex 24"


class FixedClock:
    """The clock of these tests: noon of today."""

    def now(self) -> float:
        """Return noon."""
        return dt.datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=dt.UTC).timestamp()

    def monotonic(self) -> float:
        """Return anything."""
        return 0.0


def lay(folder: Path, content: str | bytes, mode: int = 0o600) -> Path:
    """Lay a configuration file and the files it may refer to."""
    for name, raw in (("patrolserver.yml", content), ("secret.txt", "from-the-file\n"), ("ca.pem", AUTHORITY)):
        file = folder / name
        file.write_bytes(raw.encode() if isinstance(raw, str) else raw)
        file.chmod(mode)
    return folder / "patrolserver.yml"


def errors_of(path: Path | None, environ: dict[str, str] | None = None) -> str:
    """Return what loading says."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, ENVIRON if environ is None else environ, clock=FixedClock())
    return str(caught.value)


@pytest.mark.parametrize("case", sorted(CASES.glob("*.good.yml")), ids=lambda path: path.name)
def test_good(case: Path, tmp_path: Path) -> None:
    """The good file of a pair loads without a warning."""
    assert load_config(lay(tmp_path, case.read_bytes()), ENVIRON, clock=FixedClock()).warnings == ()


@pytest.mark.parametrize("case", sorted(CASES.glob("*.bad.yml")), ids=lambda path: path.name)
def test_bad(case: Path, tmp_path: Path) -> None:
    """The bad file fails with every message that it expects and no other, and none repeats a secret."""
    path = lay(tmp_path, case.read_bytes())
    expected = [
        line.removeprefix("# expect: ").replace("FOLDER", str(tmp_path))
        for line in case.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("# expect: ")
    ]
    errors = errors_of(path)
    assert [line.removeprefix(str(path)).lstrip(":").strip() for line in errors.splitlines()] == expected
    assert CANARY not in errors


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("poll:\n  interval:15m\n  timeout: 10s\n", "2:11"),
        ("poll:\n  interval: 15m\n  timeout:10s\nwebhook: {}\n", "3:10"),
        ("poll:\n  interval:15m\n\n  # how long\n  timeout: 10s\n", "2:11"),
        ("accounts:\n- key:canary\n  secret: b\n", "2:6"),
        ("accounts:\n- key: a\n  secret:'canary'\n  name: c\n", "3:9"),
        ('accounts: [{servers: {include:["canary"]}}]\n', "1:30"),
        ("poll:\r\n  interval:15m\r\n  timeout: 10s\r\n", "2:11"),
    ],
)
def test_a_colon_without_its_blank_is_shown(text: str, place: str, tmp_path: Path) -> None:
    """YAML itself tells of the next line, or of an odd character; what stands behind the colon may be a secret."""
    errors = errors_of(lay(tmp_path, text))
    assert f":{place}: is not YAML: a colon behind a key needs a blank, as in KEY: VALUE" in errors
    assert CANARY not in errors


def test_a_dash_without_its_blank_is_shown(tmp_path: Path) -> None:
    """YAML itself tells of the next line, and of mappings."""
    errors = errors_of(lay(tmp_path, "accounts:\n  -name: canary\n   key: canary\n"))
    assert ":2:3: is not YAML: the dash of an item needs a blank, as in - VALUE" in errors
    assert CANARY not in errors


@pytest.mark.parametrize("text", ["key: a: b\n", "api_url: http://canary\n name: b\n", "a: [1, 2\nb: 3\n"])
def test_another_mistake_is_not_taken_for_a_missing_blank(text: str, tmp_path: Path) -> None:
    """A URL has no blank behind its colon."""
    assert "KEY: VALUE" not in errors_of(lay(tmp_path, text))


def test_a_tab_is_called_one(tmp_path: Path) -> None:
    """Quotes would not help."""
    assert ":3:1: is not YAML; indent with spaces, not tabs" in errors_of(
        lay(tmp_path, "accounts:\n- key: a\n\tsecret: b\n")
    )


def test_where_relative_paths_start_is_a_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file itself was named without a folder."""
    monkeypatch.chdir(tmp_path)
    lay(tmp_path, "accounts: [{key: a, secret: b, ca_file: absent.pem}]\n")
    assert f"which starts at {tmp_path}" in errors_of(Path("patrolserver.yml"))


def test_pairs() -> None:
    """Every bad file has its good one."""
    names = {kind: {path.name.split(".")[0] for path in CASES.glob(f"*.{kind}.yml")} for kind in ("good", "bad")}
    assert names["good"] == names["bad"]


def test_a_whole_file(tmp_path: Path) -> None:
    """Everything arrives typed: durations as seconds, names as text, secrets with their origin."""
    config = load_config(lay(tmp_path, (CASES / "account.good.yml").read_bytes()), ENVIRON, clock=FixedClock()).config
    main = config.accounts[0]
    assert main.api_url == "https://api.example.org/extern/api"
    assert (main.key.reveal(), main.key.origin) == ("the-key", "environment KEY")
    assert (main.secret.reveal(), main.secret.origin) == ("from-the-file", f"file {tmp_path / 'secret.txt'}")
    assert main.servers.exclude == ("*.lab.example.org",)
    assert main.ca_file == tmp_path / "ca.pem"
    assert main.proxy_url is not None
    assert (config.accounts[1].proxy_url, config.accounts[1].ca_file) == (None, None)


def test_values_are_what_was_written(tmp_path: Path) -> None:
    """Names that YAML would take for a boolean or a number stay the text they are."""
    config = load_config(lay(tmp_path, (CASES / "names.good.yml").read_bytes()), ENVIRON, clock=FixedClock()).config
    assert [account.name for account in config.accounts] == ["default", "no", "0123"]


def test_typed_sections(tmp_path: Path) -> None:
    """Numbers, durations, networks, dates and scopes are parsed."""
    text = "".join(
        (CASES / f"{name}.good.yml").read_text().partition("\n")[2] for name in ("poll", "issues", "metrics")
    )
    text += (CASES / "webhook.good.yml").read_text() + (CASES / "tokens.good.yml").read_text().partition("\n")[2]
    config = load_config(lay(tmp_path, text), ENVIRON, clock=FixedClock()).config
    assert (config.poll.interval, config.poll.timeout, config.poll.max_requests_per_minute) == (5400.0, 0.1, 7)
    assert config.poll.max_pause == 5400.0
    assert [str(network) for network in config.webhook.allowed_networks] == [
        "192.0.2.0/24",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    assert config.issues.waivers[2] == Waiver(
        server="*", software="wordpress/*", kind=Kind.EXPLOITABLE, until=dt.date(2099, 2, 28), reason="no"
    )
    assert config.issues.waivers[3:] == (
        Waiver(
            server="web-*",
            software="openssl",
            exploit="CVE-2026-0001",
            max_severity=Severity.HIGH,
            until=dt.date(2099, 1, 31),
            reason="r",
        ),
        Waiver(server="*", software="*", until=dt.date(2099, 1, 31), reason="r"),
    )
    assert (config.issues.exploit_risk, config.issues.settle, config.metrics.software) == (7.5, 0.0, False)
    assert config.api.tokens[0].scopes == frozenset(Scope)


def test_gate_policies(tmp_path: Path) -> None:
    """Every key of a policy arrives typed, durations as seconds; a policy without any has the defaults."""
    gate = load_config(lay(tmp_path, (CASES / "gate.good.yml").read_bytes()), ENVIRON, clock=FixedClock()).config.gate
    assert (gate.default_policy, gate.inline) == ("production", Inline.NONE)
    assert dict(gate.policies) == {
        "production": NamedPolicy(
            max_by_severity=SeverityLimits(critical=1, high=0),
            max_by_kind=KindLimits(reported=2),
            max_total=3,
            max_risk=6.5,
            max_age=21_600.0,
            max_scan_age=5400.0,
            max_unknown_software=4,
            allow_empty=True,
            grace=Grace(high=7 * 86_400.0, low=0.0),
            fixable_only=True,
            waivers=(Waiver(server="*", software="php", until=dt.date(2099, 1, 31), reason="r"),),
            allow_baseline=True,
            allow_waivers=True,
            allow_grace=True,
            allow_fixable_only=True,
            allow_allow_empty=True,
        ),
        "no": NamedPolicy(),
    }


def test_the_defaults_of_a_policy() -> None:
    """Without a word of its own a policy takes no critical issue, no data older than a day and no unknown software."""
    policy = NamedPolicy()
    assert (policy.max_by_severity.critical, policy.max_by_severity.high) == (0, None)
    assert (policy.max_age, policy.max_scan_age, policy.max_unknown_software) == (86_400.0, None, 0)
    loose = ("allow_empty", "fixable_only", *(name for name in policy.__struct_fields__ if name.startswith("allow_")))
    assert [name for name in loose if getattr(policy, name)] == []


@pytest.mark.parametrize(
    ("text", "inline"),
    [
        ("{}", Inline.ANY),
        ("{ policies: {} }", Inline.ANY),
        ("{ policies: { a: } }", Inline.TIGHTEN),
        ("{ policies: { a: {} }, inline: any }", Inline.ANY),
        ("{ inline: none }", Inline.NONE),
    ],
)
def test_what_a_request_may_ask_for_itself(tmp_path: Path, text: str, inline: Inline) -> None:
    """Where nothing is said it is anything as long as there are no policies, and only what tightens when there are."""
    config = load_config(lay(tmp_path, f"accounts: [{{ key: k, secret: s }}]\ngate: {text}\n"), {}).config
    assert config.gate.inline_in_force is inline


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("{ default_policy: a }", "there are none; add it, or leave this out"),
        ("{ default_policy: builtin }", "there are none; add it, or leave this out"),
        ("{ default_policy: builtin, policies: { a: {}, b: {} } }", "known are a, b"),
    ],
)
def test_the_default_policy_is_one_of_the_policies(tmp_path: Path, text: str, known: str) -> None:
    """A default that is no policy is refused with those that are; the built-in one is none of them."""
    path = lay(tmp_path, f"accounts: [{{ key: k, secret: s }}]\ngate: {text}\n")
    assert errors_of(path) == f"{path}:2: gate.default_policy: names no policy of gate.policies; {known}"


def test_the_environment_alone() -> None:
    """Key and secret in the environment are a configuration."""
    loaded = load_config(None, {"PATROLSERVER_KEY": "demo", "PATROLSERVER_SECRET": "demo"})
    assert loaded.config == Config(accounts=(Account(key=Secret.literal("demo"), secret=Secret.literal("demo")),))
    assert loaded.warnings == ()


def test_the_whole_environment(tmp_path: Path) -> None:
    """Each secret may come from a file, and an empty variable counts as not set."""
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "key").chmod(0o600)
    environ = {
        "PATROLSERVER_KEY": "",
        "PATROLSERVER_KEY_FILE": str(tmp_path / "key"),
        "PATROLSERVER_SECRET": "s",
        "PATROLSERVER_API_URL": "http://api.example.org/",
        "PATROLSERVER_WEBHOOK_TOKEN": "shorttoken",
    }
    loaded = load_config(None, environ)
    account = loaded.config.accounts[0]
    assert (account.key.reveal(), account.api_url) == ("from-file", "http://api.example.org")
    assert account.webhook_tokens == (Secret.literal("shorttoken"),)
    assert [warning.partition(": is ")[0].partition(": sends ")[0] for warning in loaded.warnings] == [
        "environment: PATROLSERVER_WEBHOOK_TOKEN",
        "environment: PATROLSERVER_API_URL",
    ]


@pytest.mark.parametrize(
    ("environ", "errors"),
    [
        (
            {},
            [
                f"PATROLSERVER_KEY: is not set; set it or PATROLSERVER_KEY_FILE, {OR_FILE}",
                f"PATROLSERVER_SECRET: is not set; set it or PATROLSERVER_SECRET_FILE, {OR_FILE}",
            ],
        ),
        (
            {"PATROLSERVER_KEY": CANARY, "PATROLSERVER_KEY_FILE": "x", "PATROLSERVER_SECRET": CANARY},
            ["PATROLSERVER_KEY: is set, and PATROLSERVER_KEY_FILE too; unset one of them"],
        ),
        (
            {"PATROLSERVER_KEY_FILE": "/absent/key", "PATROLSERVER_SECRET": f"{CANARY}\n{CANARY}"},
            [
                (
                    "PATROLSERVER_KEY_FILE: the file /absent/key cannot be read (No such file or directory); correct "
                    "the path, or let the exporter's user read it"
                ),
                (
                    "PATROLSERVER_SECRET: the environment variable PATROLSERVER_SECRET holds line breaks or other "
                    "control characters; it should be one line of text"
                ),
            ],
        ),
        (
            {
                "PATROLSERVER_KEY": f" {CANARY}",
                "PATROLSERVER_SECRET": CANARY,
                "PATROLSERVER_WEBHOOK_TOKEN": "/canary/",
                "PATROLSERVER_API_URL": f"https://{CANARY}@h",
            },
            [
                "PATROLSERVER_KEY: starts or ends with a blank; remove it",
                (
                    "PATROLSERVER_WEBHOOK_TOKEN: needs only letters, digits and - . _ ~ in the token, at most 1024; "
                    f"{MAKE_TOKEN}"
                ),
                "PATROLSERVER_API_URL: may not hold a user or password; the API takes key and secret",
            ],
        ),
    ],
)
def test_a_bad_environment(environ: dict[str, str], errors: list[str]) -> None:
    """What is missing or wrong in the environment is named by its variable, without the value."""
    said = errors_of(None, environ)
    assert said.splitlines() == [f"environment: {error}" for error in errors]
    assert CANARY not in said


def test_an_empty_document_is_a_file_without_keys(tmp_path: Path) -> None:
    """A file in which everything is null is one that leaves everything to the defaults."""
    loaded = load_config(lay(tmp_path, "---\n"), {"PATROLSERVER_KEY": "k", "PATROLSERVER_SECRET": "s"})
    assert loaded.config.poll.interval == 900.0


def test_a_file_without_accounts_takes_the_environments(tmp_path: Path) -> None:
    """Without accounts in the file, the environment's account is used beside the file's other keys."""
    path = lay(tmp_path, "poll: { interval: 30s }\n")
    config = load_config(path, {"PATROLSERVER_KEY": "k", "PATROLSERVER_SECRET": "s"}).config
    assert (config.accounts[0].name, config.poll.interval) == ("default", 30.0)
    assert errors_of(path, {}) == (
        f"{path}: accounts: is missing; add it, or set PATROLSERVER_KEY and PATROLSERVER_SECRET in the environment"
    )
    assert "environment: PATROLSERVER_SECRET: is not set" in errors_of(path, {"PATROLSERVER_KEY": "k"})


def test_the_environment_does_not_override_the_file(tmp_path: Path) -> None:
    """Accounts in the file stand, whatever the environment says."""
    path = lay(tmp_path, (CASES / "merge.good.yml").read_bytes())
    config = load_config(path, {**ENVIRON, "PATROLSERVER_KEY": "other", "PATROLSERVER_SECRET": "other"}).config
    assert config.accounts[0].key.reveal() == "the-key"


def test_the_environments_token_may_not_be_an_api_token(tmp_path: Path) -> None:
    """A token is refused twice also when one of the two comes from the environment."""
    path = lay(tmp_path, "api: { tokens: [{ name: a, token: !env TOKEN }] }\n")
    environ = {"PATROLSERVER_KEY": "k", "PATROLSERVER_SECRET": "s", "PATROLSERVER_WEBHOOK_TOKEN": ENVIRON["TOKEN"]}
    assert "api.tokens[0].token: is the same token as PATROLSERVER_WEBHOOK_TOKEN" in errors_of(
        path, {**ENVIRON, **environ}
    )


def test_warnings(tmp_path: Path) -> None:
    """What works but should not stay so is said, with its place and without a secret."""
    text = f"""\
accounts:
  - key: {CANARY}
    secret: !file secret.txt
    api_url: http://api.example.org
    webhook_tokens: [{CANARY}-2]
issues:
  waivers:
    - {{ server: a, software: b, until: 2026-05-31, reason: c }}
    - {{ server: a, software: b, until: 2026-06-01, reason: c }}
store: {{ url: "postgresql+psycopg://u:{CANARY}@h/d" }}
"""
    path = lay(tmp_path, text, 0o644)
    warnings = load_config(path, ENVIRON, clock=FixedClock()).warnings
    token = "accounts[0].webhook_tokens[0]"
    assert [warning.removeprefix(f"{path}:") for warning in warnings] == [
        f"2: accounts[0].key: is a secret in a file that everyone may read; chmod o-r {path}, or use !file",
        f"3: accounts[0].secret: is read from a file that everyone may read; chmod o-r {tmp_path / 'secret.txt'}",
        "4: accounts[0].api_url: sends key and secret over plain http, where others can read them; use https",
        f"5: {token}: is a secret in a file that everyone may read; chmod o-r {path}, or use !file",
        f"5: {token}: is shorter than 16 characters and may be guessed; {MAKE_TOKEN}",
        "8: issues.waivers[0].until: has passed (2026-05-31); the waiver has no effect any more, remove or renew it",
        "10: store.url: holds a password in a file that everyone may read; chmod o-r the file, or use !file",
    ]
    assert CANARY not in "".join(warnings)
    private = lay(tmp_path, text)
    assert len(load_config(private, ENVIRON, clock=FixedClock()).warnings) == 3


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://api.example.org"]
)
def test_no_warning_for_loopback(tmp_path: Path, url: str) -> None:
    """Plain http within this machine is fine."""
    path = lay(tmp_path, f"accounts: [{{ key: k, secret: s, api_url: '{url}' }}]\n")
    assert load_config(path, {}).warnings == ()


def test_systemd_credentials(tmp_path: Path) -> None:
    """A path may start at the directory of systemd's credentials; without it the message says where it comes from."""
    path = lay(tmp_path, "accounts: [{ key: k, secret: !file '${CREDENTIALS_DIRECTORY}/secret.txt' }]\n")
    config = load_config(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).config
    assert config.accounts[0].secret.reveal() == "from-the-file"
    assert "needs $CREDENTIALS_DIRECTORY, which systemd sets for a unit with LoadCredential=" in errors_of(path, {})


def test_a_ca_file_that_cannot_be_one(tmp_path: Path) -> None:
    """A path that no file system takes is told as one that is no file."""
    path = lay(tmp_path, f"accounts: [{{ key: k, secret: s, ca_file: {'x' * 5000} }}]\n")
    assert f"accounts[0].ca_file: is no file (is '{'x' * 200}'); correct the path" in errors_of(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder, or too large is refused with what to do."""
    hint = "correct --config.file, or let the exporter's user read it"
    assert errors_of(tmp_path / "x") == f"{tmp_path / 'x'}: cannot be read (No such file or directory); {hint}"
    assert errors_of(tmp_path) == f"{tmp_path}: cannot be read (Is a directory); {hint}"
    large = lay(tmp_path, b"#" * (MAX_BYTES + 1))
    assert errors_of(large) == f"{large}: is over {MAX_BYTES} bytes; correct --config.file, or shorten the file"


KEYS = st.sampled_from(
    ["accounts", "key", "secret", "poll", "interval", "issues", "waivers", "until", "api", "tokens", "x"]
)
SCALARS = st.sampled_from(
    ["", "~", "15m", "!env KEY", "!file x", "'", "*a", "&a b", "<<", "2027-02-31", "|\n x", "1" * 30]
)
TREES = st.recursive(
    SCALARS | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
    ),
    max_leaves=12,
)


@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
    | TREES.map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_text_loads_or_fails_cleanly(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Whatever a file holds, it loads or raises `ConfigError`, with a printable line for each problem."""
    path = lay(tmp_path_factory.getbasetemp(), raw)
    errors: tuple[Mistake, ...] = ()
    text = ""
    try:
        load_config(path, ENVIRON, clock=FixedClock())
    except ConfigError as error:
        errors, text = error.errors, str(error)
    assert text.split("\n") == [str(problem) for problem in errors] or text == ""
    assert all(line.isprintable() for line in text.split("\n"))


SECRET_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cn"], exclude_characters="\x85"), min_size=1
).map(lambda text: f"c4n4ry-{text}-c4n4ry")


@given(
    SECRET_TEXT,
    st.sampled_from(["key: {}", "key: '{}", "key: !{}", "key: *{}", "webhook_tokens: {}", "{}", "{}: 1", "key: [{}]"]),
)
def test_no_secret_in_any_error(tmp_path_factory: pytest.TempPathFactory, secret: str, place: str) -> None:
    """However a literal secret is mistyped, no error repeats it."""
    path = lay(tmp_path_factory.getbasetemp(), f"accounts:\n  - {place.format(secret)}\n    name: a/b\n")
    errors = errors_of(path)
    assert "c4n4ry" not in errors


WAIVER = Waiver(server="web*", software="php", kind=Kind.OUTDATED, until=dt.date(2027, 1, 31), reason="é 🙂")


@pytest.mark.parametrize(
    "text",
    [
        '- { server: "web*", software: php, kind: outdated, until: 2027-01-31, reason: "é 🙂" }',
        'waivers:\n- { server: "web*", software: php, kind: outdated, until: 2027-01-31, reason: "é 🙂" }',
        r'[{"server":"web*","software":"php","kind":"outdated","until":"2027-01-31","reason":"\u00e9 \ud83d\ude42"}]',
        '[\t{"server":"web*",\t"software":"php","kind":"outdated","until":"2027-01-31","reason":"é 🙂"}]'.encode(),
    ],
)
def test_waivers(text: str | bytes) -> None:
    """Waivers are read from YAML and from JSON, as text or bytes."""
    assert parse_waivers(text) == (WAIVER,)


def test_waivers_from_data() -> None:
    """Decoded JSON is read as strictly as text; null is no kind."""
    data = {"server": "web*", "software": "php", "kind": "outdated", "until": "2027-01-31", "reason": "é 🙂"}
    assert waivers_of([data]) == (WAIVER,)
    assert waivers_of([{**data, "kind": None}])[0].kind is None
    assert waivers_of([]) == ()
    assert replace(Config(accounts=())).issues.waivers == waivers_of(None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("x", "waivers: needs a list, in [brackets] or with a dash before each item, not a single value"),
        (
            [{"server": True, "until": 20270131, "software": 1.5}],
            "waivers: [0].until: needs a day of the calendar as YYYY-MM-DD",
        ),
        ([{"serve": "a"}], "waivers: [0].serve: is unknown; did you mean server?"),
        ([[[[]]]], "waivers: [0]: needs keys and values, not a list"),
    ],
)
def test_bad_waivers_from_data(data: object, message: str) -> None:
    """What does not fit is named by its place in the list."""
    with pytest.raises(ConfigError) as caught:
        waivers_of(data)
    assert message in str(caught.value)


def test_deep_data() -> None:
    """Data nested without end is refused."""
    data: list[object] = []
    for _ in range(100):
        data = [data]
    with pytest.raises(ConfigError, match="is nested deeper than 32 levels"):
        waivers_of(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- { server: !file /etc/hostname, software: a, until: 2027-01-31, reason: b }",
            "may not use !env or !file here",
        ),
        ("- { server: !env PATH, software: a, until: 2027-01-31, reason: b }", "may not use !env or !file here"),
        (
            '[{"server": "a", "server": "b", "until": 1, "software": 1, "reason": 1}]',
            "server: is given twice, first on",
        ),
        ('[{"server": "a", "server": "b"}]', "policy.json:1: [0].server: is given twice, first on line 1; keep one"),
        ("\ud800", "policy.json:1:1: is not UTF-8 here"),
        ("[" * 100_000, "is nested deeper than 32 levels"),
    ],
)
def test_bad_waivers(text: str, message: str) -> None:
    """A list from elsewhere is read strictly, and can read neither our files nor our environment."""
    with pytest.raises(ConfigError) as caught:
        parse_waivers(text, source="policy.json")
    assert message in str(caught.value)


@given(st.text() | TREES)
def test_any_waivers_load_or_fail_cleanly(text: str) -> None:
    """Whatever the text, it is a list of waivers or a `ConfigError`."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_waivers(text), tuple)
