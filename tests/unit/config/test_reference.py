from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.harness.reference import reference, table

from patrolserver_exporter.config.load import VARIABLES, load_config
from patrolserver_exporter.config.schema import Account, Config
from patrolserver_exporter.config.secret import Secret

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = ROOT / "packaging" / "patrolserver.yml"
ENVIRON = {"PATROLSERVER_KEY": "the-key", "PATROLSERVER_SECRET": "the-secret"}
TABLE = re.compile(r"(<!-- keys: (\w+) -->\n)(?:\n\|[^\n]*(?:\n\|[^\n]*)*\n)?")
SECTIONS = [entry.path for entry in reference() if re.fullmatch(r"\w+", entry.path)]


def with_tables(page: str) -> str:
    """Return the page with the tables as the code has them."""
    return TABLE.sub(lambda match: f"{match.group(1)}\n{table(match.group(2))}\n", page)


def test_every_key_is_documented_and_none_invented() -> None:
    """The page's tables are those of the code; ``REGENERATE=1`` writes them."""
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("REGENERATE"):
        PAGE.write_text(with_tables(page), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == with_tables(page)
    assert re.findall(r"<!-- keys: (\w+) -->", page) == SECTIONS


def test_every_variable_is_documented() -> None:
    """The page names every variable of the environment."""
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in VARIABLES if f"`{name}`" not in page] == []


def test_a_table_has_every_key_of_its_section() -> None:
    """Each key is in the table of its section, with type, default and description."""
    tables = {section: table(section) for section in SECTIONS}
    for entry in reference():
        section = re.split(r"[.\[]", entry.path)[0]
        assert entry.description.endswith(".")
        if entry.kind != "mapping" and entry.path != section:
            assert f"| `{entry.path}` | {entry.kind} | " in tables[section]


@pytest.mark.parametrize("entry", reference(), ids=lambda entry: entry.path)
def test_the_example_has_every_key(entry: object) -> None:
    """The example file shows each key, those of lists in a comment."""
    name = re.split(r"[.\]]", getattr(entry, "path", ""))[-1]
    assert re.search(rf"^[\s#{{-]*.*\b{name}:", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_example_has_the_defaults() -> None:
    """The example file is valid, gives no warning, and changes nothing of the defaults."""
    loaded = load_config(EXAMPLE, ENVIRON)
    account = Account(key=Secret.literal("the-key"), secret=Secret.literal("the-secret"))
    assert loaded.config == Config(accounts=(account,))
    assert loaded.warnings == ()


def test_the_pages_examples_load(tmp_path: Path) -> None:
    """Every YAML example of the page that is a whole file can be used."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    whole = [block for block in blocks if not block.startswith("key:")]
    for index, block in enumerate(whole):
        for name in re.findall(r"!file /run/secrets/([\w-]+)", block):
            value = "postgresql+psycopg://u:p@h/d" if name == "database-url" else f"{name}-0123456789"
            (tmp_path / name).write_text(value)
            (tmp_path / name).chmod(0o600)
        file = tmp_path / f"{index}.yml"
        file.write_text(block.replace("/run/secrets/", ""))
        load_config(file, ENVIRON)
    assert len(whole) == 3


def test_the_examples_comments_load(tmp_path: Path) -> None:
    """What the example file has in comments can be uncommented as it is."""
    text = re.sub(
        r"^ +(webhook_tokens|waivers|policies|tokens): (\[\]|\{\})\n",
        "",
        EXAMPLE.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    text = re.sub(r"^( +)# ((?:webhook_tokens|waivers|policies|tokens):|  )", r"\1\2", text, flags=re.MULTILINE)
    file = tmp_path / "patrolserver.yml"
    file.write_text(text, encoding="utf-8")
    for name in ("webhook-token", "api-token"):
        (tmp_path / name).write_text(f"{name}-0123456789\n")
    config = load_config(file, {**ENVIRON, "CREDENTIALS_DIRECTORY": str(tmp_path)}).config
    assert config.accounts[0].webhook_tokens[0].reveal() == "webhook-token-0123456789"
    assert [waiver.software for waiver in config.issues.waivers] == ["php", "openssl"]
    assert config.gate.policies["production"].grace.high == 7 * 86_400
    assert config.api.tokens[0].name == "ansible"
