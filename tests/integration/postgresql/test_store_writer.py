from tests.unit.store.test_writer import *  # noqa: F403  # The same tests; conftest.py says where.
