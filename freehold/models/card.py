"""What a model card says in its head, and what a licence file is. Pure: texts in.

A card's head is YAML between two lines of dashes. Of YAML only this is read: names with a text or a
list of texts. What is written otherwise is left out, never guessed at.
"""

import re
from types import MappingProxyType

LONGEST_HEAD = 64 * 1024
_LINE = re.compile(r"([A-Za-z_][\w-]*)\s*:\s*(.*)")
_ITEM = re.compile(r"\s*-\s+(.+)")

LICENCES = MappingProxyType(
    {
        "apache-2.0": ("apache license", "version 2.0"),
        "mit": ("permission is hereby granted, free of charge", "the software is provided"),
        "gemma": ("gemma terms of use",),
        "llama2": ("llama 2 community license",),
        "llama3.1": ("llama 3.1 community license",),
        "llama3.2": ("llama 3.2 community license",),
        "llama3.3": ("llama 3.3 community license",),
        "llama4": ("llama 4 community license",),
        "llama3": ("meta llama 3 community license",),
        "agpl-3.0": ("gnu affero general public license", "version 3"),
        "lgpl-3.0": ("gnu lesser general public license", "version 3"),
        "gpl-3.0": ("gnu general public license", "version 3"),
        "cc-by-nc-sa-4.0": ("attribution-noncommercial-sharealike 4.0",),
        "cc-by-nc-4.0": ("attribution-noncommercial 4.0",),
        "cc-by-sa-4.0": ("attribution-sharealike 4.0",),
        "cc-by-4.0": ("attribution 4.0 international",),
        "bsd-3-clause": ("redistribution and use in source and binary forms", "neither the name"),
        "bsd-2-clause": ("redistribution and use in source and binary forms",),
        "openrail": ("open rail",),
        "bigscience-bloom-rail-1.0": ("bigscience rail license",),
        "deepseek": ("deepseek license agreement",),
        "qwen-research": ("qwen research license",),
        "qwen": ("tongyi qianwen license",),
        "mrl": ("mistral ai research license",),
        "mnpl": ("mistral ai non-production license",),
    }
)  # fmt: skip
"""A licence to what its text says near its beginning; the first that fits counts."""


def read_card(text: str) -> dict[str, str | list[str]]:
    """Return the head of a model card: names to a text or several; empty where it has none."""
    lines = text[:LONGEST_HEAD].lstrip("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str | list[str]] = {}
    name = ""
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        if named := _LINE.fullmatch(line):
            name = named[1]
            value = named[2].strip()
            found[name] = _listed(value) if value.startswith("[") else _plain(value)
        elif (item := _ITEM.fullmatch(line)) and name:
            before = found[name]
            listed = before if isinstance(before, list) else []
            if not before or isinstance(before, list):
                found[name] = [*listed, _plain(item[1])]
    return {}


def licence_of(text: str) -> str | None:
    """Return which licence a licence file is, None when it is none of those known."""
    start = re.sub(r"\s+", " ", text[:20_000].lower())
    for licence, signs in LICENCES.items():
        if all(sign in start for sign in signs):
            return licence
    return None


def _listed(value: str) -> list[str]:
    return [_plain(each) for each in value.strip("[]").split(",") if each.strip()]


def _plain(value: str) -> str:
    value = re.sub(r"\s+#.*$", "", value.strip())
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value[:200]
