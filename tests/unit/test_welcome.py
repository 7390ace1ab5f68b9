"""What ``freehold up`` prints where it has no answer to show."""

from types import SimpleNamespace
from typing import Any

import pytest

from freehold.cli.welcome import _text


@pytest.mark.parametrize(
    ("names", "says"), [((), "Nothing is deployed yet"), (("big",), "see freehold status for big")]
)
def test_a_deployment_that_is_not_up_is_one_all_the_same(names: tuple[str, ...], says: str) -> None:
    control: Any = SimpleNamespace(
        public_url="http://127.0.0.1:1",
        home=SimpleNamespace(admin_key="k"),
        deployments=SimpleNamespace(all=lambda: [SimpleNamespace(name=name) for name in names]),
    )
    assert says in _text(control, None, None)
    assert ("Nothing is deployed" in _text(control, None, None)) is not bool(names)
