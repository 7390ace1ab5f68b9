"""Adapters over one loaded base: each deployment answers as its own, from the same process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.house import House, events, eventually
from tests.make_checkpoint import Lora, decoder

WORDS = ("gravity", "Haus", "def add(a, b):", "1234567", "日本語", "lazy dog", "дождь", "café")
LENGTH = 4
NAMES = ("base", "formal-tone", "terse-tone")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a base and two adapters, all deployed."""
    folder = tmp_path_factory.mktemp("shelf")
    made = decoder("qwen2", seed=7)
    made.save(folder / "base")
    Lora(made, 1).save(folder / "formal")
    Lora(made, 2, rank=8, alpha=24.0).save(folder / "terse")
    house = House(folder / "home")
    try:
        house.start()
        _bring(house, folder / "base")
        for name in ("formal", "terse"):
            _bring(house, folder / name, base="base")
            _deploy(house, name, f"{name}-tone")
        _deploy(house, "base")
        for name in NAMES:
            eventually(lambda name=name: house.deployment(name)["state"] == "ready", name)
        eventually(lambda: len(_engines(house)) == 1, "one process")
        yield house
    finally:
        house.close()


def test_each_answers_as_its_own_over_one_process_whole_streamed_and_at_once(shelf: House) -> None:
    questions = _clear(shelf, NAMES)
    first = {(n, q): _said(shelf, n, q) for q in questions for n in NAMES}
    for question in questions:
        assert len({first[name, question] for name in NAMES}) == 3, first
    assert len(_engines(shelf)) == 1
    with ThreadPoolExecutor(4) as pool:
        asked = list(first) * 3
        again = list(pool.map(lambda key: _said(shelf, *key), asked))
        streamed = list(pool.map(lambda key: _streamed(shelf, *key), list(first)))
    assert again == [first[key] for key in asked]
    assert streamed == list(first.values())


def test_prompts_that_were_read_under_one_adapter_are_not_gone_on_with_under_another(
    shelf: House,
) -> None:
    long = _clear(shelf, NAMES, before="The quick brown fox jumps over the lazy dog. " * 3)[0]
    alone = {name: _said(shelf, name, long, cache_prompt=False) for name in NAMES}
    other = "Сегодня 25 октября, и идёт дождь. " * 3
    # A slot is left for another prompt, and comes back to this one under another adapter.
    for name in (*NAMES, *reversed(NAMES), "formal-tone", "base", "base", "terse-tone"):
        assert _said(shelf, name, long) == alone[name], name
        for each in ("base", name):
            _said(shelf, each, other)


def test_a_client_chooses_an_adapter_by_its_deployment_only(shelf: House) -> None:
    question = _clear(shelf, NAMES)[0]
    plain = _said(shelf, "base", question)
    chosen = [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 1.0}]
    assert _said(shelf, "base", question, lora=chosen) == plain
    formal = _said(shelf, "formal-tone", question)
    assert _said(shelf, "formal-tone", question, lora=[]) == formal


def test_an_adapter_is_shown_with_its_own_version_and_its_base(shelf: House) -> None:
    folder = shelf.home.parent / "terse"
    body = {"source": str(folder), "name": "formal", "dependencies": [
        {"kind": "base", "target": "base"}]}  # fmt: skip
    for path, asked in (
        ("/api/models", body), ("/api/models/formal/versions/3/convert", {"type": "f32"}),
    ):  # fmt: skip
        job = shelf.call("POST", path, asked).json
        assert shelf.call("GET", f"/api/jobs/{job['id']}?wait=30").json["state"] == "done"
    _deploy(shelf, "formal:4", "fourth")
    eventually(lambda: shelf.deployment("fourth")["state"] == "ready", "fourth")
    found = shelf.deployment("fourth")
    assert found["host"] == "base"  # which runs a version 2
    assert {replica["version"] for replica in found["replicas"]} == {4}
    (line,) = (text for text in shelf.cli("status").splitlines() if "fourth" in text)
    assert ", then" not in line, line
    shown = shelf.cli("model", "show", "formal:4")
    assert "for base:" in shown, shown
    assert "None" not in shown, shown
    assert shelf.call("DELETE", "/api/deployments/fourth").status == 200
    eventually(lambda: len(_engines(shelf)) == 1, "one process")


