"""What is wrong with the watching itself, in words, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patrolserver_exporter.inbox.deliveries import DeliveryState
from patrolserver_exporter.issues.waive import day_of
from patrolserver_exporter.patrolserver.errors import FailureReason
from patrolserver_exporter.web.pages.accounts import NOT_KNOWN, THIS, Freshness
from patrolserver_exporter.web.pages.words import counted, moment, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from patrolserver_exporter.inbox.deliveries import InboxCount
    from patrolserver_exporter.issues.model import Waiver
    from patrolserver_exporter.web.pages.accounts import AccountView, Named
    from patrolserver_exporter.web.webhook import Refusal

EXPIRING_DAYS = 14
"""A waiver is mentioned from so many days before its end."""
_NAMED = 3
LATE = 900.0
"""Seconds after which a delivery that still waits is worth a word."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to know. ``bad`` ones make the numbers on the page doubtful; others are only for information."""

    what: str
    todo: str
    detail: str = ""
    """What the API or the configuration's reader said, where it said something."""
    bad: bool = True
    speaker: str = "The API says:"
    """Who said the detail."""
    which: str = ""
    """The worst of those that it is about, by name."""


def notices(  # noqa: PLR0913  # what can be wrong is known in that many places
    accounts: Sequence[AccountView],
    inbox: Sequence[InboxCount],
    *,
    now: float,
    reload_failure: str | None = None,
    store_trouble: str | None = None,
    waivers: Sequence[Waiver] = (),
    refusal: Refusal | None = None,
    differing: Sequence[str] = (),
    follows: bool = True,
) -> tuple[Notice, ...]:
    """Collect what is wrong, the worst first."""
    found = (
        *of_store(store_trouble),
        *of_following(follows=follows),
        *_of_accounts(accounts),
        *of_lists(accounts),
        *of_pauses(accounts),
        *of_freshness(accounts),
        *_of_configuration(reload_failure),
        *of_replicas(differing),
        *_of_inbox(accounts, inbox, now),
        *of_webhook(accounts, refusal, now),
        *of_waivers(waivers, now),
    )
    return tuple(sorted(found, key=lambda notice: not notice.bad))


def of_store(trouble: str | None) -> Iterator[Notice]:
    """Tell that nothing can be written."""
    if trouble is not None:
        yield Notice(
            "The store cannot write: deliveries get a 503, and what is shown stays as it was.",
            "Make room on its disk, see that its user may write there, or bring the database back. It goes on by "
            "itself within seconds.",
            trouble,
            speaker="It says:",
        )


def of_following(*, follows: bool) -> Iterator[Notice]:
    """Tell that this exporter shows nothing of the fleet, so that others on the same database do."""
    if not follows:
        yield Notice(
            "This exporter has not followed its database for a minute, though others may: its metrics show no fleet.",
            "Look at its way to the database, and ask another exporter meanwhile. It goes on by itself; if it does "
            "not, its log says why.",
        )


def of_replicas(differing: Sequence[str]) -> Iterator[Notice]:
    """Tell which exporters on the same database have another configuration."""
    if differing:
        yield Notice(
            f"{counted(len(differing), 'other exporter')} on this database "
            f"{'has' if len(differing) == 1 else 'have'} another configuration.",
            "Give all of them the same one, and reload them. Each account is judged by the rules of the exporter that "
            "polls it.",
            which="; ".join(differing[:_NAMED]),
        )


