"""Every documented trick is caught, and nothing is found where there is nothing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from freehold.builtin.source_folder import Folder
from freehold.errors import Invalid, Unavailable
from freehold.models.identify import identify
from freehold.models.scan.scan import scan
from freehold.models.source import Origin
from freehold.settings import Scan, Sources
from tests.benign import benign
from tests.evasive import Evasive, evasives, write
from tests.make_safetensors import folder

TRICKS = [trick.name for trick in evasives(Path("/nowhere/marker"))]
BENIGN = benign()


def quiet(*_: object) -> None:
    return


def _trick(name: str, marker: Path) -> Evasive:
    return next(trick for trick in evasives(marker) if trick.name == name)


@pytest.mark.parametrize("name", TRICKS)
def test_each_trick_is_caught(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    place = write(_trick(name, marker), tmp_path / "model", folder)
    found: object = ()
    try:
        files = Folder(Sources()).fetch(
            Origin(source="folder", location=str(place)), tmp_path, quiet
        )
        found = scan(files.files, Scan(), quiet)
        identify(files.files)
    except Invalid as error:
        found = found or error.message
    assert found, f"{name} came through"
    assert not marker.exists(), "the scan ran what it looked at"


@pytest.mark.parametrize("name", [n for n in TRICKS if _trick(n, Path("/m")).live is not None])
def test_each_pickle_among_them_is_a_real_one(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    trick = _trick(name, marker)
    for each, data in trick.files.items():
        (tmp_path / each).write_bytes(data)
    (tmp_path / "live").write_bytes(trick.live or b"")
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "live"], capture_output=True, check=False
    )
    assert marker.exists()


def test_nothing_is_found_in_what_is_sound(tmp_path: Path) -> None:
    files = {}
    for name, data in BENIGN.items():
        files[name] = tmp_path / name
        files[name].parent.mkdir(exist_ok=True)
        files[name].write_bytes(data)
    assert len(files) >= 50
    assert scan(files, Scan(), quiet) == ()


def test_a_sound_folder_stays_sound(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    files = Folder(Sources()).fetch(Origin(source="folder", location=str(place)), tmp_path, quiet)
    assert scan(files.files, Scan(), quiet) == ()
    assert identify(files.files).manifest.architecture == "llama"


def _one(tmp_path: Path, name: str, data: bytes) -> dict[str, Path]:
    (tmp_path / name).write_bytes(data)
    return {name: tmp_path / name}


def test_what_nobody_here_reads_gets_a_second_opinion(tmp_path: Path) -> None:
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    numbers = b"\x93NUMPY\x01\x00" + bytes([118, 0]) + head + bytes(8)
    (tmp_path / "0123abcd").write_bytes(numbers)  # as bytes are stored
    files = {"mean.npy": tmp_path / "0123abcd"}
    files |= _one(tmp_path, "what.xyz", b"\x01\x02\x03" * 100)
    found = scan(files, Scan(), quiet)
    assert [(each.file, each.rule, each.by) for each in found] == [
        ("what.xyz", "opinion.none", "modelaudit")
    ]


def test_an_opinion_that_does_not_come_is_no_good_one(tmp_path: Path) -> None:
    files = _one(tmp_path, "what.xyz", b"\x01\x02\x03" * 100)
    found = scan(files, Scan(seconds=1), quiet)
    assert [each.rule for each in found] == ["opinion.none"]


def test_companions_of_a_graph_need_none(tmp_path: Path) -> None:
    files = _one(tmp_path, "model.onnx_data", b"\x01\x02\x03" * 100)
    assert scan(files, Scan(), quiet, frozenset(files)) == ()


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
         "template.bomb"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "template.bomb"),
        ("{{ 'a' * 99999 * 99999 }}", "template.bomb"),
        ("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "template.bomb"),
    ],
)  # fmt: skip
def test_a_template_that_takes_everything_is_found(tmp_path: Path, text: str, rule: str) -> None:
    files = _one(tmp_path, "chat_template.jinja", text.encode())
    assert [each.rule for each in scan(files, Scan(template_seconds=1), quiet)] == [rule]


@pytest.mark.parametrize(
    "text",
    [
        "{{ x }}" + "".join(f"{{% set a = '{n}{'a' * 4000}' %}}" for n in range(16))
        + "{{ a|reverse|upper|lower|trim|title }}" * 2000,
        "{{ 'a' ~ 'b' }}" * 30_000,
    ],
)  # fmt: skip
def test_judging_a_template_takes_no_time_of_ours(tmp_path: Path, text: str) -> None:
    files = _one(tmp_path, "chat_template.jinja", text.encode())
    begun = time.process_time()
    found = scan(files, Scan(template_seconds=1), quiet)
    assert time.process_time() - begun < 1.0
    assert [each.rule for each in found] == ["template.bomb"]


def test_yara_reads_every_file_and_every_byte(tmp_path: Path) -> None:
    pytest.importorskip("yara_x")
    rules = tmp_path / "r.yar"
    rules.write_text('rule secret_mark { strings: $a = "MARK-OF-EVIL" condition: $a }')
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 << 20)
        file.seek((64 << 20) - 6)  # across the edge of a window
        file.write(b"MARK-OF-EVIL")
    settings = Scan(yara=(str(rules),))
    found = scan({"model.onnx_data": large}, settings, quiet, frozenset({"model.onnx_data"}))
    assert [(each.rule, each.by) for each in found] == [("yara.match", "yara")]


def test_rules_that_cannot_be_read_let_nothing_in(tmp_path: Path) -> None:
    files = _one(tmp_path, "README.md", b"hello")
    with pytest.raises(Unavailable, match="nothing is taken in unscanned"):
        scan(files, Scan(yara=(str(tmp_path / "absent.yar"),)), quiet)
    (tmp_path / "bad.yar").write_text("rule {")
    with pytest.raises(Unavailable, match="YARA did not answer"):
        scan(files, Scan(yara=(str(tmp_path / "bad.yar"),)), quiet)
