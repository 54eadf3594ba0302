from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from patrolserver_exporter.simulator import SimulatorOptions
from patrolserver_exporter.simulator.software import Change, Installed, Kind
from patrolserver_exporter.simulator.webhooks import KEPT_SECONDS, Event
from patrolserver_exporter.simulator.wire import ApiError
from patrolserver_exporter.simulator.world import Server, World

if TYPE_CHECKING:
    from patrolserver_exporter.simulator.webhooks import Webhook

DAY = 86_400.0


class Scene:
    """A world with a clock in hand and its deliveries on record."""

    def __init__(self, **options: Any) -> None:
        self.time = 1_000_000.0
        self.told: list[tuple[str, Any]] = []
        self.world = World(SimulatorOptions(**options), clock=lambda: self.time, deliver=self._deliver)

    def _deliver(self, webhook: Webhook, event: Event) -> None:
        # With the delivery the event can be fetched already.
        assert self.world.outbox.find(webhook.id, event.id) is event
        self.told.append((event.identifier.removeprefix("webhook."), event.data))

    def server(self, name: str = "web-01.example.org") -> Server:
        """The server of that name."""
        return self.world.named(name)

    def php(self, server: Server) -> Installed:
        """Its PHP."""
        return next(one for one in self.world.installed(server) if one.software.canonical_name == "php")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_two_worlds_of_one_seed_are_the_same() -> None:
    """Servers, ids and software: all of it."""
    one, other = Scene(seed=3).world, Scene(seed=3).world
    assert one.servers(one.demo) == other.servers(other.demo)
    assert [one.installed(server) for server in one.servers(one.demo)] == [
        other.installed(server) for server in other.servers(other.demo)
    ]


def test_breaking_tells_and_shows(scene: Scene) -> None:
    """A break is told by an event in the documented shape, and the list shows it under the same id."""
    server = scene.server()
    before = scene.php(server)
    scene.world.change(server, Change(Kind.EXPLOITABLE, "php", risk=9.8), tell=True)
    identifier, data = scene.told.pop()
    assert identifier == "new_server_issues"
    assert data["server_id"] == server.id
    assert [issue["software"]["software"] for issue in data["new_issues"]] == [{"name": "PHP", "canonical_name": "php"}]
    after = scene.php(server)
    assert after.id == before.id
    assert [exploit.risk for exploit in after.software.exploits] == [9.8]


def test_mending_is_told_by_nobody(scene: Scene) -> None:
    """The API never says that an issue is fixed: only the list shows it."""
    server = scene.server()
    scene.world.change(server, Change(Kind.UNSUPPORTED, "php"), tell=True)
    scene.told.clear()
    scene.world.change(server, Change(Kind.MENDED, "php"), tell=True)
    assert not scene.told
    assert not scene.php(server).software.broken


def test_mending_without_a_name_mends_all(scene: Scene) -> None:
    """Whatever is broken on the server."""
    server = scene.server("web-01.staging.example.org")
    for name in ("php", "nginx"):
        scene.world.change(server, Change(Kind.OUTDATED, name))
    scene.world.change(server, Change(Kind.MENDED))
    assert not any(one.software.broken for one in scene.world.installed(server))


def test_a_change_of_what_is_not_there_fails(scene: Scene) -> None:
    """A test that breaks the wrong thing must hear of it."""
    with pytest.raises(ApiError, match="Software does not exist"):
        scene.world.change(scene.server(), Change(Kind.OUTDATED, "jenkins"))


def test_a_change_can_wait_for_the_scan(scene: Scene) -> None:
    """The event comes first, the list catches up at the end of the scan, and the issue is told once."""
    server = scene.server()
    scene.world.change(server, Change(Kind.OUTDATED, "php"), at_scan=True, tell=True)
    assert [identifier for identifier, _ in scene.told] == ["new_server_issues"]
    assert not scene.php(server).software.broken
    scene.world.start_scan(server, 5.0)
    scene.time += 5.0
    scene.world.tick()
    assert scene.php(server).software.broken
    assert [identifier for identifier, _ in scene.told] == ["new_server_issues", "scan_started", "scan_finished"]


