"""From any gateways to the wanted ones, never with too few that serve."""

import pytest

from freehold.control.rolling import Gateway, step


def gateways(text: str) -> list[Gateway]:
    """``c`` current and serving, ``s`` current and starting, ``o`` old, ``d`` draining."""
    return [
        Gateway(name=f"{each}{n}", current=each in "cs", serving=each != "s", draining=each == "d")
        for n, each in enumerate(text)
    ]


@pytest.mark.parametrize(
    ("text", "wanted", "next_"),
    [
        ("", 1, None),
        ("c", 1, "rest"),
        ("c", 2, None),
        ("ccc", 2, "c0"),
        ("o", 1, None),
        ("os", 1, "rest"),
        ("oc", 1, "o0"),
        ("dc", 1, "rest"),
        ("oo", 2, None),
        ("oos", 2, "rest"),
        ("ooc", 2, "o0"),
        ("doc", 2, "rest"),
        ("oc", 2, None),
        ("ocs", 2, "rest"),
        ("occ", 2, "o0"),
        ("d", 1, None),
        ("ds", 1, "rest"),
        ("ooo", 2, "o0"),
    ],
)
def test_one_step(text: str, wanted: int, next_: str | None) -> None:
    found = step(gateways(text), wanted)
    assert found == (next_ or "start")


@pytest.mark.parametrize("wanted", [1, 2, 4, 9])
def test_a_whole_replacement(wanted: int) -> None:
    """Whatever comes first, starting or ending: enough serve at every moment, and it ends."""
    now = gateways("o" * wanted)
    number = 100
    for _ in range(20 * wanted):
        found = step(now, wanted)
        if found == "start":
            number += 1
            now.append(Gateway(name=f"n{number}", current=True, serving=False))
        elif found != "rest":
            now = [
                Gateway(name=g.name, current=g.current, serving=True, draining=True)
                if g.name == found else g
                for g in now
            ]  # fmt: skip
        else:
            now = [
                Gateway(name=g.name, current=g.current, serving=True) for g in now if not g.draining
            ]
        assert len([g for g in now if g.serving and not g.draining]) >= wanted
        assert len(now) <= wanted + 1
    assert [g.current for g in now] == [True] * wanted
