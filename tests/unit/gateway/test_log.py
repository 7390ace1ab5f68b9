"""Every line of the log is one JSON object."""

import json
import logging
from collections.abc import Iterator

import pytest

from freehold.gateway.log import Log, configure_logging
from freehold.record.entry import Entry
from freehold.settings import Log as Settings


class _Exchange:
    id, method, path = "req-1", "POST", "/v1/chat/completions"


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    yield
    root.handlers[:], level = kept
    root.setLevel(level)


def _written(
    capsys: pytest.CaptureFixture[str], settings: Settings, *entries: Entry
) -> list[dict[str, object]]:
    configure_logging(settings)
    log = Log("gateway-0", settings)
    for entry in entries:
        log.request(_Exchange(), entry)  # type: ignore[arg-type]
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def _entry(outcome: str) -> Entry:
    return Entry(id="req-1", at=0.0, action="completion:run", outcome=outcome, requested="secret")


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (Settings(), ["refused", "failed"]),
        (Settings(access=True), ["ok", "cancelled", "refused", "failed"]),
        (Settings(level="error"), ["failed"]),
        (Settings(level="error", access=True), ["ok", "cancelled", "refused", "failed"]),
    ],
)
@pytest.mark.usefixtures("restored")
def test_which_requests_get_a_line(
    capsys: pytest.CaptureFixture[str], settings: Settings, written: list[str]
) -> None:
    outcomes = ("ok", "cancelled", "refused", "failed")
    lines = _written(capsys, settings, *map(_entry, outcomes))
    assert [line["outcome"] for line in lines] == written
    assert all("secret" not in json.dumps(line) for line in lines)
    assert all(line["at"] == "1970-01-01T00:00:00.000Z" for line in lines)


@pytest.mark.usefixtures("restored")
def test_everything_else_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    Log("gateway-0").crash(_Exchange(), ValueError('a "quoted"\nproblem'))  # type: ignore[arg-type]
    logging.getLogger("other").warning("said %s", "so\nand so")
    logging.getLogger("other").info("not said")
    crash, said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (crash["level"], crash["logger"]) == ("error", "freehold.gateway-0")
    assert crash["message"] == 'req-1 ValueError: a "quoted"\nproblem\n'
    assert said["message"] == "said so\nand so"


@pytest.mark.usefixtures("restored")
def test_an_exporter_does_not_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings())
    for number in range(10):
        logging.getLogger("opentelemetry.exporter").error("cannot send %d", number)
        logging.getLogger("other").error("cannot send %d", number)
    assert len(capsys.readouterr().err.splitlines()) == 11
