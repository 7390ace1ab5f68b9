"""Whose a home is, who holds it, and where it is reached."""

import multiprocessing
import os
import socket
from pathlib import Path

import pytest

from freehold.control.home import Home, write_secret
from freehold.control.keys import Keys, has_keys
from freehold.errors import Broken, Unavailable
from freehold.identity.keys import read_pepper
from freehold.runtime import handover
from freehold.store.database import Database


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_home_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h").chmod(mode)
    with pytest.raises(Unavailable, match="others can write"):
        Home(tmp_path / "h")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "h").mkdir(mode=0o700)
    os.chown(tmp_path / "h", 12345, -1)
    with pytest.raises(Unavailable, match="another user"):
        Home(tmp_path / "h")


def test_a_look_at_the_lock_does_not_keep_it_from_its_owner(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    os.close(home.lock())
    stop = multiprocessing.Event()
    looking = multiprocessing.Process(target=_look, args=(home.root, stop))
    looking.start()
    try:
        for _ in range(50):
            os.close(home.lock())
    finally:
        stop.set()
        looking.join()


def _look(root: Path, stop: "multiprocessing.synchronize.Event") -> None:  # type: ignore[name-defined]
    while not stop.is_set():
        Home.is_locked(root)


def test_only_who_holds_the_home_is_reached(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    assert Home.reach(home.root) is None
    lock = home.lock()
    home.announce("http://127.0.0.1:1", "http://127.0.0.1:2")
    found = Home.reach(home.root)
    assert found is not None
    assert (found.pid, found.control_url) == (os.getpid(), "http://127.0.0.1:2")
    stale = home.endpoint.read_bytes()
    os.close(lock)
    assert Home.reach(home.root) is None  # nobody holds it: whoever listens there is a stranger
    lock = home.lock()  # another one takes the home, and serves nowhere yet
    assert Home.reach(home.root) is None
    assert not home.url.exists()
    home.endpoint.write_bytes(stale.replace(b'"pid":%d' % os.getpid(), b'"pid":1'))
    assert Home.reach(home.root) is None
    os.close(lock)


def test_a_new_pepper_is_never_made_beside_keys(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    assert not has_keys(database)
    keys = Keys(database, read_pepper(tmp_path / "pepper", fresh=True))
    keys.create("ann", "admin", None, 1.0)
    assert has_keys(database)
    (tmp_path / "pepper").unlink()
    with pytest.raises(Broken, match="restore it"):
        read_pepper(tmp_path / "pepper", fresh=not has_keys(database))
    database.close()


def test_a_key_that_cannot_be_kept_is_not_made(tmp_path: Path) -> None:
    database = Database(tmp_path / "f.db")
    keys = Keys(database, b"p" * 32)

    def kept(text: str) -> None:
        write_secret(tmp_path / "no such folder" / "admin.key", text)

    with pytest.raises(OSError, match="No such file"):
        keys.create("admin", "admin", None, 1.0, kept=kept)
    assert not has_keys(database)
    database.close()


def test_a_listener_is_handed_over_at_a_long_path(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "gateway-0.sock"
    path.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handover.offer(listener, path)
        found = handover.receive(path)
        assert found is not None
        assert found.getsockname() == listener.getsockname()
        found.close()
