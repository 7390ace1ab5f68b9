"""``freehold model compress``, ``report`` and ``trial``: smaller, and proof of what it costs."""

from pathlib import Path
from typing import Any

import click
import msgspec

from freehold.cli.client import Client, connected, part
from freehold.cli.command import Options, command
from freehold.cli.names import complete
from freehold.cli.output import emit, follow, table
from freehold.cli.words import plain, size
from freehold.errors import Invalid
from freehold.models.compress import calibration
from freehold.models.compress.page import page
from freehold.models.compress.report import Report
from freehold.models.trial import read_cases

FIRST = 3
"""Differences that a trial shows unasked: enough to see of what kind they are."""


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--max-loss", metavar="SHARE", help="Loss to allow, as 1% or 0.01.")
@click.option("--target-size", metavar="SHARE", help="Size to reach, as 50% or 0.5 of what it is.")
@click.option("--calibration", metavar="FILE", help="Your own text to learn from and judge by.")
@click.option("--tasks", metavar="FILE", help="Your own questions, JSON lines.")
@click.option("--compressor", metavar="PLUGIN", help="Which one does it [by the format].")
@click.option("--no-promote", is_flag=True, help="Leave production where it is.")
def compress(
    options: Options,
    name: str,
    max_loss: str | None,
    target_size: str | None,
    calibration: str | None,
    tasks: str | None,
    compressor: str | None,
    no_promote: bool,
) -> None:
    """Make a smaller version of NAME[:VERSION] and measure what that costs.

    With no option the memory and cores of the machine decide. The new version becomes production
    only when it is within the loss.
    """
    body = {
        "max_loss": _share(max_loss, "--max-loss"),
        "target_size": _share(target_size, "--target-size"),
        "calibration": _calibration(calibration),
        "tasks": _tests(tasks),
        "promote": not no_promote,
        "compressor": compressor.removeprefix("compressor.") if compressor else None,
    }
    with connected(options) as client:
        model, number = resolve(client, name)
        job = client.post(f"/api/models/{part(model)}/versions/{number}/compress", body)
        found = follow(client, job, f"{model}:{number}")
    smaller = 1 - found["bytes_after"] / found["bytes_before"]
    lines = [
        f"{model}:{found['version']}  {size(found['bytes_before'])} -> "
        f"{size(found['bytes_after'])} ({smaller:.0%} smaller)",
        *(f"  {reason}" for reason in found["reasons"]),
        *(f"  launched with {key} {value}" for key, value in found["launch"].items()),
        f"{model}:production is version {found['version']}"
        if found["promoted"]
        else f"not promoted: {model}:{found['version']} runs only when it is named",
        f"report: freehold model report {model}:{found['version']} --page report.html",
    ]
    emit(options, found, "\n".join(lines))


@command()
@click.argument("name", shell_complete=complete("model", "alias", "version"))
@click.option("--page", "target", metavar="FILE", help="Write it as one HTML page.")
def report(options: Options, name: str, target: str | None) -> None:
    """Show what was measured when NAME[:VERSION] was compressed."""
    with connected(options) as client:
        model, number = resolve(client, name)
        found = client.get(f"/api/models/{part(model)}/versions/{number}/report")
    read = msgspec.convert(found, Report)
    if target is not None:
        Path(target).write_text(page(read), encoding="utf-8")
    m = read.measured
    rows = [
        ("size", size(m.bytes_before), size(m.bytes_after), f"{size(m.bytes_full)} at 16 bit"),
        ("loss", "-", f"{m.loss.mean:.5f}", f"{m.loss.low:.5f} to {m.loss.high:.5f}"),
        *(
            (t.name, f"{t.before.mean:.0%}", f"{t.after.mean:.0%}", t.verdict)
            for t in read.tasks
        ),
    ]  # fmt: skip
    rows += [(f"launched with {key}", "", value, "") for key, value in read.launch.items()]
    if read.speed_before and read.speed_after:
        a, b = read.speed_before, read.speed_after
        rows.append(("reads, tokens/s", f"{a.read:.1f}", f"{b.read:.1f}", ""))
        rows.append(("writes, tokens/s", f"{a.write:.1f}", f"{b.write:.1f}", ""))
        rows.append(("memory", size(a.memory), size(b.memory), ""))
    head = ("", f"{model}:{read.parent}", f"{model}:{read.version}", "")
    if read.speed_launched:
        c = read.speed_launched
        told = f"{c.read:.1f} read, {c.write:.1f} written tokens/s, {size(c.memory)}"
        rows.append(("as it is launched", "", told, ""))
    state = "promoted" if read.promoted else "not promoted"
    notes = [f"  {line}" for line in (*read.reasons, *read.tried)]
    text = "\n".join([table(head, rows, ""), "", state, *notes])
    emit(options, found, text)


