# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Software lists."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api
from ansible_collections.patrolserver.monitoring.plugins.module_utils.software import from_list, from_package_facts, readable


def test_package_facts_of_every_platform():
    """Debian's revision is in the version, an RPM's release and epoch are not."""
    lines = from_package_facts(
        {
            "bash": [{"name": "bash", "version": "5.2.15-2+b7", "source": "apt"}],
            "kernel": [
                {"name": "kernel", "version": "5.14.0", "release": "427.el9", "epoch": None, "source": "rpm"},
                {"name": "kernel", "version": "5.14.0", "release": "427.el9", "epoch": None, "source": "rpm"},
                {"name": "kernel", "version": "5.14.0", "release": "362.el9", "epoch": 1, "source": "rpm"},
            ],
            "odd": [{"name": "odd"}],
        }
    )
    assert readable(lines) == [
        "bash 5.2.15-2+b7 at /",
        "kernel 1:5.14.0-362.el9 at /",
        "kernel 5.14.0-427.el9 at /",
        "odd ? at /",
    ]


@pytest.mark.parametrize("packages", [{"a": "1.0"}, {"a": ["1.0"]}])
def test_what_are_no_package_facts_is_refused(packages):
    """Half a list would say that the rest is not installed."""
    with pytest.raises(InvalidInput):
        from_package_facts(packages)


def test_the_order_of_a_list_does_not_matter():
    """Nor do doubles."""
    one = {"name": "a", "version": "1", "parent": None, "location": None}
    two = {"name": "b", "version": None, "parent": "a", "location": "/srv"}
    assert from_list([one, two]) == from_list([two, one, two])
    with pytest.raises(InvalidInput):
        from_list([{"name": " "}])


def test_a_bucket_is_read_as_it_was_pushed_though_what_repeats_is_left_out(stand):
    """The stand-in writes it as the scanner does."""
    api = Api(stand.api_params)
    lines = from_list([{"name": name, "version": "1", "parent": "p", "location": "/"} for name in "abc"])
    assert api.bucket(7, "k") is None
    api.push_bucket(7, "k", lines, 60, silent=False)
    assert api.bucket(7, "k") == lines
    api.delete_bucket(7, "k")
    assert api.bucket(7, "k") is None
