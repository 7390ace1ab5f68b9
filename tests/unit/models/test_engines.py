"""Engines for this machine: sources, builds, agreement, choice, search."""

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st

from freehold.builtin.engine_llamacpp import Order, at_once
from freehold.builtin.engine_native import arguments, opened, surroundings
from freehold.errors import DigestMismatch, Invalid, Missing, Unavailable
from freehold.models.engines.agree import FEWEST, compare, is_lost
from freehold.models.engines.build import Plan, Tools, compile_server, find_tools, version_of
from freehold.models.engines.source import given, unpack
from freehold.models.engines.tune import Choice, Pair, score, search, turns
from freehold.runtime import builds as known_builds
from freehold.runtime import process
from freehold.runtime.builds import Build, Builds, Failing, Match, Speed
from freehold.runtime.engine import Native
from tests.make_engine import archive, source

NOTHING = lambda *_: None  # noqa: E731
CPU = Plan(backend="cpu")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cmake") and (shutil.which("ninja") or shutil.which("make"))),
    reason="NO COMPILER: cmake is not on this machine",
)


def speed(reading: float = 1.0, writing: float = 1.0, eight: float = 1.0) -> Speed:
    return Speed(reading=reading, writing=writing, eight=eight)


# --- agreement


def test_the_same_answers_agree_and_small_differences_do_not_matter() -> None:
    here = [{1: 0.6, 2: 0.3}] * FEWEST
    assert compare(here, here).why is None
    near = [{1: 0.55, 2: 0.33}] * FEWEST
    found = compare(near, here)
    assert (found.why, found.agreed, found.furthest) == (None, FEWEST, 0.05)


def test_a_tie_may_fall_either_way() -> None:
    assert compare([{1: 0.41, 2: 0.39}] * FEWEST, [{1: 0.38, 2: 0.42}] * FEWEST).why is None


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        ([{2: 0.6, 1: 0.3}] * FEWEST, "another next token"),
        ([{1: 0.6, 2: 0.3}] * (FEWEST - 1) + [{1: 0.95, 2: 0.01}], "off"),
        ([{1: 0.6, 2: 0.3}] * (FEWEST - 1) + [{}], "another next token"),
        ([{1: 0.6, 9: 0.39, 2: 0.01}] * FEWEST, "off"),
    ],
)
def test_other_answers_do_not(ours: list[dict[int, float]], says: str) -> None:
    assert says in str(compare(ours, [{1: 0.6, 2: 0.3, 3: 0.05}] * FEWEST).why)


def test_a_comparison_ends_when_it_is_lost() -> None:
    other = [{2: 0.9, 1: 0.05}] * 2 + [{1: 0.9, 2: 0.05}] * 8
    assert is_lost(compare(other, [{1: 0.9, 2: 0.05}] * 10), 96)
    assert not is_lost(compare(other[1:], [{1: 0.9, 2: 0.05}] * 9), 96)


def test_few_places_are_no_proof() -> None:
    assert "only 3" in str(compare([{1: 1.0}] * 3, [{1: 1.0}] * 3).why)


# --- which one is used


def build(name: str, *matches: Match, created: float = 1.0) -> Build:
    return Build(
        id=name, kind="native", backend="cpu", version="1", made={}, files={"llama-server": "0"},
        bytes=1, created=created, created_by="me", matches=matches,
    )  # fmt: skip


def measured(architecture: str, ours: Speed, wheel: Speed | None = None) -> Match:
    return Match(
        model="m:1", digest="d", architecture=architecture, places=96, agreed=96, furthest=0.01,
        build=ours, wheel=wheel or speed(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "chosen"),
    [
        (speed(1.5, 1.0), True),
        (speed(1.0, 1.2), True),
        (speed(1.02, 1.02), False),
        (speed(2.0, 0.8), False),
        (speed(0.0, 0.0), False),
    ],
)
def test_only_what_is_faster_and_never_slower_is_chosen(ours: Speed, chosen: bool) -> None:
    found = known_builds.fastest([build("b", measured("llama", ours))], "llama")
    assert (found is not None) is chosen


