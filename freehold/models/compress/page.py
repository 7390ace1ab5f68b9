"""A report as one HTML page that needs nothing but itself. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from freehold.models.compress.order import Measured, Point
from freehold.models.compress.report import Report, Speed
from freehold.models.intervals import Interval

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;
color:#1b1f24}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #d8dee4}th{font-weight:600}
td.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:#116329}.no{color:#a40e26}
svg{width:100%;height:auto}.note{color:#57606a}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}td,th{border-color:#30363d}
.ok{color:#56d364}.no{color:#ff7b72}.note{color:#9198a1}}
"""
_WIDE, _HIGH, _EDGE = 720, 300, 56


def page(report: Report) -> str:
    """Return the page."""
    m = report.measured
    title = f"{report.model}:{report.version}, compressed from {report.model}:{report.parent}"
    state = "promoted" if report.promoted else "not promoted"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="{"ok" if report.promoted else "no"}">{state}</p>',
        _list(report.reasons),
        "<h2>Size</h2>",
        _table(
            ("", "bytes", "of 16 bit"),
            (
                ("16 bit", _bytes(m.bytes_full), "100 %"),
                (f"version {report.parent}", _bytes(m.bytes_before), _share(m.bytes_before, m)),
                (f"version {report.version}", _bytes(m.bytes_after), _share(m.bytes_after, m)),
            ),
        ),
        _notes(report),
        "<h2>Loss</h2>",
        _table(("metric", "mean", "95 % interval"), _losses(report)),
        "<h2>Tasks</h2>",
        _tasks(report),
        "<h2>Speed and memory on this machine</h2>",
        _table(
            ("", "reads, tokens/s", "writes, tokens/s", "resident"),
            (
                ("before", *_speed(report.speed_before)),
                ("after", *_speed(report.speed_after)),
                ("after, as it is launched", *_speed(report.speed_launched)),
            ),
        ),
        "<h2>Launch</h2>",
        _table(("setting", "value"), report.launch.items()),
        _list(report.tried, "note"),
        "<h2>What could have been</h2>",
        _plot(m.line, Point(m.bytes_after, m.loss.mean), report.limit),
        '<p class="note">The line is what was foreseen for every mixture of types, the dot what '
        "was built and measured, the dashed line the loss that was agreed to.</p>",
        "<h2>Tensors</h2>",
        _table(
            ("tensor", "shape", "before", "after", "bytes before", "bytes after", "loss foreseen"),
            (
                (
                    t.name, " x ".join(map(str, t.shape)), t.before, t.after,
                    f"{t.bytes_before:,}", f"{t.bytes_after:,}", _loss(t.loss),
                )
                for t in m.tensors
            ),
        ),
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "".join(parts)
        + "</body></html>\n"
    )


def _tasks(report: Report) -> str:
    if not report.tasks:
        return '<p class="note">none were asked</p>'
    rows = (
        (
            t.name, t.cases, f"{t.before.mean:.0%}", f"{t.after.mean:.0%}",
            f"{t.change.mean:+.1%}", _range(t.change, "+.1%"), t.verdict,
        )
        for t in report.tasks
    )  # fmt: skip
    head = ("task", "checks", "before", "after", "change", "95 % interval", "verdict")
    return _table(head, rows)