def test_an_adapter_gives_no_vectors_and_its_base_gives_the_same_as_before(shelf: House) -> None:
    def vector() -> Any:
        answer = shelf.call("POST", "/v1/embeddings", {"model": "base", "input": WORDS[0]})
        assert answer.status == 200, answer.body
        return answer.json["data"][0]["embedding"]

    before = vector()
    _said(shelf, "formal-tone", WORDS[0])
    assert vector() == pytest.approx(before, abs=1e-4)
    body = {"model": "formal-tone", "input": WORDS[0]}
    refused = shelf.call("POST", "/v1/embeddings", body)
    assert (refused.status, refused.error["code"]) == (400, "invalid.adapter"), refused.body


def test_scale_makes_another_deployment_of_the_same_adapter(shelf: House) -> None:
    shelf.cli("deploy", "formal", "--as", "half-formal", "--scale", "0.5", "--wait")
    shelf.cli("deploy", "formal", "--as", "not-formal", "--scale", "0", "--wait")
    try:
        names = ("base", "formal-tone", "half-formal")
        question = _clear(shelf, names)[0]
        said = {name: _said(shelf, name, question) for name in names}
        assert len(set(said.values())) == 3
        assert _said(shelf, "not-formal", question) == said["base"]
        assert len(_engines(shelf)) == 1
    finally:
        shelf.cli("undeploy", "half-formal")
        shelf.cli("undeploy", "not-formal")


def test_one_more_adapter_changes_the_process_and_refuses_nobody(
    shelf: House, tmp_path: Path
) -> None:
    made = decoder("qwen2", seed=7)
    Lora(made, 3).save(tmp_path / "rhymes")
    _bring(shelf, tmp_path / "rhymes", base="base")
    before = _engines(shelf)
    with ThreadPoolExecutor(2) as pool:
        going = [pool.submit(_ask_until, shelf, n, "rhymes") for n in ("base", "formal-tone")]
        shelf.cli("deploy", "rhymes", "--wait")
        assert all(status == 200 for each in going for status in each.result())
    question = _clear(shelf, (*NAMES, "rhymes"))[0]
    assert len({_said(shelf, name, question) for name in (*NAMES, "rhymes")}) == 4
    eventually(lambda: len(_engines(shelf)) == 1 and _engines(shelf) != before, "one process again")
    shown = shelf.deployment("rhymes")
    assert (shown["host"], shown["state"]) == ("base", "ready")
    # What is deployed, or needed by what is there, stays.
    shelf.cli("model", "remove", "rhymes", "--yes", code=1)
    shelf.cli("undeploy", "rhymes")
    shelf.cli("model", "remove", "rhymes", "--yes")


def test_a_base_stays_as_long_as_an_adapter_needs_it(shelf: House) -> None:
    refused = shelf.call("DELETE", "/api/models/base/versions/2")
    assert refused.status == 409, refused.body
    listed = shelf.json("model", "show", "formal")["versions"][1]
    assert listed["lineage"] == ["base:2", "formal:1", "base:1"]