@command()
@click.argument("a", shell_complete=complete("model", "alias", "version"))
@click.argument("b", shell_complete=complete("model", "alias", "version"))
@click.option("--tests", metavar="FILE", help="Your own questions, JSON lines.")
@click.option("--margin", metavar="SHARE", default="5%", show_default=True,
              help="Change of passed checks that counts as none.")  # fmt: skip
@click.option("--answers", is_flag=True, help="Show all differences, not the first three.")
def trial(options: Options, a: str, b: str, tests: str | None, margin: str, answers: bool) -> None:
    """Ask versions A and B the same questions; say whether B is better, the same or worse.

    Shows what they answered where one passed and the other did not.
    """
    body = {"a": a, "b": b, "tests": _tests(tests), "margin": _share(margin, "--margin")}
    with connected(options) as client:
        found = follow(client, client.post("/api/trials", body), f"{a} against {b}")
    rows = [_outcome(each) for each in (*found["tasks"], found["overall"])]
    head = ("TASK", "CHECKS", found["a"], found["b"], "CHANGE", "95 % INTERVAL", "VERDICT")
    verdict = found["overall"]["verdict"]
    text = f"{table(head, rows, '')}\n\n{found['b']} beside {found['a']}: {verdict}"
    told = found["differences"] if answers else found["differences"][:FIRST]
    parts = [text, *(_difference(each, found["a"], found["b"]) for each in told)]
    if left := found["differing"] - len(told):
        parts.append(f"{left} more differ" + ("" if answers else ": --answers shows them"))
    emit(options, found, "\n\n".join(parts))


def resolve(client: Client, name: str) -> tuple[str, int]:
    """Return a model and the number of the version that a name means."""
    model, _, label = name.partition(":")
    found = client.get(f"/api/models/{part(model)}")
    numbers = [version["number"] for version in found["versions"]]
    label = label or "production"
    number = int(label) if label.isdigit() else found["aliases"].get(label)
    if number not in numbers:
        known = ", ".join(map(str, [*numbers, *found["aliases"]]))
        raise Invalid("missing.version", f"{model} has no version {label}: there is {known}")
    return model, int(number)


def _share(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise Invalid("invalid.usage", f"{option} is a share such as 1% or 0.01, not {text!r:.20}")
    return value


def _calibration(file: str | None) -> str | None:
    if file is None:
        return None
    calibration.read(Path(file))
    return Path(file).read_text(encoding="utf-8")


def _tests(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise Invalid("invalid.tests", f"cannot read {file}: {error.strerror}") from error
    read_cases(data, Path(file).name)
    return data.decode()


def _outcome(each: dict[str, Any]) -> tuple[object, ...]:
    change = each["change"]
    return (
        each["task"], each["cases"], f"{each['before']['mean']:.0%}",
        f"{each['after']['mean']:.0%}", f"{change['mean']:+.1%}",
        f"{change['low']:+.1%} to {change['high']:+.1%}", each["verdict"],
    )  # fmt: skip


def _difference(each: dict[str, Any], a: str, b: str) -> str:
    """Return a case on which two versions part; what was asked and answered, each on one line."""
    rows = [
        ("asked", each["prompt"]),
        ("wanted", each["check"]),
        (f"{a} {'passed' if each['better'] == 'a' else 'failed'}", each["a"]),
        (f"{b} {'passed' if each['better'] == 'b' else 'failed'}", each["b"]),
    ]
    wide = max(len(name) for name, _ in rows)
    lines = ((name.ljust(wide), " ".join(text.split())) for name, text in rows)
    return "\n".join(f"{name}  {plain(text, '')}" for name, text in lines)
