"""A model that is not here: how it gets here."""

import pytest

from freehold.control.absent import absent


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gemma-3-270m", "in the catalog, and freehold model import gemma-3-270m brings it in"),
        ("support-bat", "did you mean support-bot? If not, freehold model import SOURCE --name "
         "support-bat brings it in"),
        ("gema-3-270m", "did you mean gemma-3-270m? freehold model import gemma-3-270m brings"),
        ("zzz", "no model 'zzz' here: freehold model import SOURCE --name zzz brings it in, from"),
        ("Z Z;Z", "no model 'Z Z;Z' here: freehold model import SOURCE brings it in, from"),
    ],
)  # fmt: skip
def test_the_command_that_brings_it_in_is_named(model: str, told: str) -> None:
    assert told in absent(model, ["support-bot"], ["gemma-3-270m"]).message
