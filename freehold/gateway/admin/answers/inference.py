"""Answers as the Open Inference Protocol gives them, and how this gateway does."""

from typing import Annotated, Literal

import msgspec

from freehold.gateway.admin.answers.chat import Some


class InferenceServer(msgspec.Struct):
    """This server."""

    name: Literal["freehold"]
    version: str
    extensions: list[str]


class TensorAbout(msgspec.Struct):
    """An input or output; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class InferenceModel(msgspec.Struct, kw_only=True):
    """A deployment's inputs and outputs."""

    name: str
    platform: str
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]
    versions: list[str] | msgspec.UnsetType = msgspec.UNSET


class InferenceReady(msgspec.Struct):
    """Whether a deployment can be asked."""

    name: str
    ready: bool


class InferredTensor(msgspec.Struct):
    """An output, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float]


class InferenceAnswer(msgspec.Struct, kw_only=True):
    """What was inferred."""

    model_name: str
    id: str
    outputs: Annotated[list[InferredTensor], Some]
    model_version: str | msgspec.UnsetType = msgspec.UNSET


class Healthy(msgspec.Struct):
    """How this gateway does; ``loading`` names what is waited for."""

    status: Literal["ok", "starting"]
    loading: list[str] = []


class InferenceHealth(msgspec.Struct):
    """The same in the words of the Open Inference Protocol."""

    live: Literal[True]
    ready: bool = False
