from tests.unit.store.test_unknown_kinds import *  # noqa: F403  # The same tests; conftest.py says where.
