"""The vocabulary of a checkpoint as GGUF fields: byte-level BPE, SentencePiece or WordPiece."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from freehold.errors import Invalid
from freehold.models.convert.config import read_json, unfit
from freehold.models.convert.pretokenizer import WHOLE_WORDS, pretokenizer
from freehold.models.convert.recipes import Values
from freehold.models.convert.sentencepiece import BPE, read_pieces

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
NEVER = -1e9
"""The score of a piece that no merge makes: whatever can be merged comes before it."""


class Added(msgspec.Struct, frozen=True):
    """A token that is looked for before all others. Special ones are no text."""

    id: int
    content: str
    special: bool = False


class Tokens(msgspec.Struct):
    """Tokens by id with their kinds and scores; ids without one are padding."""

    texts: list[str]
    kinds: list[int]
    scores: list[float]

    @classmethod
    def empty(cls, size: int) -> "Tokens":
        """Return ``size`` ids without a token."""
        texts = [f"[PAD{number}]" for number in range(size)]
        return cls(texts, [UNUSED] * size, [-10000.0] * size)

    def put(self, number: int, text: str, kind: int, score: float = 0.0) -> None:
        """Set a token; ``Invalid`` when its id is over the size of the model's vocabulary."""
        if not 0 <= number < len(self.texts):
            size = len(self.texts)
            raise unfit(f"its tokenizer has the token {number}, its weights have only {size}")
        self.texts[number], self.kinds[number], self.scores[number] = text, kind, score


def vocabulary(folder: Path, arch: str, size: int) -> Values:
    """Return the fields of a checkpoint's vocabulary of ``size`` tokens.

    Special tokens and the chat template are not among them. ``Invalid`` when llama.cpp would split
    text otherwise than the model's own tokenizer does.
    """
    if (folder / "tokenizer.model").is_file():
        return _from_pieces(folder, size)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise unfit("it comes without tokenizer.json or tokenizer.model")
    tokenizer = read_json(path)
    model = tokenizer.get("model")
    model = model if isinstance(model, dict) else {}
    kind = model.get("type")
    try:
        if kind == "WordPiece" and arch == "bert":
            return _wordpiece(tokenizer, size)
        if kind == "BPE" and arch != "bert":
            spaced = model.get("byte_fallback") is True
            return _spaced(tokenizer, size) if spaced else _bytes(tokenizer, size)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.ValidationError) as error:
        raise unfit(f"its tokenizer.json is not as it should be: {error!r:.160}") from error
    raise unfit(f"its tokenizer is of type {kind!r:.40}, which is not converted for {arch}")


def _bytes(tokenizer: dict[str, Any], size: int) -> Values:
    """Byte-level BPE, as GPT-2 began it."""
    model = tokenizer["model"]
    name = pretokenizer(tokenizer)
    merges = [_pair(merge) for merge in model["merges"]]
    tokens = Tokens.empty(size)
    for text, number in model["vocab"].items():
        tokens.put(number, text, NORMAL)
    added = _added(tokenizer)
    for token in added:
        tokens.put(token.id, token.content, _kind(token))
    _check_whole_words(model, merges, name, {token.content for token in added})
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens.texts,
        "tokenizer.ggml.token_type": tokens.kinds,
        # A merge is two texts with a space between: one inside is written as bytes are.
        "tokenizer.ggml.merges": [
            f"{a.replace(' ', chr(288))} {b.replace(' ', chr(288))}" for a, b in merges
        ],
    }


def _check_whole_words(
    model: dict[str, Any], merges: list[tuple[str, str]], name: str, added: set[str]
) -> None:
    """Refuse what llama.cpp does otherwise: words taken whole that no merge makes, or not."""
    if model.get("ignore_merges", False) is (name in WHOLE_WORDS):
        return
    made = {a + b for a, b in merges}
    alone = [t for t in model["vocab"] if len(t) > 1 and t not in made and t not in added]
    if alone:
        raise unfit(f"its tokenizer has tokens that no merge makes, as {alone[0]!r:.40}")


def _spaced(tokenizer: dict[str, Any], size: int) -> Values:
    """SentencePiece's BPE, written as merges: a piece is worth more the earlier it is merged."""
    model = tokenizer["model"]
    prefix = _prefix(tokenizer)
    scores: dict[str, float] = {}
    last = None
    for rank, merge in enumerate(model["merges"]):
        made = "".join(_pair(merge))
        if made != last and made in scores:
            raise unfit("its merges are in no order that SentencePiece could have")
        scores.setdefault(made, -float(rank))
        last = made
    tokens = Tokens.empty(size)
    unknown = model.get("unk_token")
    for text, number in model["vocab"].items():
        kind = UNKNOWN if text == unknown else BYTE if _is_byte(text) else NORMAL
        tokens.put(number, text, kind, scores.get(text, NEVER))
    _put_added(tokens, _added(tokenizer))
    return _pieces_fields(tokens, prefix=prefix)