def test_without_a_deployment_of_the_base_adapters_share_one_of_their_own(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    made = decoder("llama3", seed=3)
    house = new_house(empty=True).start()
    _bring(house, made.save(tmp_path / "b"))
    for number, name in enumerate(("one", "two")):
        _bring(house, Lora(made, number).save(tmp_path / name), base="b")
        _deploy(house, name)
    for name in ("one", "two"):
        eventually(lambda name=name: house.deployment(name)["state"] == "ready", name)
    eventually(lambda: len(_engines(house)) == 1, "one process for both")
    question = _clear(house, ("one", "two"))[0]
    said = {name: _said(house, name, question) for name in ("one", "two")}
    assert said["one"] != said["two"]
    assert len(_engines(house)) == 1
    assert house.deployment("two")["host"] == "one"
    # The base itself comes: it takes over without a gap.
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(_ask_until, house, "two", "b")
        house.cli("deploy", "b", "--wait")
        assert set(going.result()) == {200}
    eventually(lambda: len(_engines(house)) == 1, "the base's process only")
    assert {name: _said(house, name, question) for name in said} == said
    assert house.deployment("one")["host"] == house.deployment("two")["host"] == "b"


def test_what_does_not_fit_is_refused(own_house: House, tmp_path: Path) -> None:
    made = decoder("qwen2")
    wider = decoder("qwen2")
    for name in [n for n in wider.tensors if "down_proj" in n]:
        wider.matrix(name, 64, 128)
    Lora(wider, 1).save(tmp_path / "wide")
    Lora(made, 1).save(tmp_path / "fits")
    alone = own_house.run_cli("model", "import", str(tmp_path / "fits"))
    assert alone.returncode == 1
    assert "someone/Some-Base" in alone.stderr
    assert "--base" in alone.stderr
    own_house.cli("model", "import", str(made.save(tmp_path / "tiny")), "--name", "tiny")
    own_house.cli("model", "import", str(tmp_path / "wide"), "--base", "tiny")
    unready = own_house.run_cli("model", "convert", "wide")
    assert "needs a GGUF version of its base: freehold model convert tiny:1" in unready.stderr
    own_house.cli("model", "convert", "tiny")
    unfit = own_house.run_cli("model", "convert", "wide")
    assert unfit.returncode == 1
    assert "down" in unfit.stderr
    unrun = own_house.run_cli("deploy", "wide")
    assert "freehold model convert wide:1" in unrun.stderr
    other = own_house.run_cli("model", "import", str(tmp_path / "fits"), "--base", "smol")
    assert other.returncode == 0  # nothing is known of a checkpoint's shapes before it is converted
    mixed = own_house.run_cli("model", "convert", "fits")
    assert mixed.returncode == 1
    assert own_house.run_cli("deploy", "smol", "--scale", "2").returncode == 1
    assert own_house.chat().status == 200


def _bring(house: House, folder: Path, base: str | None = None) -> None:
    """Import a folder under its name, and convert it."""
    needs = [{"kind": "base", "target": base}] if base else []
    body = {"source": str(folder), "name": folder.name, "dependencies": needs}
    for path, asked in (
        ("/api/models", body),
        (f"/api/models/{folder.name}/versions/1/convert", {"type": "f32"}),
    ):
        job = house.call("POST", path, asked).json
        done = house.call("GET", f"/api/jobs/{job['id']}?wait=30").json
        assert done["state"] == "done", done


def _deploy(house: House, model: str, name: str | None = None) -> None:
    body = {"name": name or model, "model": model}
    assert house.call("PUT", f"/api/deployments/{name or model}", body).status == 200


def _clear(house: House, names: Sequence[str], before: str = "") -> list[str]:
    """Return the questions to which every answer is clear, and no two are the same.

    Where two tokens are as likely as each other, what else is computed at once decides.
    """
    found: list[str] = []
    for question in (f"{before}{one} {other}" for one in WORDS for other in WORDS):
        answers = {name: _asked(house, name, question, logprobs=True, top_logprobs=2)
                   for name in names}  # fmt: skip
        if not all(answer.get("logprobs") for answer in answers.values()):
            continue  # one of them ends at once
        tops = [t["top_logprobs"] for a in answers.values() for t in a["logprobs"]["content"]]
        texts = {answer["message"]["content"] for answer in answers.values()}
        margin = min(one["logprob"] - other["logprob"] for one, other in tops)
        if margin > 0.05 and len(texts) == len(names):
            found.append(question)
        if len(found) == 2:
            break
    assert found
    return found


def _said(house: House, model: str, question: str, **fields: Any) -> str:
    text: str = _asked(house, model, question, **fields)["message"]["content"]
    return text


def _asked(house: House, model: str, question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    answer = house.chat(model=model, messages=messages, max_tokens=LENGTH, **fields)
    assert answer.status == 200, answer.body
    choice: dict[str, Any] = answer.json["choices"][0]
    return choice


def _streamed(house: House, model: str, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    answer = house.chat(model=model, messages=messages, max_tokens=LENGTH, stream=True)
    parts = [e["choices"][0]["delta"].get("content") for e in events(answer.body)
             if e != "[DONE]" and e["choices"]]  # fmt: skip
    return "".join(part for part in parts if part)


def _engines(house: House) -> set[int]:
    """The numbers of the engine processes of all deployments."""
    found = house.call("GET", "/api/deployments").json
    return {r["pid"] for d in found for r in d["replicas"] if r["pid"] is not None}


def _ask_until(house: House, model: str, ready: str) -> list[int]:
    statuses = []
    for _ in range(300):
        answer = house.chat(model=model, max_tokens=2)
        statuses.append(answer.status)
        shown = house.call("GET", f"/api/deployments/{ready}")
        if shown.status == 200 and shown.json["state"] == "ready":
            return statuses
    raise AssertionError("it never came up")
