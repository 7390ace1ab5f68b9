"""A wall clock that a test sets, for every process of a house: it is the machine's, moved.

Python imports this at its start where ``PYTHONPATH`` leads here. How far the clock is moved, in
seconds, is in the file that ``TEST_CLOCK`` names, and may change at any moment. Clocks that only
run on (``time.monotonic``) are not moved, as a machine's are not.
"""

import mmap
import os
import struct
import time

_true, _true_ns = time.time, time.time_ns

with open(os.environ["TEST_CLOCK"], "rb") as _file:  # noqa: PTH123 - imported by every process
    _moved = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _by() -> float:
    found: float = struct.unpack("d", _moved[:8])[0]
    return found


def _time() -> float:
    return _true() + _by()


def _time_ns() -> int:
    return _true_ns() + int(_by() * 1e9)


time.time, time.time_ns = _time, _time_ns
