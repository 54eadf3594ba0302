from tests.unit.sync.test_server_updates import *  # noqa: F403  # The same tests; conftest.py says where.
