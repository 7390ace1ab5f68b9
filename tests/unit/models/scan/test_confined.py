"""A child has little of everything, and whatever ends it is told apart."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

from freehold.errors import Unavailable
from freehold.models.scan.confined import Stopped, Task, confined

SLOW = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_time_is_its_own() -> None:
    with pytest.raises(Stopped, match="too much time"):
        confined(Task(act="render", texts=(SLOW,), seconds=1))


def test_whoever_ends_it_from_outside_accuses_no_file() -> None:
    def end() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                with suppress(psutil.Error):  # others of ours come and go meanwhile
                    if "freehold.models.scan.child" in child.cmdline():
                        time.sleep(0.2)
                        os.kill(child.pid, signal.SIGKILL)
                        return
            time.sleep(0.01)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(Unavailable, match="ended from outside"):
        confined(Task(act="render", texts=(SLOW,), seconds=30))
    thread.join()


def test_it_reaches_no_network_and_starts_nothing() -> None:
    code = (
        "import socket, subprocess, os\n"
        "from freehold.models.scan.child import confine\n"
        "from freehold.models.scan.confined import Task\n"
        "confine(Task(act='render', memory=1 << 29, seconds=5))\n"
        "for act in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "            lambda: socket.getaddrinfo('localhost', 9),\n"
        "            lambda: subprocess.run(['true']), lambda: os.system('true'),\n"
        "            lambda: os.execv('/bin/true', ['true'])):\n"
        "    try:\n"
        "        act()\n"
        "    except PermissionError as error:\n"
        "        assert 'a scan does not do' in str(error)\n"
        "    else:\n"
        "        raise SystemExit('it could')\n"
        "try:\n"
        "    bytearray(1 << 30)\n"
        "except MemoryError:\n"
        "    print('confined')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("confined", "")
