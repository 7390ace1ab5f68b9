"""What a model's code may do: compute, and nothing else."""

import pytest

from freehold.models.sandbox import allowed, runs

ESCAPES = [
    "import os",
    "import sys as math",
    "from os import system",
    "from re import enum",
    "from typing import get_type_hints",
    "from functools import singledispatch",
    "from . import x",
    "__import__('os')",
    "().__class__.__bases__",
    "open('/etc/passwd')",
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "getattr(1, 'real')",
    "getattr = 1\ngetattr",
    "globals()",
    "f'{().__class__}'",
    "'{0.__class__}'.format(1)",
    "format = 1\n'{0.__class__}'.format(1)",
    "import re\nclass A: pass\nA.sys = 1\nre.enum.sys",
    "import re\nx = re\nclass A: pass\nA.enum = A.sys = 1\nx.enum.sys",
    "import re\ndef f(x): return x\nclass A: pass\nA.enum = 1\nf(re).enum",
    "import math, re\nmath = re",
    "def g():\n    yield 1\nclass A: pass\nA.gi_frame = A.f_globals = 1\ng().gi_frame.f_globals",
    "class A: pass\nA.tb_frame = 1\ntry:\n    1/0\nexcept Exception as e:\n    e.tb_frame",
    "match 1:\n    case int(real=x):\n        pass",
    "class A:\n    def __getattr__(self, n):\n        return n",
    "def f():\n    global open",
    "import string\nstring.Formatter",
    "lambda: open",
    "[open for _ in '1']",
    "async def f(): pass",
    "def (",
]


@pytest.mark.parametrize("code", ESCAPES, ids=range(len(ESCAPES)))
def test_what_could_reach_out_is_not_run(code: str) -> None:
    assert not allowed(code)
    assert not runs(code, "")


def test_a_program_of_any_length_is_not_run() -> None:
    assert not runs("x = 1\n" * 20_000, "")


def test_honest_code_runs() -> None:
    code = (
        "import math\nfrom collections import Counter, defaultdict\nfrom typing import List\n"
        "class Box:\n    def __init__(self, x: int) -> None:\n        self.x = x\n"
        "def f(words: List[str]) -> str:\n"
        "    counts = defaultdict(int)\n    for w in words:\n        counts[w.lower()] += 1\n"
        "    return max(counts.items(), key=lambda pair: pair[1])[0]\n"
    )
    then = "assert f(['a', 'B', 'b']) == 'b'\nassert Box(3).x == 3\nassert math.sqrt(4) == 2\n"
    assert runs(code, then + "assert Counter('aab').most_common(1) == [('a', 2)]")


@pytest.mark.parametrize(
    "code",
    [
        "assert 1 == 2",
        "while True: pass",
        "x = [0] * 10**10",
        "def f(): f()\nf()",
        "raise KeyError",
    ],
)
def test_what_fails_or_never_ends_does_not_pass(code: str) -> None:
    assert allowed(code)
    assert not runs(code, "")
