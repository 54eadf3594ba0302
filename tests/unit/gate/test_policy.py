from __future__ import annotations

from typing import Any

import msgspec
import pytest

from patrolserver_exporter.gate.policy import (
    BUILTIN,
    LOOSENING,
    AskedPolicy,
    Grace,
    InForce,
    Inline,
    KindLimits,
    NamedPolicy,
    Policy,
    PolicyRefused,
    SeverityLimits,
    in_force,
    limits_of,
)
from patrolserver_exporter.issues.model import Waiver

STRICT = NamedPolicy(max_by_severity=SeverityLimits(critical=1, high=2), max_total=5, max_age=3600.0)


def decided(written: dict[str, Any], inline: Inline = Inline.TIGHTEN, **policies: NamedPolicy) -> InForce:
    """What holds for a request with this policy; the first of the policies is the default."""
    asked = msgspec.convert(written, AskedPolicy)
    return in_force(asked, written, policies=policies, default_policy=next(iter(policies), None), inline=inline)


class TestWhichPolicy:
    """The policy that a request is judged by."""

    def test_the_default_holds_for_requests_that_name_none(self) -> None:
        """And another one for those that name it."""
        assert decided({}, strict=STRICT, loose=NamedPolicy()).policy == STRICT
        assert decided({"policy": "loose"}, strict=STRICT, loose=NamedPolicy()).name == "loose"

    def test_without_policies_the_built_in_one_holds(self) -> None:
        """It can be named, too."""
        assert decided({}).policy == Policy()
        assert decided({"policy": BUILTIN}).name == BUILTIN

    @pytest.mark.parametrize("name", ["other", BUILTIN])
    def test_an_unknown_name_is_refused(self, name: str) -> None:
        """The built-in one is no way around those of the configuration."""
        with pytest.raises(PolicyRefused, match=f"no policy '{name}'.*there are strict") as refused:
            decided({"policy": name}, strict=STRICT)
        assert refused.value.key == "policy"
        with pytest.raises(PolicyRefused, match="there are strict, loose"):
            decided({"policy": name}, strict=STRICT, loose=NamedPolicy())

    def test_a_name_without_policies_is_refused(self) -> None:
        """Who names one relies on it, so the built-in one does not stand in."""
        with pytest.raises(PolicyRefused, match=r"no policy 'strict'.*has none \(gate\.policies\)") as refused:
            decided({"policy": "strict"})
        assert refused.value.key == "policy"

    def test_without_a_default_one_has_to_be_named(self) -> None:
        """A request must not be judged by a policy that nobody chose."""
        with pytest.raises(PolicyRefused, match="has to be named") as refused:
            in_force(AskedPolicy(), {}, policies={"strict": STRICT}, default_policy=None, inline=Inline.ANY)
        assert refused.value.key == "policy"


