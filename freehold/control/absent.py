"""What brings in a model that is to be deployed and is not here: the command, to be copied."""

from collections.abc import Collection
from contextlib import suppress
from difflib import get_close_matches

from freehold.errors import Invalid, Missing
from freehold.models.naming import check_name


def absent(model: str, here: Collection[str], catalog: Collection[str]) -> Missing:
    """Return the error that tells how ``model``, which is not among those ``here``, gets here."""
    if model in catalog:
        hint = f"it is in the catalog, and freehold model import {model} brings it in"
    elif near := get_close_matches(model, here, 1):
        hint = f"did you mean {near[0]}? If not, {_import(model)} brings it in"
    elif near := get_close_matches(model, catalog, 1):
        hint = f"did you mean {near[0]}? freehold model import {near[0]} brings that in"
    else:
        hint = (
            f"{_import(model)} brings it in, from a file, a folder or an address; freehold model "
            "catalog lists what has a name"
        )
    return Missing("missing.model", f"no model {model!r:.80} here: {hint}", param="model")


def _import(model: str) -> str:
    with suppress(Invalid):
        check_name(model)
        return f"freehold model import SOURCE --name {model}"
    return "freehold model import SOURCE"
