"""How a byte-level vocabulary splits text before it merges: llama.cpp's name for it.

Read off the definition in ``tokenizer.json``, not guessed from a model's name: what is defined
otherwise than llama.cpp does it is refused.
"""

from types import MappingProxyType
from typing import Any

from freehold.models.convert.config import unfit

_CONTRACTED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = MappingProxyType(
    {
        _CONTRACTED + r"|\p{N}{1,3}" + _REST: "llama-bpe",
        _CONTRACTED + r"|\p{N}" + _REST: "qwen2",
    }
)
_NORMALIZERS: MappingProxyType[str, tuple[str | None, ...]] = MappingProxyType(
    {
        "llama-bpe": (None,),
        "qwen2": (None, "NFC"),
        "smollm": (None,),
        "gpt-2": (None,),
    }
)
WHOLE_WORDS = frozenset({"llama-bpe"})
"""Those with which llama.cpp takes a word that is a token as it is, without merging."""


def pretokenizer(tokenizer: dict[str, Any]) -> str:
    """Return the name of a tokenizer's way to split; ``Invalid`` when llama.cpp has none for it."""
    name = _name(tokenizer.get("pre_tokenizer"))
    if name is None:
        shown = str(tokenizer.get("pre_tokenizer"))
        raise unfit(f"its tokenizer splits text in a way that is not known here: {shown:.300}")
    normalizer = tokenizer.get("normalizer")
    kind = normalizer.get("type") if isinstance(normalizer, dict) else None
    if kind not in _NORMALIZERS[name]:
        raise unfit(f"its tokenizer changes text by {kind!r:.40} first, which llama.cpp does not")
    return name


def _name(definition: Any) -> str | None:
    steps = _steps(definition)
    match [step.get("type") for step in steps]:
        case ["ByteLevel"] if _is_bytes(steps[0], splits=True):
            return "gpt-2"
        case ["Digits", "ByteLevel"] if _is_bytes(steps[1], splits=True):
            return "smollm" if steps[0].get("individual_digits") is True else None
        case ["Split", "ByteLevel"] if _is_bytes(steps[1], splits=False):
            pattern = steps[0].get("pattern")
            whole = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
            found = pattern.get("Regex") if isinstance(pattern, dict) and whole else None
            return _PATTERNS.get(found) if isinstance(found, str) else None
        case _:
            return None


def _steps(definition: Any) -> list[dict[str, Any]]:
    if not isinstance(definition, dict):
        return []
    if definition.get("type") != "Sequence":
        return [definition]
    steps = definition.get("pretokenizers")
    found = steps if isinstance(steps, list) else []
    return [step if isinstance(step, dict) else {} for step in found]


def _is_bytes(step: dict[str, Any], *, splits: bool) -> bool:
    return step.get("use_regex", True) is splits and step.get("add_prefix_space") is False