def test_the_fastest_that_was_tried_on_the_architecture_is_chosen(tmp_path: Path) -> None:
    made = Builds(tmp_path)
    for each in (
        build("slow", measured("llama", speed(1.2, 1.2))),
        build("fast", measured("llama", speed(1.6, 1.3)), measured("qwen2", speed(1.1, 0.9))),
        build("half-done"),
    ):
        process.write_private(tmp_path / each.id / "build.json", each)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "build.json").write_text("{")
    (tmp_path / ".new").mkdir()
    assert [each.id for each in made.all()] == ["fast", "half-done", "slow"]
    assert made.choose("auto", "llama").build == "fast"  # type: ignore[union-attr]
    assert made.choose("auto", "qwen2") is None
    assert made.choose("auto", "gemma3") is None
    assert made.choose("wheel", "llama") is None
    assert made.choose("slow", "llama").build == "slow"  # type: ignore[union-attr]
    with pytest.raises(Invalid, match="not verified on gemma3"):
        made.choose("slow", "gemma3")
    with pytest.raises(Missing, match="there is wheel, fast"):
        made.choose("other", "llama")
    made.remove("fast")
    assert made.choose("auto", "llama").build == "slow"  # type: ignore[union-attr]
    assert not list(tmp_path.glob(".fast*"))


def test_what_is_failing_is_chosen_only_by_name_until_it_is_acquitted(tmp_path: Path) -> None:
    made = Builds(tmp_path)
    for name, gain in (("fast", 1.6), ("slow", 1.2)):
        each = build(name, measured("llama", speed(gain, gain)))
        process.write_private(tmp_path / name / "build.json", each)
    assert made.passed_over("llama") is None
    made.condemn("fast", Failing(since=1.0, reason="no card"))
    assert made.choose("auto", "llama").build == "slow"  # type: ignore[union-attr]
    assert made.choose("fast", "llama").build == "fast"  # type: ignore[union-attr]
    assert made.passed_over("llama").id == "fast"  # type: ignore[union-attr]
    made.acquit("fast")
    made.acquit("fast")
    assert made.choose("auto", "llama").build == "fast"  # type: ignore[union-attr]
    (tmp_path / "fast" / "failing.json").write_text("{")  # fails closed
    assert made.choose("auto", "llama").build == "slow"  # type: ignore[union-attr]
    with pytest.raises(Missing):
        made.condemn("other", Failing(since=1.0, reason="no card"))


# --- the source


def test_only_known_bytes_are_built(tmp_path: Path) -> None:
    path, digest = archive(tmp_path / "a.tar.gz", {"x": "y"})
    with pytest.raises(DigestMismatch, match=f"--sha256 {digest}"):
        given(path, None)
    with pytest.raises(DigestMismatch, match="not the digest"):
        given(path, "0" * 64)
    assert given(path, digest) == (path, digest)
    with pytest.raises(Missing):
        given(tmp_path / "none", digest)


def test_an_archive_is_unpacked_and_its_root_found(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    root = unpack(path, tmp_path / "out", NOTHING)
    assert root == tmp_path / "out" / "tiny-1.0" / "vendor" / "llama.cpp"
    assert (root / "main.c").exists()
    path.unlink()
    assert unpack(path, tmp_path / "out", NOTHING) == root  # what is whole is used again


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("files", "links", "says"),
    [
        ({"../evil": "x"}, [], "holds the path"),
        ({"/evil": "x"}, [], "holds the path"),
        ({"a/../../evil": "x"}, [], "holds the path"),
        ({"a\\..\\evil": "x"}, [], "holds the path"),
        ({}, [link("a", "/etc/passwd")], "no regular file"),
        ({}, [link("a", "b", tarfile.LNKTYPE)], "no regular file"),
        ({}, [link("a", "", tarfile.CHRTYPE)], "no regular file"),
        ({"a/CMakeLists.txt": "x"}, [], "does not hold llama.cpp"),
    ],
)
def test_archives_that_are_up_to_something_are_refused(
    tmp_path: Path, files: dict[str, str], links: list[tarfile.TarInfo], says: str
) -> None:
    path, _ = archive(tmp_path / "bad.tar.gz", files, *links)
    with pytest.raises(Invalid, match=says):
        unpack(path, tmp_path / "in" / "out", NOTHING)
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Invalid, match="damaged"):
        unpack(path, tmp_path / "out", NOTHING)
    assert not (tmp_path / "out").exists()


# --- the build


def found_only(*names: str) -> Any:
    return lambda name: f"/usr/bin/{name}" if name in names else None


def test_what_is_missing_is_named() -> None:
    with pytest.raises(Missing, match=r"cmake, ninja or make is missing.*apt-get install"):
        find_tools(found_only("c++"))
    with pytest.raises(Missing, match="compiler"):
        find_tools(found_only("cmake", "make"))
    assert find_tools(found_only("c++", "cmake", "make")).generator == "Unix Makefiles"
    assert find_tools(found_only("g++", "cmake", "ninja")).generator == "Ninja"


