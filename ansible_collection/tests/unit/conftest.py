# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running stand-in for both APIs, the one of the integration targets."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import pytest

# Whatever proxy a test has named, and open_url has made everybody's.
DIRECT = build_opener(ProxyHandler({}))
FAKE = Path(__file__).parents[1] / "integration" / "targets" / "setup_fake_api" / "files" / "fake_api.py"


class Stand:
    """Where the stand-in listens, and how to speak with it."""

    def __init__(self, module, server) -> None:
        self.url = "http://127.0.0.1:{0}".format(server.server_address[1])
        self.exporter_params = {**_transport(), "exporter_url": self.url, "token": module.TOKEN}
        self.api_params = {**_transport(), "api_url": self.url, "api_key": module.KEY, "api_secret": module.SECRET}

    def control(self, **state: object) -> None:
        """Replace parts of its state."""
        with DIRECT.open(Request(self.url + "/control", data=json.dumps(state).encode(), method="POST")):
            pass

    def requests(self) -> list:
        """Return what it was asked."""
        with DIRECT.open(self.url + "/requests") as reply:
            return json.load(reply)


def _transport() -> dict:
    return {"validate_certs": True, "timeout": 5, "retries": 2, "use_proxy": True}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Forget the proxies of whoever runs the tests."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def stand():
    """A fresh stand-in, stopped at the end."""
    spec = importlib.util.spec_from_file_location("fake_api", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.serve()
    yield Stand(module, server)
    server.shutdown()
    server.server_close()
