from tests.unit.sync.test_restore import *  # noqa: F403  # The same tests; conftest.py says where.