def test_a_scan_tells_what_it_found(scene: Scene) -> None:
    """New issues are told between the start and the end of the scan that found them."""
    server = scene.server()
    scene.world.change(server, Change(Kind.OUTDATED, "php"), at_scan=True)
    scene.world.start_scan(server, 5.0)
    scene.time += 5.0
    scene.world.tick()
    assert [identifier for identifier, _ in scene.told] == ["scan_started", "new_server_issues", "scan_finished"]


def test_a_scan_takes_its_time(scene: Scene) -> None:
    """It is running until its time has come; starting it again meanwhile changes nothing."""
    server = scene.server()
    scene.world.start_scan(server, 5.0)
    scene.time += 4.9
    scene.world.start_scan(server, 5.0)
    assert scene.world.is_scanning(server)
    assert scene.world.scanning() == [server.id]
    scene.time += 0.1
    assert not scene.world.is_scanning(server)
    assert server.last_scan == scene.time
    assert scene.told == [("scan_started", {"server_id": 1}), ("scan_finished", {"server_id": 1})]


def test_a_bucket_is_taken_in_by_the_next_scan(scene: Scene) -> None:
    """A client's new server knows nothing until it is scanned; then what was pushed, with what is wrong with it."""
    world = scene.world
    server = world.add_server(world.demo, "new.example.net")
    world.buckets.push(server.id, "B", '[{"n":"php","v":"5.2.17","l":"/"},{"n":"bash","v":"5.2.37"}]', None, scene.time)
    assert world.installed(server) == ()
    _scan(scene, server)
    assert [(one.software.canonical_name, one.software.supported) for one in world.installed(server)] == [
        ("php", False),
        ("bash", True),
    ]
    issues = dict(scene.told)["new_server_issues"]["new_issues"]
    assert [issue["title"] for issue in issues] == ["Upgrade your php to a supported version."]


def test_software_that_no_bucket_lists_any_more_goes(scene: Scene) -> None:
    """But what was there before the bucket stays."""
    world, server = scene.world, scene.server()
    before = world.installed(server)
    world.buckets.push(server.id, "B", '[{"n":"acme","v":"1","l":"/srv"}]', None, scene.time)
    _scan(scene, server)
    assert len(world.installed(server)) == len(before) + 1
    _scan(scene, server)
    assert len(world.installed(server)) == len(before) + 1
    world.buckets.push(server.id, "B", "[]", None, scene.time)
    _scan(scene, server)
    assert world.installed(server) == before


def test_what_is_pushed_again_keeps_its_id_and_its_exploits(scene: Scene) -> None:
    """A scan that finds the same version finds the same software."""
    world = scene.world
    server = world.add_server(world.demo, "new.example.net")
    world.buckets.push(server.id, "B", '[{"n":"acme","v":"1","l":"/"}]', None, scene.time)
    _scan(scene, server)
    world.change(server, Change(Kind.EXPLOITABLE, "acme"))
    (hit,) = world.installed(server)
    _scan(scene, server)
    assert world.installed(server) == (hit,)
    world.buckets.push(server.id, "B", '[{"n":"acme","v":"2","l":"/"}]', None, scene.time)
    _scan(scene, server)
    (updated,) = world.installed(server)
    assert (updated.id, updated.software.version, updated.software.exploits) == (hit.id, "2", ())


def test_a_bucket_expires(scene: Scene) -> None:
    """After ``expire`` seconds it does not exist."""
    world, server = scene.world, scene.server()
    world.buckets.push(server.id, "B", "[]", 60, scene.time)
    scene.time += 60
    assert world.buckets.find(server.id, "B", scene.time).key == "B"
    scene.time += 1
    with pytest.raises(ApiError, match=r"^Bucket does not exist$"):
        world.buckets.find(server.id, "B", scene.time)


