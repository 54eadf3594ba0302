"""What the log of a real exporter says of deliveries that it refuses: without it, a test webhook just does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from tests.harness.process import TOKEN, Exporter
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.promise("refusals")
DELIVERY = {"webhook_patrolserver": 1, "identifier": "webhook.test", "event_id": 1, "webhook_id": 1}
FORWARDED = {"X-Forwarded-For": "192.0.2.7"}
WRONG = "canary-token-0123456789"


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """With users, so that a stray delivery would get a 401; nothing answers for the API."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "web.yml").write_text(
        "basic_auth_users: {alice: $2b$04$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}"
    )
    flags = (f"--web.config.file={folder / 'web.yml'}", "--log.level=debug")
    with Exporter.watching(folder, "http://127.0.0.1:1", *flags) as running:
        yield running


def lines_of(exporter: Exporter, method: str, path: str, **arguments: object) -> tuple[int, str]:
    """The answer's status, and what the log got by it."""
    before = len(exporter.log())
    answer = requests.request(method, exporter.url + path, json=DELIVERY, timeout=10, **arguments)  # type: ignore[arg-type]
    assert WRONG not in answer.text
    return answer.status_code, exporter.log()[before:]


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", f"/webhook/{WRONG}", 401, "its token is none of webhook_tokens"),
        ("POST", f"/webhook/{TOKEN.upper()}", 401, "capitals"),
        ("POST", "/webhook/", 404, "without a token"),
        ("POST", "/webhook", 404, "without a token"),
        ("POST", f"/webhook?token={WRONG}", 404, "a question mark"),
        ("POST", f"/webhook//{WRONG}", 401, "two slashes before the token"),
        ("POST", f"/webhook/{WRONG}//", 401, "two slashes behind the token"),
        ("POST", f"/webhook/{WRONG}%20", 401, "a blank"),
        ("POST", f"/Webhook/{WRONG}", 404, "capital letters"),
        ("POST", f"/webhooks/{WRONG}", 404, "another word"),
        ("POST", f"/{WRONG}", 401, "a path that takes nothing"),
        ("GET", f"/webhook/{TOKEN}", 405, "it came by GET"),
    ],
)
def test_a_refusal_is_a_line_without_the_token(
    exporter: Exporter, method: str, path: str, status: int, said: str
) -> None:
    """At the level of warnings, with the reason; and the request itself at debug."""
    noted = exporter.log().count('msg="A request was answered"')
    answered, lines = lines_of(exporter, method, path)
    assert answered == status
    refusals = [line for line in lines.splitlines() if said in line]
    assert len(refusals) == 1, lines
    assert "client=127.0.0.1" in refusals[0]
    # The answer is out before it is noted.
    eventually(lambda: exporter.log().count('msg="A request was answered"') > noted, what="the line of the request")
    assert WRONG not in exporter.log()
    assert TOKEN not in exporter.log()


@pytest.mark.parametrize("path", [f"/webhook/{TOKEN}", f"/webhook/{TOKEN}/"])
def test_one_slash_behind_the_token_is_as_good_as_none(exporter: Exporter, path: str) -> None:
    """Both are the webhook's URL."""
    status, lines = lines_of(exporter, "POST", path)
    assert status == 202
    assert 'msg="A delivery came in"' in lines
    assert "A delivery was refused" not in lines


def test_a_network_that_is_left_out_is_named_with_the_proxy_that_hides_it(tmp_path: Path) -> None:
    """Behind a proxy it is the proxy's address that is judged, until that is trusted."""
    with Exporter.watching(tmp_path, "http://127.0.0.1:1", "--log.level=info") as running:
        running.write_config(
            running.config_file.read_text().replace("webhook: {", "webhook: {allowed_networks: [192.0.2.0/24], ")
        )
        assert requests.post(f"{running.url}/-/reload", headers=running.operator, timeout=10).ok
        status, lines = lines_of(running, "POST", f"/webhook/{TOKEN}", headers=FORWARDED)
        assert status == 403
        assert "webhook.allowed_networks leaves its address out" in lines
        assert "web.trusted_proxies" in lines
        assert "client=127.0.0.1" in lines
        running.write_config(running.config_file.read_text() + "web: {trusted_proxies: [127.0.0.1]}\n")
        assert requests.post(f"{running.url}/-/reload", headers=running.operator, timeout=10).ok
        assert lines_of(running, "POST", f"/webhook/{TOKEN}", headers=FORWARDED)[0] == 202
        status, lines = lines_of(running, "POST", f"/webhook/{TOKEN}", headers={"X-Forwarded-For": "203.0.113.9"})
        assert status == 403
        assert "client=203.0.113.9" in lines
        assert "web.trusted_proxies" not in lines


def test_wrong_tokens_without_end_do_not_fill_the_log(exporter: Exporter) -> None:
    """A few lines, and at the level of warnings no more than that."""
    before = len(exporter.log())
    with requests.Session() as session:
        for _ in range(100):
            session.post(f"{exporter.url}/webhook/{WRONG}", json=DELIVERY, timeout=10)
    lines = exporter.log()[before:]
    assert sum("level=warn" in line for line in lines.splitlines()) <= 6
    assert WRONG not in lines