@needs_compiler
def test_a_build_compiles_tells_how_far_it_is_and_goes_on(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    root = unpack(path, tmp_path / "out", NOTHING)
    seen: list[tuple[str, int, int]] = []
    work = tmp_path / "work"
    binary = compile_server(root, work, find_tools(), CPU, 1, lambda *each: seen.append(each))
    assert version_of(binary) == "0.0-tiny (build 0)"
    assert {stage for stage, _, _ in seen} == {"configure", "compile"}
    objects = next(work.rglob("main.c.o"))
    before = objects.stat().st_mtime_ns
    # What CMake noted the first time may be wrong by now.
    (work / "CMakeCache.txt").write_text("CMAKE_GENERATOR:INTERNAL=None of this machine\n")
    compile_server(root, work, find_tools(), CPU, 1, NOTHING)
    assert objects.stat().st_mtime_ns == before


@needs_compiler
def test_what_does_not_compile_says_why(tmp_path: Path) -> None:
    path, _ = source(tmp_path, broken=True)
    root = unpack(path, tmp_path / "out", NOTHING)
    with pytest.raises(Unavailable, match=r"cmake failed: [^;]*main\.c:\d+:\d+: error: "):
        compile_server(root, tmp_path / "work", find_tools(), CPU, 1, NOTHING)


@needs_compiler
def test_a_stop_ends_the_compilers(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    root = unpack(path, tmp_path / "out", NOTHING)

    def stop(stage: str, *_: int) -> None:
        if stage == "compile":
            raise Unavailable("unavailable.stopping", "stop")

    with pytest.raises(Unavailable, match="stop"):
        compile_server(root, tmp_path / "work", find_tools(), CPU, 1, stop)
    assert process.owned_by(tmp_path / "work") == []


def test_a_stop_is_heard_while_a_tool_says_nothing(tmp_path: Path) -> None:
    silent = tmp_path / "cmake"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o700)
    asked: list[str] = []

    def stop(stage: str, *_: int) -> None:
        asked.append(stage)
        if len(asked) == 3:
            raise Unavailable("unavailable.stopping", "stop")

    tools = Tools(cmake=str(silent), generator="Ninja", compiler="c++")
    began = time.monotonic()
    with pytest.raises(Unavailable, match="stop"):
        compile_server(tmp_path, tmp_path / "work", tools, CPU, 1, stop)
    assert time.monotonic() - began < 30
    assert process.owned_by(tmp_path / "work") == []


@needs_compiler
def test_what_a_killed_build_left_running_is_ended(tmp_path: Path) -> None:
    path, _ = source(tmp_path)
    root = unpack(path, tmp_path / "out", NOTHING)
    work = tmp_path / "work"
    work.mkdir()
    left = process.spawn([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log",
                         environment={}, owner=work)  # fmt: skip
    compile_server(root, work, find_tools(), CPU, 1, NOTHING)
    deadline = time.monotonic() + 5
    while process.is_alive(left) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not process.is_alive(left)


def test_a_file_that_is_no_server_is_told_apart(tmp_path: Path) -> None:
    script = tmp_path / "llama-server"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o700)
    with pytest.raises(Unavailable, match=r"no llama\.cpp server"):
        version_of(script)
    script.write_bytes(b"\x7fELFnonsense")
    with pytest.raises(Unavailable, match="does not run here"):
        version_of(script)


# --- the launch


ORDER = Order(
    weights="/w", alias="m", secret="hidden", ready="/r", context=512, slots=2, threads=3,
    encoder=False,
)  # fmt: skip


def test_the_command_line_says_everything_but_the_secret() -> None:
    plain = arguments(ORDER, "/dev/fd/9")
    assert "hidden" not in " ".join(plain)
    assert plain[plain.index("--host") + 1] == "127.0.0.1"
    assert plain[plain.index("--api-key-file") + 1] == "/dev/fd/9"
    assert "--ubatch-size" not in plain
    tuned = msgspec.structs.replace(
        ORDER,
        adapters=["/a", "/b"],
        batch=256,
        cache_type="q8_0",
        flash=False,
        draft="/d",
        drafted=8,
        reranks=True,
    )
    text = " ".join(arguments(tuned, "k"))
    for part in ("--ubatch-size 256 --batch-size 2048", "--cache-type-k q8_0 --cache-type-v q8_0",
                 "--flash-attn off", "--spec-draft-model /d", "--spec-draft-n-max 8",
                 "--lora-scaled /a:0 --lora-scaled /b:0 --lora-init-without-apply",
                 "--pooling rank"):  # fmt: skip
        assert part in text


@given_(st.integers(1, 4096), st.integers(1, 64))
def test_what_is_computed_at_once_divides_among_the_slots(batch: int, slots: int) -> None:
    found = at_once(batch, slots)
    assert found % slots == 0
    assert slots <= found <= max(batch, slots)
    assert found > batch - slots


def test_a_path_that_would_mean_more_is_refused() -> None:
    with pytest.raises(Invalid, match="there is ':' or ','"):
        arguments(msgspec.structs.replace(ORDER, adapters=["/a:9"]), "k")


def test_no_environment_changes_an_engine_unseen() -> None:
    given = {
        "PATH": "/bin", "LLAMA_ARG_HOST": "0.0.0.0", "GGML_X": "1", "LD_PRELOAD": "/evil.so",
        "GGML_VK_VISIBLE_DEVICES": "1",
    }  # fmt: skip
    assert surroundings(given, "/b") == {
        "PATH": "/bin", "LD_LIBRARY_PATH": "/b", "DYLD_LIBRARY_PATH": "/b",
        "GGML_VK_VISIBLE_DEVICES": "1",  # which cards there are is for the operator to say
    }  # fmt: skip


@settings(deadline=None)
@given_(st.integers(0, 63), st.integers(0, 7))
def test_any_flipped_bit_of_a_build_stops_its_start(at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama-server"
        path.write_bytes(bytes(64))
        digest = hashlib.sha256(bytes(64)).hexdigest()
        native = Native(build="b", directory=folder, files=(("llama-server", digest),))
        os.close(opened(native))
        changed = bytearray(64)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(DigestMismatch, match="freehold engine remove b"):
            opened(native)


def test_a_build_without_its_server_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch, match="has no llama-server"):
        opened(Native(build="b", directory=str(tmp_path), files=()))
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "llama-server").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="symbolic"):
        opened(Native(build="b", directory=str(tmp_path), files=(("llama-server", "0"),)))


