"""How a version is launched: what is tried, and what is kept of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.errors import EngineLost
from freehold.models.answering import Exam, Marks
from freehold.models.compress.launch import Draft, Found, Place, caches, contexts, find
from freehold.models.intervals import Interval
from freehold.models.manifest import Manifest, Tokenizer
from freehold.models.registry import LaunchSettings
from tests.unit.models.compress.test_gate import measured

GB = 1_000_000_000
PLAIN = LaunchSettings()
PLACE = Place(room=16 * GB, context=8192, slots=4)


def cost(q8: float, q4: float) -> dict[str, Interval]:
    return {"Q8_0": Interval(q8, q8, q8), "Q4_0": Interval(q4, q4, q4)}


def manifest(context: int | None = 131_072) -> Manifest:
    return Manifest(
        architecture="llama", task="chat", name=None, parameters=10**9, context=context, layers=16,
        width=2048, heads=32, kv_heads=8, head_key=64, head_value=64, quantisation="Q4_K",
        bits_per_weight=4.5, chat_template="x", licence=None, base_models=(),
        tokenizer=Tokenizer(model="gpt2", pre=None, tokens=1000, sha256="0" * 64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("q8", "q4", "kinds"),
    [
        (0.0002, 0.05, ["q8_0"]),
        (0.0002, 0.0005, ["q4_0", "q8_0"]),
        (0.003, 0.05, []),  # over a fifth of the limit
        (0.0011, 0.05, []),  # over the limit with what is lost already
    ],
)
def test_a_coarser_cache_costs_next_to_nothing(q8: float, q4: float, kinds: list[str]) -> None:
    assert caches(measured(caches=cost(q8, q4)), 0.01) == kinds


def test_a_context_fits_twice_and_is_over_the_default() -> None:
    need = (100_000).__mul__
    assert contexts(need, 131_072, PLACE) == [65536, 32768, 16384]
    assert contexts(need, 24_000, PLACE) == [24_000, 16384]
    assert contexts(need, 4096, PLACE) == []
    assert contexts(need, None, PLACE) == []


class Engine:
    """Answers exams as a machine would: ``factors`` by what is set, ``memory`` by context."""

    def __init__(self, **factors: float) -> None:
        self.factors, self.asked = factors, list[Exam]()

    def __call__(self, exam: Exam) -> Marks:
        self.asked.append(exam)
        factor = self.factors.get(exam.cache or "", 1.0)
        factor *= self.factors.get(Path(exam.draft).stem if exam.draft else "", 1.0)
        if not factor:
            raise EngineLost("unavailable.trial", "it does not load")
        memory = (exam.context or 0) * int(self.factors.get("memory", 1000))
        return Marks(read=100 * factor, write=10 * factor, memory=memory)


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Found]:
    weights = tmp_path / "m.gguf"
    weights.write_bytes(b"x" * 1000)
    drafts = {f"{name}:1": Draft(path=tmp_path / f"{name}.gguf", manifest=manifest(), bytes=GB)
              for name in ("small", "tiny")}  # fmt: skip

    def run(
        engine: Engine, own: LaunchSettings = PLAIN, place: Place = PLACE, **costs: float
    ) -> Found:
        told = measured(caches=cost(costs.get("q8", 0.0002), costs.get("q4", 0.05)))
        return find(weights, manifest(), own, told, 0.01, drafts, place, 2, engine)

    return run


def test_what_is_found_is_how_it_is_launched(search: Callable[..., Found]) -> None:
    engine = Engine(small=1.3, tiny=1.2)
    found = search(engine)
    # A token takes 17 kB in the model and as much in the draft: 8 GB hold two of 131,072.
    assert found.settings == LaunchSettings(context=131_072, cache_type="q8_0", draft="small:1")
    last = engine.asked[-1]
    assert (last.context, last.cache, last.slots) == (131_072, "q8_0", 4)
    assert Path(last.draft or "").stem == "small"
    assert found.speed is not None
    assert found.speed.write == pytest.approx(13)
    assert [line.partition(":")[0] for line in found.tried] == [
        "key-value cache q8_0", "draft small", "draft tiny", "context 131072",
    ]  # fmt: skip
    # Each was held against the same without it, in the same moment.
    assert [(e.cache, e.draft is not None) for e in engine.asked[:4]] == [
        ("q8_0", False), (None, False), ("q8_0", True), ("q8_0", False),
    ]  # fmt: skip


def test_a_cache_that_slows_and_a_draft_that_does_not_help_are_left_out(
    search: Callable[..., Found],
) -> None:
    found = search(Engine(q8_0=0.8, small=1.05, tiny=0.5))
    assert (found.settings.cache_type, found.settings.draft) == (None, None)
    assert "left out" in found.tried[0]


def test_what_does_not_load_is_left_out_and_the_next_is_tried(
    search: Callable[..., Found],
) -> None:
    found = search(Engine(q4_0=0.0, small=0.0, tiny=1.2), q4=0.0001)
    assert (found.settings.cache_type, found.settings.draft) == ("q8_0", "tiny:1")


def test_the_memory_that_is_measured_decides_on_the_context(search: Callable[..., Found]) -> None:
    engine = Engine(memory=300_000)  # 39 GB at the longest that was foreseen to fit
    assert search(engine).settings.context == 32_768
    tried = [exam.context for exam in engine.asked if exam.context]
    assert tried == [131_072, 65_536, 32_768]
    small = Place(room=GB // 2, context=8192, slots=4)
    assert search(Engine(), place=small).settings.context is None


def test_what_somebody_said_of_the_parent_stays(search: Callable[..., Found]) -> None:
    own = LaunchSettings(context=4096, slots=2, threads=3, cache_type="f16", draft="tiny:1")
    engine = Engine(small=2.0)
    assert search(engine, own).settings == own
    assert [(e.context, e.cache, e.slots) for e in engine.asked] == [(4096, "f16", 2)]