class TestTighten:
    """A request may only make a policy stricter."""

    @pytest.mark.parametrize(
        ("written", "member", "value"),
        [
            ({"max_total": 3}, "max_total", 3),
            ({"max_total": 9}, "max_total", 5),
            ({"max_total": None}, "max_total", 5),
            ({"max_age": 60}, "max_age", 60.0),
            ({"max_age": 7200}, "max_age", 3600.0),
            ({"max_scan_age": 60}, "max_scan_age", 60.0),
            ({"max_risk": 7}, "max_risk", 7.0),
            ({"max_unknown_software": 3}, "max_unknown_software", 0),
        ],
    )
    def test_the_stricter_of_the_two_holds(self, written: dict[str, Any], member: str, value: float) -> None:
        """Whichever of them sets it."""
        assert getattr(decided(written, strict=STRICT).policy, member) == value

    def test_severities_one_by_one(self) -> None:
        """What the request does not name stays as the policy has it."""
        limits = decided({"max_by_severity": {"high": 0, "low": 9}}, strict=STRICT).policy.max_by_severity
        assert limits == SeverityLimits(critical=1, high=0, low=9)
        assert decided({"max_by_severity": {"high": 9}}, strict=STRICT).policy.max_by_severity.high == 2

    @pytest.mark.parametrize(
        ("key", "written"),
        [
            ("waivers", [{"server": "*", "software": "*", "until": "2199-01-01", "reason": "no"}]),
            ("baseline", [{"fingerprint": "f", "kind": "outdated", "severity": "medium"}]),
            ("grace", {"high": 60}),
            ("fixable_only", True),
            ("allow_empty", True),
        ],
    )
    def test_what_would_loosen_is_refused_unless_the_policy_allows_it(self, key: str, written: object) -> None:
        """The refusal names the key, and the one that would permit it."""
        with pytest.raises(PolicyRefused, match=rf"gate\.policies\.strict\.{LOOSENING[key]}") as refused:
            decided({key: written}, strict=STRICT)
        assert refused.value.key == key
        permitted = msgspec.structs.replace(STRICT, **{LOOSENING[key]: True})
        found = decided({key: written}, strict=permitted)
        assert found.baseline if key == "baseline" else getattr(found.policy, key)

    @pytest.mark.parametrize("key", LOOSENING)
    def test_the_built_in_policy_permits_none_of_them(self, key: str) -> None:
        """It has no keys that could."""
        written: dict[str, Any] = {
            "waivers": [{"server": "*", "software": "*", "until": "2199-01-01", "reason": "no"}],
            "baseline": [{"fingerprint": "f", "kind": "outdated", "severity": "medium"}],
            "grace": {"high": 60},
        }
        with pytest.raises(PolicyRefused) as refused:
            decided({key: written.get(key, True)})
        assert refused.value.key == key

    @pytest.mark.parametrize("key", ["fixable_only", "allow_empty"])
    def test_what_the_policy_has_already_may_be_asked_for(self, key: str) -> None:
        """It loosens nothing; and it opens no way for what would."""
        has = msgspec.structs.replace(STRICT, **{key: True})
        assert getattr(decided({key: True}, strict=has).policy, key)
        other = "allow_empty" if key == "fixable_only" else "fixable_only"
        with pytest.raises(PolicyRefused) as refused:
            decided({key: True, other: True}, strict=has)
        assert refused.value.key == other

    def test_waivers_that_are_permitted_come_beside_those_of_the_policy(self) -> None:
        """They take none away."""
        known = {"server": "*", "software": "php", "until": "2199-01-01", "reason": "known"}
        base = msgspec.structs.replace(STRICT, waivers=(msgspec.convert(known, Waiver),), allow_waivers=True)
        found = decided({"waivers": [{**known, "reason": "own"}]}, strict=base).policy.waivers
        assert [one.reason for one in found] == ["known", "own"]

    def test_every_member_that_loosens_has_a_permit(self) -> None:
        """So that none is forgotten when one is added."""
        permits = {name for name in NamedPolicy.__struct_fields__ if name not in Policy.__struct_fields__}
        assert permits == set(LOOSENING.values())

    def test_an_empty_one_loosens_nothing(self) -> None:
        """An empty list of waivers, as the collection may send it, is as good as none."""
        assert decided({"waivers": [], "grace": {}, "fixable_only": False}, strict=STRICT).policy == STRICT

    def test_what_the_policy_loosens_may_be_tightened(self) -> None:
        """A request may insist on what cannot be fixed."""
        fixable = msgspec.structs.replace(STRICT, fixable_only=True, allow_fixable_only=True)
        assert not decided({"fixable_only": False}, strict=fixable).policy.fixable_only


class TestAnyAndNone:
    """The other two ways of ``gate.inline``."""

    def test_any_lets_a_request_replace_each_member(self) -> None:
        """And what it does not name stays."""
        policy = decided({"max_total": 9, "grace": {"high": 60}}, Inline.ANY, strict=STRICT).policy
        assert (policy.max_total, policy.grace, policy.max_age) == (9, Grace(high=60.0), 3600.0)

    def test_none_lets_it_name_a_policy_and_nothing_else(self) -> None:
        """Not even a stricter limit, so that one can rely on what the configuration says."""
        assert decided({"policy": "strict"}, Inline.NONE, strict=STRICT).policy == STRICT
        with pytest.raises(PolicyRefused, match=r"gate\.inline is none.*no max_age of its own") as refused:
            decided({"max_total": 0, "max_age": 60}, Inline.NONE, strict=STRICT)
        assert refused.value.key == "max_age"


def test_each_limit_says_what_it_counts() -> None:
    """As the message goes on after "issues that", with the name and the flag to change it by."""
    every = Policy(
        max_by_severity=SeverityLimits(critical=0, high=1),
        max_by_kind=KindLimits(outdated=2),
        max_total=3,
        max_risk=6.5,
    )
    assert [(one.name, one.flag, one.allowed, one.wording) for one in limits_of(every)] == [
        ("max_by_severity.critical", "--max-critical", 0, "are critical"),
        ("max_by_severity.high", "--max-high", 1, "are high or worse"),
        ("max_by_kind.outdated", "--max-outdated", 2, "are outdated"),
        ("max_total", "--max-total", 3, "count"),
        ("max_risk", "--max-risk", 0, "have a risk above 6.5"),
    ]