def of_lists(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    """Tell which server lists are only a part, or wait to be confirmed."""
    for account in accounts:
        # Where the call failed, its trouble says the same and more.
        if account.list_partial_because and account.trouble is None:
            yield Notice(
                f"The last server list of account {account.name} was only a part of the whole.",
                "Servers that it lacks are kept, and the gate answers unknown to globs. Ask PatrolServer why its API "
                "does not give the whole list, with what it said.",
                "; ".join(account.list_partial_because),
            )
        if account.servers_missing:
            yield Notice(
                f"The last server list of account {account.name} lacks "
                f"{counted(account.servers_missing, 'server')}; another list has to confirm that.",
                "Until then they are kept, and the gate answers unknown. If they are not removed on purpose, look into "
                "the account at PatrolServer.",
            )


def of_pauses(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    """Tell which accounts the API put off."""
    for account in accounts:
        if account.pause is not None:
            yield Notice(
                f"Account {account.name} makes no calls until {account.pause.shown} ({account.pause.words}), because "
                "PatrolServer asked to wait.",
                "Its data gets older meanwhile. A refresh of a server or a reload makes one try at once; "
                "poll.max_pause bounds what may be waited. If it happens often, lower poll.max_requests_per_minute.",
                "" if account.pause_reason == account.trouble else account.pause_reason,
            )


def of_waivers(waivers: Iterable[Waiver], now: float) -> Iterator[Notice]:
    """Tell which waivers end soon: their issues are open from then on."""
    today = day_of(now)
    ending = sorted(
        (waiver for waiver in waivers if 0 <= (waiver.until - today).days <= EXPIRING_DAYS),
        key=lambda waiver: waiver.until,
    )
    if ending:
        named = "; ".join(f"{one.software} on {one.server}, {one.until}" for one in ending[:_NAMED])
        more = f"; and {number(len(ending) - _NAMED)} more" if len(ending) > _NAMED else ""
        yield Notice(
            f"{counted(len(ending), 'waiver ends', 'waivers end')} within {EXPIRING_DAYS} days.",
            "Fix what they cover, or set a later date under issues.waivers; from the day after, it counts as open.",
            bad=False,
            which=named + more,
        )


_UNREACHED = (
    "PatrolServer cannot be reached",
    "Check the network of this machine, its firewall, proxy_url and api_url.",
)
_STRANGE = (
    "PatrolServer's answer cannot be used",
    (
        "Does api_url lead to PatrolServer's API, and not to a proxy's page? If it does, ask PatrolServer what its "
        "answer means."
    ),
)
_FAILURES: dict[FailureReason | None, tuple[str, str]] = {
    FailureReason.CONNECT: _UNREACHED,
    FailureReason.DNS: (
        "PatrolServer's name has no address",
        "Check the DNS of this machine, and the names in api_url and proxy_url.",
    ),
    FailureReason.TLS: (
        "The connection to PatrolServer is not safe",
        "Check ca_file, the clock of this machine, and whether something on the way opens TLS.",
    ),
    FailureReason.TIMEOUT: (
        "PatrolServer does not answer in time",
        "It may be slow, or a firewall drops what is sent. If it lasts, raise poll.timeout, or look at the way there.",
    ),
    FailureReason.SERVER_ERROR: (
        "PatrolServer fails",
        "The network is fine, since it answered. Nothing has to be done here; if it lasts, ask PatrolServer.",
    ),
    FailureReason.RATE_LIMITED: (
        "PatrolServer refuses more calls",
        "Lower poll.max_requests_per_minute, and see whether other programs use the same key.",
    ),
    FailureReason.NOT_FOUND: (
        "PatrolServer's API is not where it is looked for",
        "Check api_url: something answers there, but it does not know the call.",
    ),
    FailureReason.REDIRECT: (
        "PatrolServer's API is not where it is looked for",
        "Check api_url: it sends callers elsewhere, and credentials are not carried along. Write the new address.",
    ),
    FailureReason.OTHER_STATUS: _STRANGE,
    FailureReason.API_ERROR: _STRANGE,
    FailureReason.UNREADABLE: _STRANGE,
    FailureReason.TOO_LARGE: _STRANGE,
}
_RENEWED = {
    "file": "A file is read again by itself.",
    "variable": "A variable of the environment needs a restart with the new value.",
    "configuration": "What stands in the configuration takes a reload.",
}


def _renewed(origins: Sequence[str]) -> str:
    """How new credentials are taken, by where they come from."""
    return " ".join(_RENEWED[origin] for origin in origins or _RENEWED if origin in _RENEWED)


REFUSED_LATELY = 86_400.0
"""Seconds for which a delivery that was refused is told of."""


def of_webhook(accounts: Iterable[AccountView], refusal: Refusal | None, now: float) -> Iterator[Notice]:
    """Tell of deliveries that were refused, and of a webhook that brings none."""
    known = tuple(accounts)
    delivered = [f"{one.name}: {one.last_delivery.words}" for one in known if one.last_delivery is not None]
    last = f"The last delivery that was taken in: {'; '.join(delivered)}." if delivered else "None was taken in so far."
    if refusal is not None and now - refusal.at < REFUSED_LATELY:
        yield Notice(
            f"A webhook delivery was refused {moment(refusal.at, now).words}, with a {refusal.status}. {last}",
            _after_refusal(refusal.status),
            refusal.why,
            bad=False,
            speaker="Because:",
        )
    for one in known:
        if one.webhook and one.silent_webhook:
            yield Notice(
                f"No webhook delivery came for account {one.name} for {one.silent_webhook}.",
                "If something was scanned meanwhile, see at PatrolServer whether the webhook is still set, and whether "
                "its URL reaches this machine. Polls bring all issues meanwhile, only later.",
                bad=False,
            )


def _after_refusal(status: int) -> str:
    match status:
        case 401 | 429:
            return (
                "If it was PatrolServer's, enter the URL there again, with a token of webhook_tokens. Others who guess "
                "cannot do harm."
            )
        case 403:
            return (
                "If it was PatrolServer's, add its address to webhook.allowed_networks, or the proxy's to "
                "web.trusted_proxies."
            )
        case 404 | 405:
            return "Its URL has to be /webhook/ and a token behind it, and the method POST; look at what was entered."
        case 503:
            return "The store could not write then. PatrolServer may send it again; a poll brings its issues anyway."
        case _:
            return (
                "It could not be read as a delivery; the exporter's log has more. If PatrolServer sent it, report it."
            )


def _elsewhere(account: AccountView) -> str:
    """Whose machine and configuration the advice is about, where that is not this exporter."""
    if account.polled_by == "":
        return "No exporter polls it at the moment: look into the logs of those that have it configured. "
    if account.polled_by in {None, THIS, NOT_KNOWN}:
        return ""
    return f"It is polled by the exporter {account.polled_by}: look there. "


def _of_accounts(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    for account in accounts:
        since = f"Its last good answer was {account.last_success.words}." if account.last_success else ""
        if account.credentials_refused:
            yield Notice(
                f"PatrolServer refuses the credentials of account {account.name}. {since}",
                f"{_elsewhere(account)}Check its key and secret at PatrolServer. {_renewed(account.credentials_from)} "
                "Calls begin again within two minutes after the API takes them.",
                account.trouble or "",
                speaker=account.trouble_speaker,
            )
        elif account.trouble is not None:
            yield Notice(
                f"{_FAILURES.get(account.trouble_reason, _UNREACHED)[0]} for account {account.name}. {since}",
                "Its numbers stay as they were until it answers; it is asked again at least every five minutes. "
                + _elsewhere(account)
                + _FAILURES.get(account.trouble_reason, _UNREACHED)[1],
                account.trouble,
                speaker=account.trouble_speaker,
            )
        elif account.tone == "bad" and account.polled_by == "":
            yield Notice(
                f"No exporter polls account {account.name}. {since}",
                "Look into the logs of the exporters that have it configured. They have to be able to write the "
                "database; accounts move to no exporter of an older version than the newest one that runs.",
            )
        elif account.tone == "bad":
            yield Notice(
                f"PatrolServer has not answered for account {account.name}. {since}",
                f"{_elsewhere(account)}Look into the exporter's log, and restart it if it shows no calls.",
            )


def _of_configuration(reload_failure: str | None) -> Iterator[Notice]:
    if reload_failure is not None:
        yield Notice(
            "The configuration was changed but could not be reloaded; the old one stays in force.",
            "Correct it and reload once more, with SIGHUP or POST /-/reload.",
            reload_failure,
            bad=False,
            speaker="It says:",
        )


def of_freshness(accounts: Iterable[AccountView]) -> Iterator[Notice]:
    """Tell of which servers too little is known."""
    total = sum((account.fresh for account in accounts), Freshness())
    if total.old:
        yield Notice(
            f"The data of {counted(total.old, 'server')} is older than 24 hours.",
            "Nothing newer is known of them, so the gate answers unknown. The table marks them; "
            "their pages tell when the last poll succeeded.",
        )
    if total.failed:
        yield Notice(
            f"The last poll of {counted(total.failed, 'server')} failed.",
            "They are polled again by themselves. If it lasts, look for their names in the log of the exporter that "
            "polls them.",
        )
    if total.partial.count:
        yield Notice(
            f"The last poll of {counted(total.partial.count, 'server')} showed only a part.",
            "No issue is closed by such a poll, and the gate answers unknown. The log of the exporter that "
            "polls them tells what was missing; if it lasts, ask PatrolServer why its API does not give the whole "
            "list.",
            which=_named(total.partial),
        )
    if total.empty.count:
        yield Notice(
            f"PatrolServer lists no software for {counted(total.empty.count, 'server')}.",
            "Nothing was looked at there, so the gate answers unknown. Have them scanned, and see whether "
            "PatrolServer's scanner still runs on them.",
            which=_named(total.empty),
        )
    if total.unknown_risk.count:
        yield Notice(
            f"{counted(total.unknown_risk.count, 'server has', 'servers have')} exploits of unknown risk.",
            "They count as high here, and as the worst at the gate. Their pages list them; look them up by CVE, and "
            "update the software or waive them.",
            which=_named(total.unknown_risk),
        )
    if total.never:
        yield Notice(
            f"{counted(total.never, 'server waits', 'servers wait')} for the first poll.",
            "That takes one poll interval after the start, or after a server is added.",
            bad=False,
        )


def _named(servers: Named) -> str:
    names = ", ".join(servers.names)
    more = servers.count - len(servers.names)
    return f"{names} and {number(more)} more" if more else names


def _of_inbox(accounts: Iterable[AccountView], inbox: Iterable[InboxCount], now: float) -> Iterator[Notice]:
    for account in accounts:
        if account.overflowed is not None:
            yield Notice(
                f"The inbox of account {account.name} overflowed {account.overflowed.words}.",
                "No issue is lost: a poll of every server makes up for it. Titles and scan times may be missing. "
                "If it happens often, raise webhook.inbox_limit.",
            )
    for count in inbox:
        if count.state is DeliveryState.DEAD:
            yield Notice(
                f"{counted(count.count, 'delivery', 'deliveries')} of account {count.account} could not be understood.",
                "See them with: patrolserver-exporter inbox list --state=dead. Replay or drop them there.",
                bad=False,
            )
        elif now - count.oldest_at > LATE:
            yield Notice(
                f"{counted(count.count, 'delivery waits', 'deliveries wait')} for account {count.account}, "
                f"the oldest since {moment(count.oldest_at, now).shown}.",
                "They are tried again by themselves. See why with: patrolserver-exporter inbox list.",
            )
