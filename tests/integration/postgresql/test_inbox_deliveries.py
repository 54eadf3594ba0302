from tests.unit.inbox.test_deliveries import *  # noqa: F403  # The same tests; conftest.py says where.
