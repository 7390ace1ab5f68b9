"""What an error means over HTTP."""

import json

import pytest

from freehold import errors
from freehold.errors import FreeholdError, NoCapacity, Unauthenticated
from freehold.gateway.faults import STATUS, engine_fault, fault, read_engine_fault


def test_every_error_has_a_status_of_its_own_class_or_a_parents() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and k is not FreeholdError]
    mapped = {kind for kind, _, _ in STATUS}
    for kind in kinds:
        if issubclass(kind, FreeholdError):
            assert mapped & set(kind.__mro__) - {FreeholdError, Exception, BaseException, object}
    order = [kind for kind, _, _ in STATUS]
    for index, kind in enumerate(order):
        assert not any(issubclass(later, kind) for later in order[index + 1 :])


def test_the_envelope() -> None:
    found = fault(NoCapacity("a.b", "later", retry_after=0.2, details={"progress": 0.5}), "req-1")
    error = json.loads(found.body)["error"]
    assert found.status == 503
    assert ("retry-after", "1") in found.headers
    assert error == {
        "message": "later", "type": "unavailable_error", "code": "a.b", "param": None,
        "src": "freehold", "id": "req-1", "details": {"progress": 0.5},
    }  # fmt: skip
    assert any(
        name == "www-authenticate" for name, _ in fault(Unauthenticated("x", "y"), "").headers
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "m", "type": "t"}}', "m"),
        (b'{"error": "text"}', "text"),
        (b'{"detail": "d"}', "d"),
        (b"<html>", "<html>"),
        (b"", "the engine answered 418"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"error": {"message": "' + b"x" * 9000 + b'"}}', "x" * 2000),
    ],
)
def test_an_engines_error_is_read_whatever_its_shape(body: bytes, message: str) -> None:
    found = engine_fault(read_engine_fault(418, body), "req-1")
    error = json.loads(found.body)["error"]
    assert (found.status, error["message"], error["src"]) == (418, message, "engine")


def test_a_long_context_has_openais_code() -> None:
    body = b'{"error": {"message": "request exceeds the available context size"}}'
    assert read_engine_fault(400, body).code == "context_length_exceeded"
