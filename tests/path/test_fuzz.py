"""A short run of ``bench.fuzz``: no answer outside our own OpenAPI document, none of 500."""

from collections.abc import Callable

from bench.fuzz import complaints, fuzz
from tests.fake_engine import fake_engine
from tests.house import House


def test_no_request_gets_an_answer_that_is_not_documented(new_house: Callable[..., House]) -> None:
    house = new_house(empty=True).start()
    with fake_engine() as engine:
        house.cli("deploy", "--url", engine.url, "--as", "fake", "--wait")
        report = fuzz(house, examples=2, seconds=8, seed=1)
    assert "No issues found" in report, report
    assert complaints(house) == []
