"""ONNX graphs are walked to every depth, and nothing outside them is read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import Invalid
from freehold.models.onnx import objections, parse_graph, read_graph
from tests.make_onnx import field, node, onnx, tensor


def _rules(data: bytes) -> list[str]:
    return [rule for rule, _ in objections(parse_graph(data, len(data)))]


def test_a_sound_model(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx(tensors=(tensor("a", (3, 4)), tensor("b", (5,)))))
    graph = read_graph(path)
    assert (graph.parameters, graph.types) == (17, {"F32": 17})
    assert graph.inputs == ["input_ids", "attention_mask"]
    assert graph.operators == {"MatMul"}
    assert list(objections(graph)) == []


@pytest.mark.parametrize(
    "place",
    ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "\\\\host\\x", "file:///etc/passwd"],
)
def test_weights_outside_are_refused(place: str) -> None:
    assert _rules(onnx(tensors=(tensor("w", external=place),))) == ["onnx.path"]


def test_weights_beside_are_not() -> None:
    data = onnx(tensors=(tensor("w", external="model.onnx_data"),))
    assert _rules(data) == []
    assert parse_graph(data, len(data)).external == {"model.onnx_data"}


@pytest.mark.parametrize(
    "data",
    [
        onnx(domains=("", "evil")),
        onnx(nodes=(node("Run", "evil"),)),
        # In a graph within an attribute of a node, as branches of If are.
        onnx(nodes=(node(attributes=field(5, field(6, field(1, node("Run", "evil"))))),)),
        onnx() + field(25, field(7, node("Run", "evil")) + field(10, "mine")),
    ],
)
def test_operators_that_come_as_code_are_refused(data: bytes) -> None:
    assert _rules(data) == ["onnx.domain"]


def test_functions_of_the_model_itself_are_not() -> None:
    data = onnx(nodes=(node("Twice", "mine"),)) + field(25, field(7, node()) + field(10, "mine"))
    assert _rules(data) == []


def test_python_operators_are_refused() -> None:
    assert _rules(onnx(nodes=(node("PyOp"),))) == ["onnx.code"]


def test_weights_outside_in_a_nested_graph_are_seen() -> None:
    inner = field(5, tensor("w", external="/etc/passwd"))
    assert _rules(onnx(nodes=(node(attributes=field(5, field(6, inner))),))) == ["onnx.path"]
    held = field(5, field(5, tensor("w", external="/etc/passwd")))
    assert _rules(onnx(nodes=(node(attributes=held),))) == ["onnx.path"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no graph"),
        (field(1, 8) + field(8, b""), "no graph, or two"),
        (onnx() + field(7, b""), "no graph, or two"),
        (onnx()[:-3], "over what is there"),
        (b"\xff" * 30, "does not end"),
        (b"\x00\x01", "no field 0"),
        (b"\x0b\x01", "not in use"),
        (onnx(tensors=(field(14, 1),)), "does not say where"),
        (onnx(tensors=(tensor("w", (1 << 40, 1 << 40, 0))[:-8],)), "impossible shape|over what"),
        (onnx(nodes=(field(4, b"\xff"),)), "not UTF-8"),
        (onnx(nodes=(field(4, "x" * 300),)), "has 300 bytes"),
    ],
)
def test_what_is_wrong_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_graph(data, len(data))


def test_nesting_is_bounded() -> None:
    inner = b""
    for _ in range(40):
        inner = field(1, node(attributes=field(5, field(6, inner))))
    with pytest.raises(Invalid, match="nested too deeply"):
        parse_graph(onnx(nodes=(node(attributes=field(5, field(6, inner))),)), 1 << 16)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        parse_graph(data, len(data))
    except Invalid:
        return
