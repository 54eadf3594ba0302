# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PatrolServer's answers mean: nothing that is not known counts as missing, or as done."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import Refused, Unreadable
from ansible_collections.patrolserver.monitoring.plugins.module_utils.patrolserver import Api
from ansible_collections.patrolserver.monitoring.plugins.module_utils.transport import Reply

LISTED = [{"id": 1, "name": "web1.example.org"}]


class Answering:
    """A connection on which every answer is the same."""

    def __init__(self, body, status=200, **headers):
        self.reply = Reply(status, headers, body)

    def get(self, _path, _query=None):
        """Return it."""
        return self.reply

    def redact(self, text):
        """Return the text."""
        return text


def api_answering(*reply, **headers):
    """Return a client that is answered so."""
    api = Api(
        {
            "api_url": "http://127.0.0.1:9",
            "api_key": "k",
            "api_secret": "s",
            "validate_certs": True,
            "timeout": 5,
            "retries": 0,
            "use_proxy": False,
        }
    )
    api.transport = Answering(*reply, **headers)
    return api


@pytest.mark.parametrize("answer", ["", " ", None, [], "maybe", {"isScanning": False}])
def test_only_a_no_says_that_no_scan_runs(answer):
    """An empty answer is none, so that no scan seems to have ended."""
    with pytest.raises(Unreadable):
        api_answering({"data": answer}).is_scanning(1)
    assert api_answering({"data": "no"}).is_scanning(1) is False


@pytest.mark.parametrize(
    "told", [{"error": "x"}, {"errors": ["x"]}, {"errors": {"a": "x"}}, {"success": False}, {"success": "0"}]
)
def test_an_answer_that_says_that_it_failed_is_refused(told):
    """Whatever its status and its data are."""
    with pytest.raises(Refused):
        api_answering({"data": False, **told}).is_scanning(1)
    assert api_answering({"data": False, "success": True, "errors": []}).is_scanning(1) is False


@pytest.mark.parametrize(
    "told",
    [
        {"total": 2},
        {"meta": {"total": "2"}},
        {"pagination": {"last_page": 2}},
        {"links": {"next": "/servers?page=2"}},
        {"next": {"href": "/servers?page=2"}},
        {"hasMore": True},
        {"truncated": "yes"},
    ],
)
def test_a_server_that_may_be_on_another_page_is_not_missing(told):
    """Else it would be added again, or its removal be called done."""
    api = api_answering({"data": LISTED, **told})
    assert api.find("WEB1.example.org.")["id"] == 1
    with pytest.raises(Unreadable, match="only a part"):
        api.find("web2.example.org")


def test_a_part_is_told_by_status_and_headers_too():
    """Of the forms that are in use elsewhere."""
    for api in (api_answering(LISTED, 206), api_answering(LISTED, link='</servers?page=2>; rel="next"')):
        with pytest.raises(Unreadable, match="only a part"):
            api.find("web2.example.org")


@pytest.mark.parametrize(
    "told", [{}, {"total": 1, "next": None, "has_more": "false", "links": {"next": ""}, "meta": {"pages": 1}}]
)
def test_a_server_that_a_whole_list_lacks_is_missing(told):
    """What says nothing makes no list a part."""
    assert api_answering({"data": LISTED, **told}).find("web2.example.org") is None
    assert api_answering({"1": {**LISTED[0], "total": 9}}).find("web2.example.org") is None
