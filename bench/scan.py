"""What a scan catches and what it calls by mistake, beside the scanners others use.

    python -m bench.scan [--more FOLDER]

Tricks are those of ``tests/evasive.py``, sound files those of ``tests/benign.py`` and every file of
FOLDER (real chat templates, say). Peers are installed into ``bench/.work`` by themselves, and each
is given the files of a trick alone, in its own process, and 20 seconds for each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.stage import WORK
from freehold.builtin.source_folder import Folder
from freehold.errors import FreeholdError
from freehold.models.identify import identify
from freehold.models.scan.scan import scan
from freehold.models.source import Origin
from freehold.settings import Scan, Sources
from tests.benign import benign
from tests.evasive import evasives, write
from tests.make_safetensors import folder

PEERS = ("picklescan", "modelscan", "modelaudit", "fickling")
INSTALL = ("picklescan==1.0.5", "modelscan==0.8.8", "modelaudit==0.2.54", "fickling==0.1.12")

DRIVER = """
import json, os, signal, sys, time
name, listed = sys.argv[1], json.load(sys.stdin)
os.environ["PROMPTFOO_DISABLE_TELEMETRY"] = os.environ["NO_ANALYTICS"] = "1"
out, sys.stdout = sys.stdout, sys.stderr
if name == "picklescan":
    from picklescan.scanner import SafetyLevel, scan_file_path
    def flagged(path):
        found = scan_file_path(path)
        return found.infected_files > 0
elif name == "modelscan":
    from modelscan.modelscan import ModelScan
    def flagged(path):
        made = ModelScan()
        made.scan(path)
        if made.errors and not made.issues.all_issues:
            raise ValueError
        return bool(made.issues.all_issues)
elif name == "modelaudit":
    from modelaudit.core import scan_model_directory_or_file
    def flagged(path):
        found = scan_model_directory_or_file(path).model_dump()
        said = [str(getattr(i["severity"], "value", i["severity"])) for i in found["issues"]]
        return bool({"critical", "warning"} & set(said))
else:
    from fickling import is_likely_safe
    def flagged(path):
        return not is_likely_safe(path)
def late(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, late)
answers = {}
for key, paths in listed.items():
    begun, said = time.perf_counter(), "no"
    for path in paths:
        signal.alarm(20)
        try:
            said = "yes" if flagged(path) else said
        except BaseException:
            said = "error" if said == "no" else said
        signal.alarm(0)
    answers[key] = [said, time.perf_counter() - begun]
json.dump(answers, out)
"""


def main() -> None:
    """Print the table, and keep it beside the other results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--more", type=Path, help="a folder of further sound files")
    WORK.mkdir(exist_ok=True)
    found = measure(parser.parse_args().more)
    report.keep("scan", found)
    report.write()


def measure(more: Path | None = None) -> dict[str, Any]:
    """Run everything; return the counts."""
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        root = Path(place)
        tricks = _tricks(root / "tricks")
        sound = _sound(root / "sound", more)
        ours = {name: _ours(root / "tricks" / name) for name in tricks}
        ours_sound = {name: _ours_file(path) for name, [path] in sound.items()}
        others = {peer: _peer(peer, tricks) for peer in PEERS}
        others_sound = {peer: _peer(peer, sound) for peer in PEERS}
    _print(ours, others)
    return {
        "tricks": len(tricks),
        "sound files": len(sound),
        "freehold": _counts(ours, ours_sound),
        **{peer: _counts(others[peer], others_sound[peer]) for peer in PEERS},
    }


def _tricks(root: Path) -> dict[str, list[str]]:
    found = {}
    for trick in evasives(root / "marker"):
        write(trick, root / trick.name, folder)
        names = [*trick.files, *trick.links]
        found[trick.name] = [str(root / trick.name / name) for name in names]
    return found


def _sound(root: Path, more: Path | None) -> dict[str, list[str]]:
    found = {}
    for name, data in benign().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        found[name] = [str(path)]
    for path in sorted(more.iterdir()) if more else []:
        found[path.name] = [str(path.absolute())]
    return found


def _ours(place: Path) -> tuple[str, float]:
    begun = time.perf_counter()
    try:
        origin = Origin(source="folder", location=str(place))
        files = Folder(Sources()).fetch(origin, place, lambda *_: None).files
        said = "yes" if scan(files, Scan(), lambda *_: None) else "no"
        identify(files)
    except FreeholdError:
        said = "yes"
    return said, time.perf_counter() - begun


def _ours_file(path: str) -> tuple[str, float]:
    begun = time.perf_counter()
    try:
        said = "yes" if scan({Path(path).name: Path(path)}, Scan(), lambda *_: None) else "no"
    except FreeholdError:
        said = "error"
    return said, time.perf_counter() - begun


def _peer(name: str, listed: dict[str, list[str]]) -> dict[str, tuple[str, float]]:
    ran = subprocess.run(
        [_python(), "-c", DRIVER, name], input=json.dumps(listed), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return {key: (said, seconds) for key, (said, seconds) in json.loads(ran.stdout).items()}


def _python() -> Path:
    venv = WORK / "scanners"
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *INSTALL, "numpy"], check=True)
        (venv / "ready").touch()
    return venv / "bin" / "python"


def _counts(
    tricks: dict[str, tuple[str, float]], sound: dict[str, tuple[str, float]]
) -> dict[str, Any]:
    return {
        "caught": sum(said == "yes" for said, _ in tricks.values()),
        "failed on": sum(said == "error" for said, _ in tricks.values()),
        "false alarms": sum(said == "yes" for said, _ in sound.values()),
        "failed on sound files": sum(said == "error" for said, _ in sound.values()),
        "milliseconds a sound file": round(
            1000 * statistics.median(seconds for _, seconds in sound.values()), 1
        ),
    }


def _print(
    ours: dict[str, tuple[str, float]], others: dict[str, dict[str, tuple[str, float]]]
) -> None:
    known = {trick.name: trick.known_as for trick in evasives(Path("/marker"))}
    print(f"{'trick':<32}{'known as':<28}{'freehold':<12}" + "".join(f"{p:<12}" for p in PEERS))
    for name, (said, _) in ours.items():
        row = "".join(f"{others[peer][name][0]:<12}" for peer in PEERS)
        print(f"{name:<32}{known[name]:<28}{said:<12}{row}")


if __name__ == "__main__":
    main()