def _notes(report: Report) -> str:
    m = report.measured
    made = datetime.fromtimestamp(report.made, UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = [
        f"made {made}; {report.chosen}; calibration text: {report.calibration}",
        f"sha256:{report.digest}, from sha256:{report.parent_digest}",
        f"{m.tokens_judged:,} positions judged, {m.cpu_seconds:.0f} CPU seconds, "
        f"{m.peak_memory / 1e9:.1f} GB at most",
    ]
    if m.dequantised:
        notes.append(
            "The source was quantised already: what it is compared with is the source as 16-bit "
            "floats, not the model it was made from."
        )
    if m.tied:
        notes.append("Token embedding and output were one matrix, stored twice: now once.")
    notes += [f"compressor {report.compressor}: {report.method}"] if report.method else []
    return _list(notes, "note")


def _losses(report: Report) -> Iterable[tuple[object, ...]]:
    m = report.measured
    name = {"kl": "divergence, nats a token", "cosine": "1 - cosine"}.get(
        m.metric, "square difference of scores by their spread"
    )
    yield name, f"{m.loss.mean:.5f}", _range(m.loss, ".5f")
    if m.perplexity is not None:
        change = f"{m.perplexity_before:.3f} to {m.perplexity_after:.3f}"
        rise = m.perplexity
        yield f"perplexity, {change}", f"{rise.mean:+.2%}", _range(rise, "+.2%")
    if m.agreement is not None:
        yield "same first choice", f"{m.agreement.mean:.2%}", _range(m.agreement, ".2%")
    if m.retrieval is not None:
        told = "same order" if m.metric == "score" else "same five nearest"
        yield told, f"{m.retrieval.mean:.2%}", _range(m.retrieval, ".2%")
    for cache, interval in m.caches.items():
        if cache != "F16":
            more = f"more with key-value cache {cache}"
            yield more, f"{interval.mean:+.5f}", _range(interval, "+.5f")


def _plot(line: Iterable[Point], made: Point, limit: float) -> str:
    points = [p for p in line if p.loss > 0] or [made]
    widest = max(p.bytes for p in [*points, made])
    least = min(p.bytes for p in [*points, made])
    highest = min(max(p.loss for p in [*points, made]), max(8 * limit, 2 * made.loss))

    def x(size: float) -> float:
        return _EDGE + (size - least) / max(1, widest - least) * (_WIDE - 2 * _EDGE)

    def y(loss: float) -> float:
        return _HIGH - _EDGE + min(loss / highest, 1) * (2 * _EDGE - _HIGH)

    path = " ".join(f"{x(p.bytes):.1f},{y(p.loss):.1f}" for p in points if p.loss <= highest)
    ticks = "".join(
        f'<text x="{x(size):.0f}" y="{_HIGH - 30}" text-anchor="middle" font-size="12" '
        f'fill="currentColor">{size / 1e6:.0f} MB</text>'
        for size in (least, (least + widest) / 2, widest)
    ) + "".join(
        f'<text x="{_EDGE - 8}" y="{y(loss) + 4:.0f}" text-anchor="end" font-size="12" '
        f'fill="currentColor">{loss:.3f}</text>'
        for loss in (0, limit, highest)
    )
    return (
        f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="loss by size">'
        f'<line x1="{_EDGE}" x2="{_WIDE - _EDGE}" y1="{y(0):.1f}" y2="{y(0):.1f}" '
        'stroke="currentColor"/>'
        f'<line x1="{_EDGE}" x2="{_WIDE - _EDGE}" y1="{y(limit):.1f}" y2="{y(limit):.1f}" '
        'stroke="#bf8700" stroke-dasharray="6 4"/>'
        f'<polyline points="{path}" fill="none" stroke="#0969da" stroke-width="2"/>'
        f'<circle cx="{x(made.bytes):.1f}" cy="{y(made.loss):.1f}" r="5" fill="#a40e26"/>'
        f"{ticks}</svg>"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td{_number(cell)}>{escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _number(cell: object) -> str:
    return ' class="n"' if str(cell)[:1] in "+-0123456789" else ""


def _list(lines: Iterable[str], kind: str = "") -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(x)}</li>" for x in lines) + "</ul>"


def _bytes(size: int) -> str:
    return f"{size:,}"


def _loss(loss: float | None) -> str:
    return "not measured alone" if loss is None else f"{loss:.6f}"


def _share(size: int, measured: Measured) -> str:
    return f"{size / measured.bytes_full:.1%}"


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _speed(speed: Speed | None) -> tuple[str, str, str]:
    if speed is None:
        return "not measured", "not measured", "not measured"
    return f"{speed.read:.1f}", f"{speed.write:.1f}", f"{speed.memory / 1e6:,.0f} MB"
