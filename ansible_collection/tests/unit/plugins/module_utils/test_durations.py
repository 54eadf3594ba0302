# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations and moments: what is meant is read, what is unclear is refused."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.durations import moment, rfc3339, seconds
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), (5, 5), ("1h30m", 5400), ("500ms", 0.5), ("7d", 604800), ("1.5h", 5400), ("2w", 1209600)]
)
def test_durations_are_read(text, expected):
    """Plain seconds and units, also several of them."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "forever", "-1", "1h-2m", "24 h", "h", "1y", "inf", "nan", None, True])
def test_what_is_no_duration_is_refused(text):
    """Nothing stands for an age without a bound."""
    with pytest.raises(InvalidInput):
        seconds(text)


def test_moments_survive_the_way_there_and_back():
    """What is written is read again, to the microsecond."""
    assert moment(rfc3339(1795503600.25)) == 1795503600.25


@pytest.mark.parametrize("text", ["2026-11-24T07:00:00Z", "2026-11-24T08:00:00+01:00", "2026-11-24T07:00:00.0000000Z"])
def test_offsets_and_fractions_are_understood(text):
    """All of these are the same moment."""
    assert moment(text) == 1795503600.0


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-24", "2026-11-24T07:00:00", "2026-02-30T07:00:00Z"])
def test_what_is_no_moment_is_refused(text):
    """A time without an offset means nothing."""
    with pytest.raises(InvalidInput):
        moment(text)