def test_events_are_kept_for_thirty_days(scene: Scene) -> None:
    """At thirty days an event can be fetched; after that it is gone, also when nothing else happens."""
    (event,) = scene.world.outbox.emit(scene.world.demo.id, "webhook.test", {})
    scene.time += KEPT_SECONDS
    assert scene.world.outbox.find(event.webhook_id, event.id) is event
    scene.world.advance(1)
    assert scene.world.outbox.find(event.webhook_id, event.id) is None
    scene.world.outbox.emit(scene.world.demo.id, "webhook.test", {})
    assert len(scene.world.outbox) == 1


def test_each_webhook_has_events_of_its_own() -> None:
    """The event of one cannot be fetched under the other."""
    scene = Scene(webhook_urls=("http://127.0.0.1:1/a", "http://127.0.0.1:1/b"))
    first, second = scene.world.outbox.emit(scene.world.demo.id, "webhook.test", {})
    assert (first.webhook_id, second.webhook_id) == (1, 2)
    assert scene.world.outbox.find(2, first.id) is None


def test_a_removed_server_is_gone(scene: Scene) -> None:
    """With its scan: nothing is told of it any more."""
    server = scene.server()
    scene.world.start_scan(server, 1.0)
    scene.told.clear()
    scene.world.remove_server(server)
    scene.time += 2
    scene.world.tick()
    assert not scene.told
    with pytest.raises(ApiError):
        scene.world.server(scene.world.demo, server.id)


def test_a_host_exists_with_its_subdomains(scene: Scene) -> None:
    """One free server per domain: a host and what is below it."""
    assert scene.world.host_exists("web-01.example.org")
    assert scene.world.host_exists("example.org")
    assert not scene.world.host_exists("1.example.org")
    assert not scene.world.host_exists("sub.web-01.example.org")


def test_accounts_do_not_see_each_other(scene: Scene) -> None:
    """A server belongs to one account, and goes with it."""
    world = scene.world
    other = world.accounts.add("other@example.net", "secret1")
    server = world.add_server(other, "other.example.net")
    assert world.servers(other) == [server]
    with pytest.raises(ApiError):
        world.server(world.demo, server.id)
    world.remove_account(other)
    assert not world.host_exists("other.example.net")
    with pytest.raises(ApiError):
        world.accounts.authenticated(other.key, other.secret)


def test_five_wrong_passwords_block_for_ten_minutes(scene: Scene) -> None:
    """Then even the right one fails, with the code that the scanner knows; afterwards it works again."""
    accounts = scene.world.accounts
    for _ in range(5):
        with pytest.raises(ApiError) as raised:
            accounts.logged_in("demo@example.org", "wrong", scene.time)
        assert raised.value.code == "wrong_credentials"
    with pytest.raises(ApiError) as raised:
        accounts.logged_in("demo@example.org", "demo", scene.time + 599)
    assert raised.value.code == "too_many_failed_attempts"
    assert accounts.logged_in("demo@example.org", "demo", scene.time + 601) is scene.world.demo


def test_secrets_do_not_show() -> None:
    """Neither the options nor the account nor a webhook tell them."""
    options = SimulatorOptions(key="canary", secret="canary", password="canary", webhook_urls=("http://h/canary",))
    world = World(options)
    shown = repr((options, world.demo, world.outbox.webhooks())) + str(world.outbox.webhooks()[0].document())
    assert "canary" not in shown


@pytest.mark.parametrize(
    "wrong", [{"listen_address": "nohost"}, {"listen_address": "h:99999"}, {"servers": -1}, {"servers": 10**10}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    """At once, and not when something is done with them."""
    with pytest.raises(ValueError, match=r"host:port|negative|at most"):
        SimulatorOptions(**wrong)


def _scan(scene: Scene, server: Server) -> None:
    scene.world.start_scan(server, 1.0)
    scene.time += 1.0
    scene.world.tick()