def _from_pieces(folder: Path, size: int) -> Values:
    """SentencePiece's own file, and what was added to it later."""
    found = read_pieces(folder / "tokenizer.model")
    if found.model != BPE:
        raise unfit("its tokenizer.model is not of the kind (BPE) that llama.cpp reads for it")
    tokens = Tokens.empty(size)
    for number, piece in enumerate(found.pieces[:size]):
        tokens.put(number, piece.text, piece.kind, piece.score)
    if (folder / "added_tokens.json").is_file():
        more = msgspec.convert(read_json(folder / "added_tokens.json"), dict[str, int])
        _put_added(tokens, [Added(number, text) for text, number in more.items()])
    if (folder / "tokenizer_config.json").is_file():
        named = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
        try:
            _put_added(tokens, [_named(number, each) for number, each in named.items()])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise unfit("its tokenizer_config.json names added tokens wrongly") from error
    return _pieces_fields(tokens, prefix=found.prefix)


def _pieces_fields(tokens: Tokens, *, prefix: bool) -> Values:
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens.texts,
        "tokenizer.ggml.scores": tokens.scores,
        "tokenizer.ggml.token_type": tokens.kinds,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def _wordpiece(tokenizer: dict[str, Any], size: int) -> Values:
    """BERT's WordPiece: the beginning of a word is marked, where BERT marks what follows."""
    model, normalizer = tokenizer["model"], tokenizer["normalizer"]
    if (tokenizer.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer":
        raise unfit("its tokenizer splits text otherwise than BERT does")
    if normalizer.get("type") != "BertNormalizer" or not normalizer.get("clean_text", True):
        raise unfit("its tokenizer changes text otherwise than BERT does")
    if normalizer.get("lowercase") is not True or normalizer.get("strip_accents") is False:
        raise unfit("its tokenizer keeps capitals or accents, which llama.cpp takes away")
    added = {token.id for token in _added(tokenizer)}
    mark = model.get("continuing_subword_prefix", "##")
    tokens = Tokens.empty(size)
    for text, number in model["vocab"].items():
        if number in added:
            tokens.put(number, text, CONTROL)
        else:
            inside = text.startswith(mark)
            tokens.put(number, text.removeprefix(mark) if inside else SPACE + text, NORMAL)
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens.texts,
        "tokenizer.ggml.token_type": tokens.kinds,
    }


def _prefix(tokenizer: dict[str, Any]) -> bool:
    """Say whether a space is put before all text; ``Invalid`` for what SentencePiece never does."""
    prefix, spaces = False, False
    for step in _flat(tokenizer.get("normalizer"), "normalizers"):
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            prefix = True
        elif step.get("type") == "Replace" and step.get("content") == SPACE:
            spaces = step.get("pattern") == {"String": " "}
        else:
            raise unfit(f"its tokenizer changes text by {step.get('type')!r:.40}")
    for step in _flat(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Metaspace" and step.get("replacement") == SPACE:
            prefix = prefix or step.get("prepend_scheme", "always") != "never"
            spaces = True
        elif step.get("type") != "Split" or step.get("pattern") != {"String": " "}:
            raise unfit(f"its tokenizer splits text by {step.get('type')!r:.40}")
    if not spaces:
        raise unfit(f"its tokenizer does not write spaces as {SPACE}")
    return prefix


def _flat(definition: Any, inner: str) -> Iterable[dict[str, Any]]:
    if definition is None:
        return []
    found = definition.get(inner) if definition.get("type") == "Sequence" else [definition]
    return list(found)


def _added(tokenizer: dict[str, Any]) -> list[Added]:
    return msgspec.convert(tokenizer.get("added_tokens") or [], list[Added])


def _named(number: str, fields: Mapping[str, Any]) -> Added:
    return Added(int(number), str(fields["content"]), bool(fields.get("special")))


def _put_added(tokens: Tokens, added: Iterable[Added]) -> None:
    for token in added:
        if not 0 <= token.id < len(tokens.texts):
            continue  # named for the processor of images, without weights
        kind = _kind(token)
        text = token.content if kind == CONTROL else token.content.replace(SPACE, " ")
        tokens.put(token.id, text, kind, -1000.0)


def _kind(token: Added) -> int:
    """Return what an added token is; some that no text should make are not marked as special."""
    text = token.content
    marked = text.startswith("<|") and text.endswith("|>")
    unused = text.startswith("<unused") and text.endswith(">")
    if token.special or marked or unused or text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return CONTROL
    return USER_DEFINED


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _pair(merge: Any) -> tuple[str, str]:
    """Return a merge, written as one text with a space or as two."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise Invalid("invalid.checkpoint", f"cannot convert this model: the merge {merge!r:.60}")
    return parts[0], parts[1]
