"""Read an ONNX model's graph, strictly, without its weights and without the ``onnx`` package.

Field numbers are those of ``onnx.proto``. What a reader of the model would do beyond arithmetic is
reported: files outside that it names, operators of domains nobody here knows, code of Python.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from freehold.errors import Invalid
from freehold.models.protobuf import BYTES, VARINT, Budget, Buffer, fields, text

DOMAINS = frozenset(
    {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft",
     "com.microsoft.nchwc", "com.ms.internal.nhwc"}
)  # fmt: skip
"""Operator sets that ONNX Runtime itself brings."""
CODE = frozenset({"PyOp", "PythonOp", "ATen", "PyCustomOp", "PythonOpGrad"})
MOST_NODES = 200_000
DEEPEST = 16
LARGEST = 1 << 36

_MODEL_IR, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 1, 2, 7, 8, 25
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_TENSOR, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_GRAPH_SPARSE = 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 13, 14
_FUNCTION_NODE, _FUNCTION_DOMAIN, _FUNCTION_OPSETS = 7, 10, 9

TYPES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 8: "STRING", 9: "BOOL",
    10: "F16", 11: "F64", 12: "U32", 13: "U64", 16: "BF16", 17: "F8_E4M3", 19: "F8_E5M2",
    21: "U4", 22: "I4", 23: "F4",
}  # fmt: skip


class Graph(msgspec.Struct, kw_only=True):
    """What a model says about itself. ``types`` counts elements of weights by their type."""

    producer: str = ""
    nodes: int = 0
    inputs: list[str] = []
    outputs: list[str] = []
    parameters: int = 0
    types: dict[str, int] = {}
    domains: set[str] = set()
    functions: set[str] = set()
    operators: set[str] = set()
    external: set[str] = set()


def read_graph(path: Path) -> Graph:
    """Read a file; ``Invalid`` when it is no sound ONNX model."""
    size = path.stat().st_size
    if not 16 <= size <= LARGEST:
        raise _invalid(f"a file of {size} bytes is none")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return parse_graph(data, os.fstat(file.fileno()).st_size)


def parse_graph(data: Buffer, size: int) -> Graph:
    """Return the graph of a model of so many bytes."""
    reader = _Reader(data)
    seen: dict[int, int] = {}
    try:
        for field, wire, begin, end in fields(data, 0, size, reader.budget):
            seen[field] = seen.get(field, 0) + 1
            reader.model(field, wire, begin, end)
    except RecursionError as error:
        raise _invalid("it is nested too deeply") from error
    if not seen.get(_MODEL_IR) or seen.get(_MODEL_GRAPH) != 1 or not seen.get(_MODEL_OPSETS):
        raise _invalid("it has no graph, or two")
    return reader.found


def objections(graph: Graph) -> Iterator[tuple[str, str]]:
    """Yield (rule, what) for everything a model wants beyond arithmetic on its own bytes."""
    for place in sorted(graph.external):
        path = PurePosixPath(place.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in place:
            yield "onnx.path", f"it reads weights from {place!r:.100}, outside its folder"
    for domain in sorted(graph.domains - DOMAINS - graph.functions):
        yield "onnx.domain", f"it wants operators of {domain!r:.80}, which come as code"
    for operator in sorted(graph.operators & CODE):
        yield "onnx.code", f"its operator {operator} runs Python"


class _Reader:
    """Collects what matters from all depths of a model."""

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self.budget = Budget()
        self.found = Graph()

    def model(self, field: int, wire: int, begin: int, end: int) -> None:
        if field == _MODEL_PRODUCER and wire == BYTES:
            self.found.producer = text(self._data, begin, end)
        elif field == _MODEL_GRAPH and wire == BYTES:
            self._graph(begin, end, 0)
        elif field == _MODEL_OPSETS and wire == BYTES:
            self._opset(begin, end)
        elif field == _MODEL_FUNCTIONS and wire == BYTES:
            self._function(begin, end)

    def _graph(self, begin: int, end: int, depth: int) -> None:
        if depth > DEEPEST:
            raise _invalid("it is nested too deeply")
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if wire != BYTES:
                continue
            if field == _GRAPH_NODE:
                self._node(start, stop, depth)
            elif field == _GRAPH_TENSOR:
                self._tensor(start, stop)
            elif field == _GRAPH_SPARSE:
                self._sparse(start, stop)
            elif field in (_GRAPH_INPUT, _GRAPH_OUTPUT) and depth == 0:
                named = self.found.inputs if field == _GRAPH_INPUT else self.found.outputs
                named.append(self._first_text(start, stop))

    def _node(self, begin: int, end: int, depth: int) -> None:
        self.found.nodes += 1
        if self.found.nodes > MOST_NODES:
            raise _invalid(f"it has over {MOST_NODES} nodes")
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if wire != BYTES:
                continue
            if field == _NODE_OP:
                self.found.operators.add(text(self._data, start, stop, 256))
            elif field == _NODE_DOMAIN:
                self.found.domains.add(text(self._data, start, stop, 256))
            elif field == _NODE_ATTRIBUTE:
                self._attribute(start, stop, depth)

    def _attribute(self, begin: int, end: int, depth: int) -> None:
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if wire != BYTES:
                continue
            if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(start, stop)
            elif field in (_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES):
                self._sparse(start, stop)
            elif field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(start, stop, depth + 1)

    def _tensor(self, begin: int, end: int) -> None:
        elements, kind, external = 1, 0, False
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if field == _TENSOR_DIMS and wire == VARINT:
                elements *= start
            elif field == _TENSOR_DIMS and wire == BYTES:  # packed
                for size in _packed(self._data, start, stop):
                    elements *= size
            elif field == _TENSOR_TYPE and wire == VARINT:
                kind = start
            elif field == _TENSOR_LOCATION and wire == VARINT:
                external = external or start == 1
            elif field == _TENSOR_EXTERNAL and wire == BYTES:
                self._external(start, stop)
            if elements >= 1 << 53:
                raise _invalid("a tensor has an impossible shape")
        if external and not self.found.external:
            raise _invalid("a tensor lies outside and does not say where")
        name = TYPES.get(kind, f"type {kind}")
        self.found.types[name] = self.found.types.get(name, 0) + elements
        self.found.parameters += elements

    def _sparse(self, begin: int, end: int) -> None:
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if field in (1, 2) and wire == BYTES:
                self._tensor(start, stop)

    def _external(self, begin: int, end: int) -> None:
        said: dict[int, str] = {}
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if wire == BYTES:
                said[field] = text(self._data, start, stop)
        if said.get(1) == "location":
            self.found.external.add(said.get(2, ""))

    def _opset(self, begin: int, end: int) -> None:
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if field == 1 and wire == BYTES:
                self.found.domains.add(text(self._data, start, stop, 256))

    def _function(self, begin: int, end: int) -> None:
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if wire != BYTES:
                continue
            if field == _FUNCTION_NODE:
                self._node(start, stop, 0)
            elif field == _FUNCTION_OPSETS:
                self._opset(start, stop)
            elif field == _FUNCTION_DOMAIN:
                self.found.functions.add(text(self._data, start, stop, 256))

    def _first_text(self, begin: int, end: int) -> str:
        for field, wire, start, stop in fields(self._data, begin, end, self.budget):
            if field == 1 and wire == BYTES:
                return text(self._data, start, stop)
        return ""


def _packed(data: Buffer, begin: int, end: int) -> Iterator[int]:
    value = shift = 0
    for at in range(begin, end):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        if data[at] < 0x80:
            yield value
            value = shift = 0
        elif shift > 63:
            raise _invalid("a shape does not end")


def _invalid(said: str) -> Invalid:
    return Invalid("invalid.onnx", f"cannot use this ONNX model: {said}")
