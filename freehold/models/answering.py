"""The child that asks a model: an ``Exam`` on standard input, ``Marks`` on standard output.

The engine's own server runs in this process, so templates, batches and caches are those that
serve. Checks run here too: a pattern that never ends takes this process and no other.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import psutil

from freehold.models.trial import Case, passes

SPEED = (
    "Tell a long story about a lighthouse keeper who repairs clocks, with many details about the "
    "sea, the weather, the people of the village and the sound of each clock. "
)
DRAFT_MODEL = 1
"""llama.cpp's number for speculation by a model of its own."""


class Exam(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask of which weights. ``chat`` says whether the model has a chat template.

    ``cache`` is the type of the key-value cache; ``context`` in tokens, enough where none is given.
    """

    weights: str
    cases: tuple[Case, ...] = ()
    chat: bool = True
    threads: int = 1
    slots: int = 4
    speed: bool = True
    draft: str | None = None
    cache: str | None = None
    context: int | None = None


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: per case whether it passed, and the answer; tokens a second; bytes."""

    passed: tuple[bool, ...] = ()
    answers: tuple[str, ...] = ()
    read: float = 0.0
    write: float = 0.0
    memory: int = 0
    cpu_seconds: float = 0.0


def sit(exam: Exam, tell: Callable[[object], None]) -> Marks:
    """Ask everything; blocks."""
    server = _server(exam)

    def ask(case: Case) -> str:
        return _text(_ask(server, exam, case.prompt, case.tokens))

    passed, answers = [], []
    with ThreadPoolExecutor(exam.slots) as asking:
        for case, answer in zip(exam.cases, asking.map(ask, exam.cases), strict=True):
            answers.append(answer)
            passed.append(passes(case.check, answer) if case.check else True)
            tell({"stage": "tasks", "share": len(passed) / len(exam.cases)})
    read = write = 0.0
    if exam.speed:
        tell({"stage": "speed", "share": 0.0})
        timed = _ask(server, exam, SPEED * 4, 32).get("timings", {})
        read, write = timed.get("prompt_per_second", 0.0), timed.get("predicted_per_second", 0.0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Marks(
        passed=tuple(passed),
        answers=tuple(answers),
        read=round(float(read), 2),
        write=round(float(write), 2),
        memory=psutil.Process().memory_info().rss,
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 1),
    )


def _server(exam: Exam) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = exam.weights
    params.n_ctx = exam.context or 2048 * exam.slots
    params.n_parallel = exam.slots
    params.cpuparams.n_threads = exam.threads
    params.cpuparams_batch.n_threads = exam.threads
    params.verbosity = 0
    params.use_jinja = True
    params.ui = False
    if exam.context:
        params.kv_unified = True  # as engines are launched
    if exam.cache is not None:
        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{exam.cache.upper()}")
        params.cache_type_k = params.cache_type_v = kind
    if exam.draft is not None:
        params.speculative.draft.mparams.path = exam.draft
        params.speculative.types = [DRAFT_MODEL]
    return xllamacpp.Server(params)


def _ask(server: Any, exam: Exam, prompt: str, tokens: int) -> dict[str, Any]:
    rest = {"max_tokens": tokens, "temperature": 0, "cache_prompt": False, "seed": 1}
    if exam.chat:
        body = {"messages": [{"role": "user", "content": prompt}], **rest}
        found = server.handle_chat_completions(body)
    else:
        found = server.handle_completions({"prompt": f"{prompt}\nAnswer:", **rest})
    return found if isinstance(found, dict) else {}


def _text(found: dict[str, Any]) -> str:
    if "choices" in found:
        choice = found["choices"][0]
        return str(choice.get("message", {}).get("content") or choice.get("text") or "")
    return str(found.get("content", ""))


def main() -> None:
    """Read the exam, sit it, hand it in."""
    exam = msgspec.json.decode(sys.stdin.buffer.read(), type=Exam)
    told = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(document: object) -> None:
        told.write(msgspec.json.encode(document) + b"\n")

    code = 1
    try:
        Path(exam.weights).stat()
        began = time.monotonic()
        marks = sit(exam, tell)
        tell({"marks": msgspec.to_builtins(marks), "seconds": round(time.monotonic() - began, 2)})
        code = 0
    except Exception as error:  # noqa: BLE001  # the last words of a child
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.stderr.flush()
    # The server's threads never end by themselves.
    os._exit(code)


if __name__ == "__main__":
    os.umask(0o077)
    main()
