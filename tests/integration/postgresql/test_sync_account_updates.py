from tests.unit.sync.test_account_updates import *  # noqa: F403  # The same tests; conftest.py says where.
