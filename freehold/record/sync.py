"""Make what was written durable, without anybody waiting: by the kernel, or by a thread.

A thread must have the interpreter to begin and to report, which costs a busy event loop more than
the disk does. Linux can be asked to sync a file and to raise a descriptor when that is done.
https://man7.org/linux/man-pages/man2/io_submit.2.html
"""

import asyncio
import ctypes
import os
import platform
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

Done = Callable[[int], None]
"""Called on the loop with 0, or with the number of the error (``errno``)."""

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""The numbers of io_setup, io_destroy, io_getevents, io_submit."""
_SYNC_DATA = 3
_RAISE = 1


class Sync(Protocol):
    """One at a time: ``begin`` again only after ``done``."""

    def begin(self, descriptor: int) -> None:
        """Begin to make a file's data durable; ``OSError`` when that cannot even begin."""
        ...

    def close(self) -> None:
        """Report no more."""
        ...


class _Order(ctypes.Structure):
    """``struct iocb``, for machines with the low byte first."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("how", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("raised", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """``struct io_event``."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("order", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class KernelSync:
    """``OSError`` where this system has no such thing."""

    def __init__(self, done: Done) -> None:
        calls = _CALLS.get(platform.machine())
        if calls is None or sys.platform != "linux":
            raise OSError("not on this system")
        self._setup, self._destroy, self._events, self._submit = map(ctypes.c_long, calls)
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._done = done
        self._context = ctypes.c_ulong(0)
        self._check(self._call(self._setup, ctypes.c_long(1), ctypes.byref(self._context)))
        self._raised = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._order = _Order(opcode=_SYNC_DATA, flags=_RAISE, raised=self._raised)
        self._orders = (ctypes.POINTER(_Order) * 1)(ctypes.pointer(self._order))
        self._event = _Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._raised, self._over)

    def begin(self, descriptor: int) -> None:
        """Ask the kernel."""
        self._order.descriptor = descriptor
        self._check(self._call(self._submit, self._context, ctypes.c_long(1), self._orders))

    def close(self) -> None:
        """Wait for what is under way, and let go."""
        self._loop.remove_reader(self._raised)
        self._call(self._destroy, self._context)
        os.close(self._raised)

    def _over(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._raised)
        one, none = ctypes.c_long(1), ctypes.c_long(0)
        found = ctypes.byref(self._event)
        if self._call(self._events, self._context, none, one, found, None) == 1:
            self._done(-self._event.result if self._event.result < 0 else 0)

    def _check(self, result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class ThreadSync:
    """For any system."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def begin(self, descriptor: int) -> None:
        """Ask the thread."""
        self._orders.put(descriptor)

    def close(self) -> None:
        """Wait for what is under way, and end the thread."""
        self._orders.put(-1)
        self._thread.join()

    def _run(self) -> None:
        while (descriptor := self._orders.get()) >= 0:
            number = 0
            try:
                os.fdatasync(descriptor)
            except OSError as error:
                number = error.errno or -1
            self._loop.call_soon_threadsafe(self._done, number)


def open_sync(done: Done) -> Sync:
    """Return the kernel where it can, else a thread."""
    try:
        return KernelSync(done)
    except OSError:
        return ThreadSync(done)
