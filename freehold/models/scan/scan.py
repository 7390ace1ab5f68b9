"""Scan the files of a model: our own reading, then what others say, then what hooks say.

Everything here is about effects; what is wrong with a file is decided in ``checks`` and
``template``. Whoever should have said something and did not has not said "fine".
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from freehold.errors import Unavailable
from freehold.models.scan.checks import NEEDS_OPINION, Item, examine, found, item
from freehold.models.scan.clam import Clamd
from freehold.models.scan.confined import Said, Stopped, Task, confined
from freehold.models.scan.finding import Finding
from freehold.models.source import Progress
from freehold.settings import Scan

MOST_FINDINGS = 200


def scan(
    files: Mapping[str, Path],
    settings: Scan,
    progress: Progress,
    companions: frozenset[str] = frozenset(),
) -> tuple[Finding, ...]:
    """Return everything found in the files of a model, by their names within it.

    ``companions`` are raw weights that a sound file of the model names and describes. Raises
    ``Invalid`` for a file that is no sound file of its kind, and ``Unavailable`` when whoever must
    be asked cannot be.
    """
    items = [item(name, path) for name, path in files.items()]
    total = sum(each.size for each in items)
    progress("scan", 0, total)
    findings: list[Finding] = []
    for each in items:
        findings += examine(each)
    suspected = {finding.file for finding in findings}
    findings += _rendered([each for each in items if each.templates], settings)
    findings += _second_opinion(
        [
            each
            for each in items
            if each.kind in NEEDS_OPINION and each.name not in suspected | companions
        ],
        settings,
    )
    findings += _yara(items, settings)
    findings += _clamav(items, settings, progress, total)
    return tuple(dict.fromkeys(findings))[:MOST_FINDINGS]


def _rendered(items: Sequence[Item], settings: Scan) -> list[Finding]:
    """Judge and render templates in a child: all together, or each by itself if stopped."""
    of = [(each, where) for each in items for where, _ in each.templates]
    texts = tuple(text for each in items for _, text in each.templates)
    if not texts:
        return []
    task = Task(act="render", texts=texts, seconds=settings.template_seconds, memory=1 << 29)
    try:
        said = confined(task)
    except Stopped as error:
        if len(items) > 1:
            return [one for each in items for one in _rendered([each], settings)]
        text = f"judging its template was stopped: {error}"
        return [found(items[0], "template.bomb", text)]
    return [
        found(of[place][0], rule, f"{of[place][1]} {says}") for rule, place, says, _ in said.found
    ]


def _second_opinion(items: Sequence[Item], settings: Scan) -> list[Finding]:
    if not items:
        return []
    names = ", ".join(each.name for each in items[:5])
    try:
        said = _ask("opinion", items, settings)
    except Stopped as error:
        return [found(each, "opinion.none", f"asking about it failed: {error}") for each in items]
    if said.missing:
        raise Unavailable(
            "unavailable.scan",
            f"{names}: not of a kind that is read here, and a second opinion needs "
            "pip install 'freehold[scan]'; or leave it out, if the model works without it",
            param="source",
        )
    return [found(items[place], rule, says, by) for rule, place, says, by in said.found]


def _yara(items: Sequence[Item], settings: Scan) -> list[Finding]:
    if not settings.yara or not items:
        return []
    try:
        said = _ask("yara", items, settings, rules="\n".join(settings.yara))
    except Stopped as error:
        raise Unavailable(
            "unavailable.yara",
            f"YARA did not answer ({error}): nothing is taken in unscanned; check scan.yara",
        ) from error
    if said.missing:
        raise Unavailable(
            "unavailable.yara", "scan.yara is set and needs pip install 'freehold[scan]'"
        )
    return [found(items[place], rule, says, by) for rule, place, says, by in said.found]


def _ask(act: str, items: Sequence[Item], settings: Scan, rules: str = "") -> Said:
    paths = tuple(str(each.path.absolute()) for each in items)
    seconds = settings.seconds + sum(each.size for each in items) // (20 << 20)
    names = tuple(each.name for each in items)
    return confined(Task(act=act, paths=paths, names=names, rules=rules, seconds=seconds))


def _clamav(items: Sequence[Item], settings: Scan, progress: Progress, total: int) -> list[Finding]:
    if not settings.clamd:
        return []
    daemon = Clamd(settings.clamd, settings.clamd_window, settings.clamd_timeout)
    daemon.prove()
    findings, before = [], 0
    for each in items:
        name = daemon.check(each.path, partial(_report, progress, before, total))
        if name is not None:
            findings.append(found(each, "clamav.match", f"holds {name}", "clamav"))
        before += each.size
    return findings


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress("scan", before + done, total)
