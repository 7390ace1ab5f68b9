"""The ``config.json`` of a checkpoint: numbers asked for by name, and never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from freehold.errors import Invalid
from freehold.models import strict_json

LARGEST = 128 * 1024 * 1024


class Config:
    """What a ``config.json`` says; where it nests the text model, that part comes first."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        nested = document.get("text_config")
        self._fields = {**document, **(nested if isinstance(nested, dict) else {})}
        self._own = document

    @property
    def architecture(self) -> str:
        """The class that the checkpoint was saved from."""
        names = self._own.get("architectures")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise unfit("its config.json does not name one architecture")
        return names[0]

    def has(self, name: str) -> bool:
        """Say whether a field is set."""
        return self._fields.get(name) is not None

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number above 0."""
        value = self._fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise unfit(f"its config.json has {name} = {value!r:.40}, no number above 0")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """Return a number above 0."""
        value = self._fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise unfit(f"its config.json has {name} = {value!r:.40}, no number above 0")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a field that is true or false."""
        value = self._fields.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise unfit(f"its config.json has {name} = {value!r:.40}, neither true nor false")
        return value

    def get(self, name: str) -> Any:
        """Return whatever a field holds, None when it is not there."""
        return self._fields.get(name)

    def expect(self, name: str, *allowed: object) -> None:
        """Raise ``Invalid`` when a field is set to what llama.cpp would not compute."""
        value = self._fields.get(name)
        if value is not None and value not in allowed:
            known = ", ".join(map(str, allowed))
            raise unfit(f"its config.json has {name} = {value!r:.60}; llama.cpp knows {known}")

    @property
    def head(self) -> int:
        """Numbers in an attention head."""
        return self.whole("head_dim", self.whole("hidden_size") // self.heads)

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.whole("num_attention_heads")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values of a layer."""
        return self.whole("num_key_value_heads", self.heads)

    def rope(self) -> dict[str, Any]:
        """Return how positions are turned: ``rope_type``, ``factor``, ``rope_theta``, ...

        Older files spread that over several fields.
        """
        found = self._fields.get("rope_parameters") or self._fields.get("rope_scaling") or {}
        if not isinstance(found, dict):
            raise unfit(f"its config.json has rope_scaling = {found!r:.60}")
        found = dict(found.get("full_attention") or found)
        found.setdefault("rope_type", found.get("type") or "default")
        if self.has("rope_theta"):
            found.setdefault("rope_theta", self.get("rope_theta"))
        return found


def unfit(text: str) -> Invalid:
    """Return the error of a checkpoint that cannot be converted."""
    return Invalid("invalid.checkpoint", f"cannot convert this model: {text}")


def read_json(path: Path, name: str | None = None) -> dict[str, Any]:
    """Read a small JSON file that holds an object; ``name`` is what errors call it."""
    name = name or path.name
    if not path.is_file():
        raise unfit(f"it comes without {name}")
    found = strict_json.decode(path.read_bytes(), f"its {name}", LARGEST)
    if not isinstance(found, dict):
        raise unfit(f"its {name} does not hold an object")
    return found
