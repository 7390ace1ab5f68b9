"""Deployments as people write them: weights of endpoints, answers kept."""

from typing import Any

import msgspec
import pytest

from freehold.control.deployments import Document, read_document, write_document
from freehold.errors import Invalid
from freehold.models.deploy import plan
from freehold.models.deployment import Cache, Deployment, check, micro_units
from freehold.settings import Runtime

URLS = ("http://a/v1", "http://b/v1")


def deployment(**fields: Any) -> Deployment:
    return Deployment(name="d", urls=URLS, **{"place": "site", **fields})


def test_weights_are_those_of_the_urls_in_their_order() -> None:
    planned = plan(deployment(weights=(2.0, 0.5)), None, Runtime())  # type: ignore[arg-type]
    assert planned.desired is not None
    assert [(each.url, each.weight) for each in planned.desired.launches] == [
        ("http://a/v1", 2.0),
        ("http://b/v1", 0.5),
    ]
    plain = plan(deployment(), None, Runtime())  # type: ignore[arg-type]
    assert plain.desired is not None
    assert {each.weight for each in plain.desired.launches} == {1.0}


@pytest.mark.parametrize(
    "wrong",
    [deployment(weights=(1.0,)), Deployment(name="d", model="m", weights=(1.0,))],
)
def test_weights_without_their_urls_are_refused(wrong: Deployment) -> None:
    with pytest.raises(Invalid, match="one each"):
        check(wrong)


def test_a_document_gives_back_what_was_written() -> None:
    document = Document(
        deployments=(
            deployment(weights=(2.0, 1.0), cache=Cache(seconds=300), fallbacks=("e",)),
            Deployment(name="e", model="m", cache=Cache(seconds=5, any=True)),
            Deployment(name="f", model="m"),
        )
    )
    assert read_document(write_document(document)) == document


@pytest.mark.parametrize(
    "wrong",
    [
        "cache = {seconds = 0}",
        "cache = {seconds = 5, all = true}",
        "cache = {}",
        "weights = [0.0, 1]",
    ],
)
def test_a_wrong_document_is_refused(wrong: str) -> None:
    with pytest.raises(Invalid):
        read_document(f'[[deployments]]\nname = "d"\nurls = {list(URLS)}\n{wrong}\n')


def test_an_endpoints_task_is_said_and_a_models_is_not() -> None:
    check(Deployment(name="a", urls=("http://h/v1",), place="site", task="rerank"))
    with pytest.raises(Invalid, match="says itself") as caught:
        check(Deployment(name="a", model="m", task="rerank"))
    assert caught.value.param == "task"


@pytest.mark.parametrize(
    ("price", "units"), [(0.0, 0), (0.15, 150_000), (2.5, 2_500_000), (1e-7, 0)]
)
def test_prices_become_whole_micro_units(price: float, units: int) -> None:
    assert micro_units(price) == units


@pytest.mark.parametrize("price", [-0.01, 2_000_000, "1", None])
def test_prices_that_make_no_sense_are_refused(price: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "d", "urls": ["http://x"], "price_in": price}, Deployment)
