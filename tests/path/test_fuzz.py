"""A short run of ``bench.fuzz``: no answer outside our own OpenAPI document, none of 500."""

from collections.abc import Callable

from bench.fuzz import LEFT_OUT, complaints, furnish, fuzz
from tests.fake_engine import fake_engine
from tests.house import House


def test_no_request_gets_an_answer_that_is_not_documented(new_house: Callable[..., House]) -> None:
    house = new_house(empty=True)
    with fake_engine() as engine:
        furnish(house, engine)
        report = fuzz(house, examples=2, seconds=12, seed=1)
    assert report.count("No issues found") == 2, report
    assert complaints(house) == []


def test_nothing_is_left_out_without_a_reason(house: House) -> None:
    paths = house.call("GET", "/api/openapi.json").json["paths"]
    assert all(method in paths[path] and reason for (method, path), reason in LEFT_OUT.items())
    assert len(LEFT_OUT) < 3
