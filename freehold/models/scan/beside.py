"""What lies beside a model and is no part of it: it is not kept, but what it is says something."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from freehold.models.scan.checks import executes, found, item
from freehold.models.scan.finding import Finding

MOST_FILES = 1000


def look_beside(files: Mapping[str, Path]) -> tuple[Finding, ...]:
    """Return what of these files runs code: whoever made such a folder may mean to have it run."""
    return tuple(finding for name, path in files.items() for finding in _look(name, path))


def _look(name: str, path: Path) -> Iterator[Finding]:
    it = item(name, path)
    for each in executes(it):
        yield found(it, each.rule, f"it lies beside the model, was left out, and: {each.says}")
