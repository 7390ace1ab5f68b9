"""Licences: what cards and files say, and what a policy makes of it."""

import pytest

from freehold.models.card import LICENCES, licence_of, read_card
from freehold.models.licence import each_of, judge, plain, together
from freehold.settings import Licences

POLICY = Licences(deny=("cc-by-nc-*", "gpl-3.0"), ask=("gemma", "llama3*"), allow=("Apache-2.0",
                  "mit"), others="ask", unknown="deny")  # fmt: skip


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        (("apache-2.0",), "allow"),
        (("Apache 2.0",), "allow"),
        (("Apache License 2.0",), "allow"),
        (("MIT",), "allow"),
        (("LicenseRef-Gemma",), "ask"),
        (("llama3.1",), "ask"),
        (("CC-BY-NC-4.0",), "deny"),
        (("GPL-3.0-or-later",), "deny"),
        (("bsd-3-clause",), "ask"),
        ((None,), "deny"),
        ((), "deny"),
        (("unknown",), "deny"),
        # Whoever says another thing than the file does not get around it.
        (("mit", "gemma"), "ask"),
        (("mit", "cc-by-nc-4.0"), "deny"),
        ((None, "mit"), "allow"),
        (("MIT OR GPL-3.0",), "allow"),
        (("MIT AND GPL-3.0",), "deny"),
        (("(MIT OR Apache-2.0) AND GPL-3.0",), "deny"),
        (("MIT, CC-BY-NC-4.0",), "deny"),
        (("mit;gpl-3.0",), "deny"),
        (("CC BY-NC 4.0",), "deny"),
        (("cc_by-nc_4.0",), "deny"),
    ],
)
def test_verdicts(told: tuple[str | None, ...], verdict: str) -> None:
    assert judge(told, POLICY) == verdict


def test_without_a_policy_everything_may_be_used() -> None:
    assert judge(("anything",), Licences()) == "allow"
    assert judge((None,), Licences()) == "allow"
    assert judge(("anything",), Licences(allow=("mit",), others="deny")) == "deny"


def test_denial_comes_first() -> None:
    assert judge(("mit",), Licences(deny=("*",), allow=("mit",))) == "deny"


def test_a_card() -> None:
    text = (
        "---\nlicense: other  # see below\nlicense_name: 'gemma'\nlanguage: [en, de]\n"
        'base_model:\n- org/a\n- "org/b"\nmetrics:\n  - name: x\n---\n# T\nlicense: mit\n'
    )
    found = read_card(text)
    assert (found["license"], found["license_name"]) == ("other", "gemma")
    assert (found["language"], found["base_model"]) == (["en", "de"], ["org/a", "org/b"])


@pytest.mark.parametrize("text", ["", "# T\nlicense: mit", "---\nlicense: mit\n", "\n---\n"])
def test_what_has_no_head(text: str) -> None:
    assert read_card(text) == {}


def test_licence_files() -> None:
    for licence, signs in LICENCES.items():
        assert licence_of("A\n " + "\n\n  ".join(signs).upper()) is not None, licence
    assert licence_of("GNU AFFERO GENERAL PUBLIC LICENSE Version 3") == "agpl-3.0"
    assert licence_of("All rights reserved.") is None


def test_plain_names() -> None:
    assert plain(" Apache  License 2.0 ") == "apache-2.0"
    assert plain("AGPL-3.0-only") == "agpl-3.0"


@pytest.mark.parametrize(
    ("told", "whole"),
    [
        (("mit", None, "other"), "mit"),
        (("other", "other"), "other"),
        ((["mit", "cc-by-nc-4.0"],), "mit AND cc-by-nc-4.0"),
        (("mit", "MIT License"), "mit"),
        (("mit OR gemma", "gemma"), "(mit OR gemma) AND gemma"),
        ((None, 3, "", "unknown", "x" * 201), None),
    ],
)
def test_who_says_two_things_is_held_to_both(told: tuple[object, ...], whole: str | None) -> None:
    assert together(*told) == whole


def test_the_parts_that_bind() -> None:
    assert each_of("mit AND (gemma)") == ["mit", "gemma"]
    assert each_of("mit OR gemma") == ["mit OR gemma"]
    assert each_of("Apache License 2.0") == ["Apache License 2.0"]
