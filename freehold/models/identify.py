"""What do these files make? One model in one of the formats we know, or nothing we take in."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from freehold.errors import FreeholdError, Invalid
from freehold.models import gguf, onnx, safetensors, strict_json
from freehold.models.card import licence_of, read_card
from freehold.models.checkpoint import describe_adapter, describe_checkpoint, describe_onnx
from freehold.models.licence import together
from freehold.models.manifest import Manifest, Tokenizer, describe
from freehold.models.scan.kind import EXECUTES, HEAD, kind_of
from freehold.store.versions import Artifact

INDEX = "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
LONGEST_CARD = 1024 * 1024
LONGEST_CONFIG = 4 * 1024 * 1024


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """A model in its files. ``main`` is the file, or the first of those, that hold its weights.

    ``companions`` are raw weights that no format of their own describes: those of an ONNX graph.
    """

    format: str
    manifest: Manifest
    main: str
    companions: frozenset[str] = frozenset()


def identify(files: Mapping[str, Path]) -> Identified:
    """Return what the files make; ``Invalid`` when that is no model, or several."""
    weights = sorted(name for name in files if name.endswith(".gguf"))
    others = any(name.endswith((".safetensors", ".onnx")) for name in files)
    if weights or (len(files) == 1 and not others):
        return _gguf(files, weights or list(files))
    if ADAPTER in files and ADAPTER_CONFIG in files:
        return _adapter(files)
    if any(name.endswith(".safetensors") for name in files):
        return _safetensors(files)
    if graphs := sorted(name for name in files if name.endswith(".onnx")):
        return _onnx(files, graphs)
    raise Invalid(
        "invalid.source",
        f"these files hold no weights in GGUF, safetensors or ONNX: {', '.join(list(files)[:8])}",
        param="source",
    )


def digest_of(artifacts: Sequence[Artifact], form: str) -> str:
    """Return the digest by which a version is known: of its file, or of the list of its files.

    A model in one file is pinned by what ``sha256sum`` prints of that. One in several is pinned by
    the SHA-256 of their lines ``digest  name``, in the order of names, as ``sha256sum`` prints
    them.
    """
    if form == "gguf":
        return artifacts[0].digest
    lines = [f"{each.digest}  {each.name}\n" for each in sorted(artifacts, key=lambda a: a.name)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _gguf(files: Mapping[str, Path], weights: Sequence[str]) -> Identified:
    if len(weights) != 1:
        raise Invalid(
            "invalid.source", f"there are several models: name one of {', '.join(weights[:20])}"
        )
    manifest = describe(gguf.read_header(files[weights[0]]))
    return Identified(format="gguf", manifest=manifest, main=weights[0])


def _safetensors(files: Mapping[str, Path]) -> Identified:
    names = [name for name in files if name.endswith(".safetensors") and "/" not in name]
    _check_kinds({name: files[name] for name in names})
    config = _json(files, "config.json")
    shards = {name: safetensors.read_header(files[name]) for name in sorted(names)}
    if not shards:
        raise Invalid("invalid.source", "its safetensors do not lie beside its config.json")
    if INDEX in files:
        safetensors.check_shards(safetensors.read_index(_read(files[INDEX])), shards)
    elif len(shards) > 1:
        raise Invalid(
            "invalid.safetensors",
            f"{len(shards)} safetensors files and no {INDEX}: which of them are the model?",
            param="source",
        )
    manifest = describe_checkpoint(
        config,
        shards.values(),
        _tokenizer(files, config),
        _template(files),
        _card(files),
        embeds="modules.json" in files,
    )
    if not manifest.parameters:
        raise Invalid("invalid.safetensors", "cannot use this model: it holds no tensors")
    return Identified(format="safetensors", manifest=manifest, main=next(iter(shards)))


def _check_kinds(files: Mapping[str, Path]) -> None:
    """Say what weights really are, before it is said that something is missing beside them."""
    for name, path in files.items():
        with path.open("rb") as file:
            kind, title = kind_of(name, file.read(HEAD))
        if kind in EXECUTES:
            raise Invalid(
                "invalid.safetensors",
                f"{name} is no safetensors file: it is {title}; {EXECUTES[kind]}",
                param="source",
            )


def _adapter(files: Mapping[str, Path]) -> Identified:
    header = safetensors.read_header(files[ADAPTER])
    manifest = describe_adapter(_json(files, ADAPTER_CONFIG), header, _card(files))
    return Identified(format="safetensors", manifest=manifest, main=ADAPTER)


def _onnx(files: Mapping[str, Path], graphs: Sequence[str]) -> Identified:
    if len(graphs) > 1:
        raise Invalid(
            "invalid.source",
            f"there are several ONNX models, keep one: {', '.join(graphs[:20])}",
            param="source",
        )
    graph = onnx.read_graph(files[graphs[0]])
    folder = PurePosixPath(graphs[0]).parent
    external = {str(folder / place) for place in graph.external}
    if absent := sorted(external - set(files)):
        raise Invalid(
            "invalid.onnx", f"its weights in {absent[0]!r:.100} are not among its files",
            param="source",
        )  # fmt: skip
    config = _json(files, "config.json") if "config.json" in files else {}
    manifest = describe_onnx(config, graph, _tokenizer(files, config), _card(files))
    return Identified(
        format="onnx", manifest=manifest, main=graphs[0], companions=frozenset(external)
    )


def _tokenizer(files: Mapping[str, Path], config: Mapping[str, Any]) -> Tokenizer | None:
    held = next(
        (n for n in ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json") if n in files),
        None,
    )
    if held is None:
        return None
    told = _json(files, "tokenizer_config.json") if "tokenizer_config.json" in files else {}
    inner = config.get("text_config")
    size = (inner if isinstance(inner, dict) else config).get("vocab_size")
    kind = told.get("tokenizer_class")
    with files[held].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Tokenizer(
        model=kind if isinstance(kind, str) else None,
        pre=None,
        tokens=size if isinstance(size, int) and not isinstance(size, bool) else None,
        sha256=digest,
    )


def _template(files: Mapping[str, Path]) -> str | None:
    """Return the chat template that a loader would take: the newest way of keeping it first."""
    if "chat_template.jinja" in files:
        return _read(files["chat_template.jinja"]).decode("utf-8", "replace") or None
    for name in ("chat_template.json", "tokenizer_config.json"):
        if name not in files:
            continue
        found = _json(files, name).get("chat_template")
        if isinstance(found, list):  # several by name
            named = {e.get("name"): e.get("template") for e in found if isinstance(e, dict)}
            found = named.get("default") or next(iter(named.values()), None)
        if isinstance(found, str) and found:
            return found
    return None


def _card(files: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the model card says, and as its licence also what the licence files are."""
    card: dict[str, Any] = {}
    for name, path in files.items():
        if name.lower() == "readme.md":
            card = read_card(_read(path, LONGEST_CARD, part=True).decode("utf-8", "replace"))
    for name, path in files.items():
        if name.lower().partition(".")[0] in ("license", "licence", "copying"):
            text = _read(path, LONGEST_CARD, part=True).decode("utf-8", "replace")
            card["license"] = together(card.get("license"), licence_of(text))
    return card


def _json(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    if name not in files:
        raise Invalid(
            "invalid.source",
            f"there is no {name} beside the weights: import the whole folder of the model",
            param="source",
        )
    found = strict_json.decode(_read(files[name]), name, LONGEST_CONFIG)
    if not isinstance(found, dict):
        raise Invalid("invalid.config", f"cannot use this model: {name} is no JSON object")
    return found


def _read(path: Path, most: int = LONGEST_CONFIG, *, part: bool = False) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most and not part:
        raise Invalid("invalid.config", f"cannot use this model: {path.name} is over {most} bytes")
    return data[:most]


def named(error: FreeholdError, files: Mapping[str, Path]) -> Invalid:
    """Return an error about a model's files that says which, where there is only one."""
    only = next(iter(files.values())).name if len(files) == 1 else ""
    text = f"{only}: {error.message}" if only and only not in error.message else error.message
    return Invalid(error.code, text, param="source")
