"""A process is known by its number and birth, whatever the wall clock does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from psutil import _pslinux

from freehold.runtime import process
from freehold.runtime.process import Identity
from tests.house import eventually

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_step_of_the_clock_changes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = process.spawn(SLEEP, tmp_path / "log")
    before = _pslinux.boot_time
    monkeypatch.setattr(_pslinux, "boot_time", lambda: before() + 3600)
    assert process.is_alive(identity)
    process.send(identity, signal.SIGKILL)
    eventually(lambda: not process.is_alive(identity), "its end")


def test_another_process_of_that_number_is_not_it(tmp_path: Path) -> None:
    identity = process.spawn(SLEEP, tmp_path / "log")
    boot, _, ticks = identity.started.partition(":")
    for started in ("", f"{boot}:{int(ticks) + 1}", f"other:{ticks}"):
        other = Identity(identity.pid, started)
        assert not process.is_alive(other)
        process.send(other, signal.SIGKILL)
    assert process.is_alive(identity)
    process.send(identity, signal.SIGKILL)


def test_what_was_started_for_an_owner_is_found_without_a_record(tmp_path: Path) -> None:
    environment = dict(os.environ)
    mine = process.spawn(SLEEP, tmp_path / "log", environment=environment, owner=tmp_path / "a")
    other = process.spawn(SLEEP, tmp_path / "log", environment=environment, owner=tmp_path / "b")
    assert process.owned_by(tmp_path / "a") == [mine]
    for identity in (mine, other):
        process.send(identity, signal.SIGKILL)
    eventually(lambda: not process.owned_by(tmp_path / "a"), "its end")


def test_a_signal_to_somebody_elses_process_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "kill", refused)
    started = process.birth(os.getpid())
    assert started is not None
    process.send(Identity(os.getpid(), started), signal.SIGTERM)


def test_a_big_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(process.LOG_BYTES)
    child = process.spawn([sys.executable, "-c", "print('new')"], log)
    eventually(lambda: not process.is_alive(child), "its end")
    assert log.read_text() == "new\n"
    assert (log.parent / "engine.log.1").stat().st_size == process.LOG_BYTES


def test_two_files_of_one_name_do_not_meet_while_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "x.partial").mkdir()
    process.write_private(tmp_path / "x.json", 1)
    assert process.read_private(tmp_path / "x.json", int) == 1


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "its end")
    assert process.birth(child.pid) is None
    child.wait()
