"""After each test of the whole app: no task, no socket and no reservation is left in any gateway.

Houses of a test's own are looked at when they are closed, before that; the others here.
"""

from collections.abc import Generator

import pytest

from tests.house import RUNNING


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    yield
    for house in RUNNING:
        if house.is_up:
            house.check_nothing_left()