# --- the search

START = Choice(threads=1, slots=4, context=2048)


def run(cost: Any, goal: Any = "balanced", **more: Any) -> Any:
    asking = search(START, more.get("turns", turns(START, 4, [8192, 4096], ["tiny:1"])), goal)
    pair: Pair = None
    try:
        asked = next(asking)
        while True:
            one, other = (cost(each) for each in asked)
            pair = None if one is None else (one, other)
            asked = asking.send(pair)
    except StopIteration as end:
        return end.value


def test_the_search_finds_what_is_faster() -> None:
    def cost(choice: Choice) -> Speed:
        rate = min(choice.threads, 2) * (1.2 if choice.flash else 1.0)
        rate *= 1.5 if choice.draft and choice.drafted == 8 else 1.0
        return speed(rate, rate, rate)

    found = run(cost)
    assert (found.choice.threads, found.choice.flash, found.choice.drafted) == (2, True, 8)
    assert found.choice.draft == "tiny:1"
    assert found.choice.context == 8192  # longer, and it costs nothing
    assert found.choice.cache_type is None  # another type must be worth it
    assert found.gain == pytest.approx(2 * 1.2 * 1.5, rel=0.01)


def test_what_gains_nothing_changes_nothing() -> None:
    found = run(lambda choice: speed(1.0, 1.0, 1.0 + 0.01 * choice.threads),
                turns=turns(START, 4, [], []))  # fmt: skip
    assert found.choice == START
    assert found.gain == 1.0
    assert all(not trial.kept for trial in found.trials)


def test_a_long_context_that_slows_things_down_is_not_kept() -> None:
    def cost(choice: Choice) -> Speed:
        rate = 1.0 if choice.context <= 4096 else 0.9
        return speed(rate, rate, rate)

    assert run(cost).choice.context == 4096


def test_what_cannot_run_is_passed_over() -> None:
    def cost(choice: Choice) -> Speed | None:
        return None if choice.threads > 1 or choice.draft else speed(9.0 if choice.flash else 1.0)

    found = run(cost)
    assert (found.choice.threads, found.choice.flash, found.choice.draft) == (1, True, None)
    assert any(trial.ratio is None for trial in found.trials)


def test_goals_weigh_differently() -> None:
    pair = speed(2.0, 1.0, 0.5), speed()
    assert score(pair, "reading") > 1.2 > score(pair, "balanced") > score(pair, "clients")
