from tests.unit.sync.test_lists import *  # noqa: F403  # The same tests; conftest.py says where.
