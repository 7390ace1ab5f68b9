"""Marks: shared by processes, bounded, forgetful."""

import subprocess
import sys
from pathlib import Path

from freehold.store.marks import Marks


def test_marks_are_seen_by_every_process_and_outlive_it(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from freehold.store.marks import Marks\n"
        "Marks(Path(sys.argv[1])).add(-(1 << 62)); os._exit(9)"
    )
    marks = Marks(tmp_path / "m")
    assert -(1 << 62) not in marks
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "m")], check=False)
    assert -(1 << 62) in marks
    marks.discard(-(1 << 62))
    assert -(1 << 62) not in marks
    marks.close()
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o600


def test_what_falls_on_a_place_takes_it_over() -> None:
    marks = Marks(places=8)
    marks.add(3)
    marks.add(4)
    marks.add(11)
    assert [number in marks for number in (3, 4, 11)] == [False, True, True]
    marks.discard(3)
    assert 11 in marks
    marks.close()
