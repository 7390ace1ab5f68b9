"""``POST /v2/models/{name}/infer``: the Open Inference Protocol, texts in and embeddings out."""

from collections.abc import Iterator
from math import prod
from typing import Annotated, Any

import msgspec

from freehold.errors import Invalid
from freehold.gateway.faults import Fault, Form
from freehold.gateway.wire.call import Call, read_fields
from freehold.gateway.wire.dialect import Dialect, Reply
from freehold.gateway.wire.events import EventWriter
from freehold.gateway.wire.message import cannot, fields_of
from freehold.gateway.wire.vectors import read_vectors

INPUT = {"name": "text", "datatype": "BYTES", "shape": [-1]}
OUTPUT = {"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}
FORM = Form(
    body=lambda found: msgspec.json.encode({"error": _words(found)}), id_header="x-request-id"
)
"""The protocol's errors are one text."""


class Tensor(msgspec.Struct):
    """An input."""

    name: str
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class Wanted(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Request(msgspec.Struct):
    """An inference request."""

    inputs: Annotated[list[Tensor], msgspec.Meta(min_length=1, max_length=1)]
    id: str | None = None
    outputs: list[Wanted] | None = None
    parameters: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(Request)


class Inference:
    """One request for the model ``name``; ``version`` is told in the answer, where there is one."""

    def __init__(self, name: str, version: str | None) -> None:
        self._name = name
        self._version = version
        self._request: Request
        self._texts: list[str]
        self.dialect = Dialect(
            name="infer", read=self._read, writer=EventWriter, render=self._render
        )

    def _read(self, body: bytes) -> Call:
        self._request, _ = read_fields(body, _DECODER)
        self._texts = texts_of(self._request)
        return Call(
            task="embedding",
            path="/embeddings",
            model=self._name,
            stream=False,
            wants_usage=False,
            prompt=len(body) // 4,
            tokens=0,
            fields=fields_of({"input": self._texts}, {}),
            streams=False,
        )

    def _render(self, _call: Call, reply: Reply, request_id: str) -> bytes:
        vectors = read_vectors(reply.data, len(self._texts))
        output = {
            "name": OUTPUT["name"],
            "datatype": OUTPUT["datatype"],
            "shape": [len(vectors), len(vectors[0])],
            "data": [number for vector in vectors for number in vector],
        }
        return msgspec.json.encode(
            {
                "model_name": self._name,
                **({"model_version": self._version} if self._version else {}),
                "id": self._request.id or request_id,
                "outputs": [output],
            }
        )


def texts_of(request: Request) -> list[str]:
    """Return the texts of the one input, checked against its shape."""
    tensor = request.inputs[0]
    if tensor.datatype != "BYTES":
        raise cannot("inputs[0].datatype", f"{tensor.datatype:.20} is not BYTES")
    for index, wanted in enumerate(request.outputs or ()):
        if wanted.name != OUTPUT["name"]:
            raise cannot(f"outputs[{index}].name", f"there is only {OUTPUT['name']}")
    texts = list(_flat(tensor.data))
    if not texts or len(texts) != prod(tensor.shape):
        raise Invalid(
            "invalid.request",
            f"inputs[0].data has {len(texts)} elements, its shape says {prod(tensor.shape)}",
            param="inputs[0].shape",
        )
    return texts


def _flat(data: list[Any]) -> Iterator[str]:
    for each in data:
        if isinstance(each, list):
            yield from _flat(each)
        elif isinstance(each, str) and each:
            yield each
        else:
            raise Invalid(
                "invalid.request", "the elements of BYTES are texts here", param="inputs[0].data"
            )


def _words(found: Fault) -> str:
    return f"{found.problem.message} ({found.code})"
