from tests.unit.store.test_state import *  # noqa: F403  # The same tests; conftest.py says where.
