"""Numbers as Prometheus reads them: its text format 0.0.4, or OpenMetrics 1.0."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from freehold.record.families import FAMILIES, Family
from freehold.record.meter import Sample

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SUFFIXES = MappingProxyType({"counter": "_total", "info": "_info"})
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def negotiate(accept: str | None) -> str:
    """Return the content type for a scraper's ``Accept`` header."""
    return OPENMETRICS if "application/openmetrics-text" in (accept or "") else TEXT


def render(found: Mapping[str, Sequence[Sample]], content_type: str) -> bytes:
    """Return every family that has a sample, in the order of ``FAMILIES``."""
    strict = content_type == OPENMETRICS
    lines: list[str] = []
    for family in FAMILIES:
        if samples := found.get(family.name):
            lines += _head(family, strict=strict)
            for sample in samples:
                lines += _lines(family, sample)
    if strict:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _head(family: Family, *, strict: bool) -> Iterator[str]:
    name = family.name if strict else family.name + _suffix(family)
    kind = "gauge" if family.kind == "info" and not strict else family.kind
    yield f"# HELP {name} {family.help.translate(_ESCAPES) if strict else family.help}"
    yield f"# TYPE {name} {kind}"
    if strict and family.unit:
        yield f"# UNIT {name} {family.unit}"


def _lines(family: Family, sample: Sample) -> Iterator[str]:
    pairs = [
        f'{name}="{value.translate(_ESCAPES)}"'
        for name, value in zip(family.labels, sample.labels, strict=True)
        if value
    ]
    if family.kind != "histogram":
        yield f"{family.name}{_suffix(family)}{_braces(pairs)} {_number(sample.numbers[0])}"
        return
    *counts, total = sample.numbers
    below = 0.0
    bounds = [*map(repr, map(float, family.buckets)), "+Inf"]
    for bound, count in zip(bounds, counts, strict=True):
        below += count
        labels = _braces([*pairs, f'le="{bound}"'])
        yield f"{family.name}_bucket{labels} {_number(below)}"
    yield f"{family.name}_count{_braces(pairs)} {_number(below)}"
    yield f"{family.name}_sum{_braces(pairs)} {_number(total)}"


def _suffix(family: Family) -> str:
    return SUFFIXES.get(family.kind, "")


def _braces(pairs: Sequence[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
