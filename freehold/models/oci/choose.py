"""Which of an artifact's layers are the model, and which its card. Pure."""

import msgspec

from freehold.errors import Invalid
from freehold.models.oci import media
from freehold.models.oci.manifest import TITLE, Descriptor, Manifest, name_of

SIDE_FILES = (".json", ".model", ".txt", ".jinja", ".tiktoken")
CARDS = ("README.md", "readme.md", "MODEL_CARD.md")
SIGNATURES = ("model.sig",)
KNOWN = (".gguf", ".safetensors", ".onnx")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer that is wanted: its blob, its name where it is one file, and how it is packed."""

    blob: Descriptor
    name: str | None
    packed: str = media.RAW


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken of an artifact: files of the model, then what only describes it."""

    files: tuple[Layer, ...]
    card: Layer | None = None
    signature: Layer | None = None


def choose(manifest: Manifest, wanted: str | None) -> Chosen:
    """Return what to fetch; ``wanted`` names one file. ``Invalid`` says what there is instead.

    Where there is a GGUF file, it is the model. Else files of weights come with all that lies
    beside them, configuration and tokenizer; code and data sets are left where they are.
    """
    layers = [layer for each in manifest.layers if (layer := _layer(each)) is not None]
    named = [layer.name for layer in layers if layer.name]
    if len(set(named)) != len(named):
        raise Invalid("invalid.artifact", "the artifact gives two layers one file name")
    card = next((layer for layer in layers if layer.name in CARDS), None)
    signature = next((layer for layer in layers if layer.name in SIGNATURES), None)
    models = _models(layers, named, wanted)
    return Chosen(files=models, card=card, signature=signature)


def only_model(names: list[str], wanted: str | None) -> list[str]:
    """Return which of the files of an unpacked artifact are the model."""
    if wanted is not None:
        if wanted not in names:
            raise _none(names, f"no file {wanted!r:.80}")
        return [wanted]
    found = [name for name in names if name.endswith(".gguf")]
    if len(found) > 1:
        raise _none(found, "several models", "name one by #FILE at the end")
    if found:
        return found
    if not any(name.endswith(KNOWN) for name in names):
        raise _none(names, "no model")
    return [name for name in names if name.endswith((*KNOWN, *SIDE_FILES))]


def _models(layers: list[Layer], named: list[str], wanted: str | None) -> tuple[Layer, ...]:
    packed = [layer for layer in layers if layer.packed != media.RAW]
    bare = [layer for layer in layers if layer.name is None and layer.packed == media.RAW]
    if packed:
        return tuple(packed)  # what they hold is known only once they are here
    if not named and wanted is None and len(bare) == 1:
        return (msgspec.structs.replace(bare[0], name="model.gguf"),)
    names = only_model(named, wanted)
    return tuple(layer for layer in layers if layer.name in names)


def _layer(blob: Descriptor) -> Layer | None:
    """Return a layer that may be of use, None for one that is not."""
    kind = media.packing(blob.media_type)
    if kind is not None:
        holds, packed = kind
        if holds in (media.CODE, media.DATASET):
            return None
        if packed != media.RAW:
            return Layer(blob=blob, name=None, packed=packed) if holds != media.DOC else None
        name = name_of(blob, media.FILEPATH, TITLE)
        if name is None and holds != media.WEIGHT:
            return None
        return Layer(blob=blob, name=name)
    name = name_of(blob, TITLE, media.FILEPATH)
    if name is None and blob.media_type not in media.BARE_GGUF:
        return None
    return Layer(blob=blob, name=name)


def _none(names: list[str], what: str, hint: str = "") -> Invalid:
    listed = ", ".join(sorted(names)[:20]) or "nothing that has a name"
    return Invalid(
        "invalid.artifact",
        f"the artifact holds {what}: there is {listed}{'; ' if hint else ''}{hint}",
        param="source",
    )
