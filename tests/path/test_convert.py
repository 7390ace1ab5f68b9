"""Conversion: what a checkpoint computes and how it splits text, llama.cpp does with the result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tokenizers import Tokenizer

from freehold.models.convert.lora import Base, plan_adapter
from freehold.models.convert.plan import plan
from freehold.models.convert.write import write
from tests.engine import Engine, engine
from tests.forward import embedding, logprobs
from tests.house import House, eventually
from tests.make_checkpoint import HEAD, LAYERS, TEXT, Checkpoint, Lora, decoder, encoder, pieces

ODD = "\n \n\n\t\t x = 3 33 333 3333; 'RE isn't We'll  end   \n"
CLOSE = 0.1
"""Most by which a log-probability may differ, of their spread: keys and values are of 16 bit."""


def _convert(made: Checkpoint, folder: Path, kind: str = "F32") -> Path:
    target = folder / "model.gguf"
    write(plan(made.save(folder / "files", kind), None, "m"), target, lambda *_: None)
    return target


def _check_tokens(running: Engine, made: Checkpoint) -> None:
    judge = Tokenizer.from_str(json.dumps(made.tokenizer))
    for text in (*TEXT, ODD, " ".join(TEXT)):
        assert running.tokens(text) == judge.encode(text, add_special_tokens=False).ids, text


def _check_numbers(running: Engine, made: Checkpoint, **how: Any) -> None:
    judge = Tokenizer.from_str(json.dumps(made.tokenizer))
    for text in (TEXT[0] + TEXT[1], TEXT[2]):
        prompt = judge.encode(text).ids[:60]
        prompt, found = running.logprobs(prompt, made.config["vocab_size"], **how)
        wanted = logprobs(made, prompt)
        assert len(found) == len(wanted)
        assert max(abs(found[n] - wanted[n]) for n in found) < CLOSE * wanted.std()


@pytest.mark.parametrize(
    "family", ["llama", "llama3", "smollm", "smollm3", "qwen2", "qwen3", "gemma2", "gemma3"]
)
def test_a_decoder_computes_and_reads_the_same_after_conversion(
    family: str, tmp_path: Path
) -> None:
    made = decoder(family)
    if family == "gemma2":
        made.files["tokenizer.model"] = pieces(made.tokenizer or {}, prefix=False)
    with engine(_convert(made, tmp_path), tmp_path) as running:
        _check_tokens(running, made)
        _check_numbers(running, made)


def test_an_encoder_gives_the_same_vectors_after_conversion(tmp_path: Path) -> None:
    made = encoder()
    judge = Tokenizer.from_str(json.dumps(made.tokenizer))
    with engine(_convert(made, tmp_path), tmp_path, task="embedding") as running:
        _check_tokens(running, made)
        for text in TEXT:
            found = running.ask("/v1/embeddings", input=text)["data"][0]["embedding"]
            assert np.dot(found, embedding(made, judge.encode(text).ids)) > 0.9999


def test_a_real_embedding_model_keeps_its_vectors(minilm: Path, tmp_path: Path) -> None:
    config = json.loads((minilm / "config.json").read_text())
    tokenizer = json.loads((minilm / "tokenizer.json").read_text())
    tokenizer["padding"] = tokenizer["truncation"] = None
    made = Checkpoint(config, tokenizer)
    made.tensors = _tensors(minilm / "model.safetensors")
    judge = Tokenizer.from_str(json.dumps(tokenizer))
    vectors = {text: embedding(made, judge.encode(text).ids) for text in TEXT[:3]}
    for kind in ("bf16", "f16"):
        target = tmp_path / f"{kind}.gguf"
        write(plan(minilm, kind, "minilm"), target, lambda *_: None)
        with engine(target, tmp_path, task="embedding") as running:
            for text in TEXT:
                tokens = judge.encode(text, add_special_tokens=False).ids
                assert running.tokens(text) == tokens
            for text, vector in vectors.items():
                found = running.ask("/v1/embeddings", input=text)["data"][0]["embedding"]
                assert np.dot(found, vector) > 0.999


@pytest.mark.parametrize("family", ["llama3", "qwen2", "gemma3"])
def test_adapters_count_as_much_as_they_were_trained_to_also_at_once(
    family: str, tmp_path: Path
) -> None:
    made = decoder(family)
    base = _convert(made, tmp_path)
    loras = [Lora(made, 1), Lora(made, 2, rank=8, alpha=24.0)]
    loras[1].config["use_rslora"] = True
    files = []
    for number, lora in enumerate(loras):
        arch = {"llama3": "llama"}.get(family, family)
        folder = lora.save(tmp_path / str(number))
        planned = plan_adapter(folder, Base(arch=arch, layers=LAYERS, head=HEAD), "f32", "a")
        files.append(tmp_path / f"{number}.gguf")
        write(planned, files[-1], lambda *_: None)
    wide = loras[1].merged(made, 8**0.5)  # by the root of the rank in place of the rank
    with engine(base, tmp_path, *files, slots=2) as running:
        for scales, judge in ((0, 0), made), ((1, 0), loras[0].merged(made)), ((0, 1), wide):
            chosen = [{"id": number, "scale": float(s)} for number, s in enumerate(scales)]
            _check_numbers(running, judge, lora=chosen)


def test_shards_and_sixteen_bits_are_read_as_well(tmp_path: Path) -> None:
    made = decoder("qwen2")
    folder = made.save(tmp_path / "files", "F16", parts=3)
    target = tmp_path / "model.gguf"
    write(plan(folder, "f32", "m"), target, lambda *_: None)
    with engine(target, tmp_path) as running:
        _check_numbers(running, made)


def test_a_folder_becomes_a_version_then_one_that_answers(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    house = new_house(empty=True)
    made = decoder("llama3")
    made.files["README.md"] = b"---\nlicense: apache-2.0\n---\nA card.\n"
    folder = made.save(tmp_path / "tiny", "BF16", parts=2)
    kept = house.json("model", "import", str(folder), "--licence", "mit")
    assert (kept["model"], kept["version"], kept["new"]) == ("tiny", 1, True)
    refused = house.run_cli("deploy", "tiny")
    assert refused.returncode == 1
    assert "freehold model convert tiny:1" in refused.stderr
    done = house.json("model", "convert", "tiny", "--type", "f16")
    assert (done["version"], done["new"], done["lineage"]) == (2, True, ["tiny:1"])
    again = house.json("model", "convert", "tiny:1", "--type", "f16")
    assert (again["version"], again["new"]) == (2, False)
    shown = house.json("model", "show", "tiny")
    assert shown["aliases"] == {"production": 2}
    assert [v["format"] for v in shown["versions"]] == ["safetensors", "gguf"]
    assert [v["manifest"]["quantisation"] for v in shown["versions"]] == ["BF16", "F16"]
    # What the files say goes along: saying otherwise is no way around a policy.
    assert [v["manifest"]["licence"] for v in shown["versions"]] == ["apache-2.0"] * 2
    assert [v["licence"] for v in shown["versions"]] == ["mit", "mit AND apache-2.0"]
    assert {"config.json", "tokenizer.json"} < {
        a["name"] for a in shown["versions"][0]["artifacts"]
    }
    assert "gguf already" in house.run_cli("model", "convert", "tiny").stderr
    house.cli("model", "verify", "tiny:1")
    house.cli("deploy", "tiny")
    house.start()
    answer = house.chat(model="tiny", max_tokens=4)
    assert answer.status == 200, answer.body
    assert list((house.home / "scratch").iterdir()) == []


def test_what_is_not_known_is_said_before_any_work(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    house = new_house(empty=True).start()
    made = decoder("llama3")
    made.config["architectures"] = ["FancyForCausalLM"]
    house.cli("model", "import", str(made.save(tmp_path / "fancy")))
    answer = house.call("POST", "/api/models/fancy/versions/1/convert", {})
    assert (answer.status, answer.error["code"]) == (400, "invalid.checkpoint")
    assert "LlamaForCausalLM" in answer.error["message"]
    assert not [job for job in house.call("GET", "/api/jobs").json if job["kind"] == "convert"]
    reader = house.make_key("auditor")
    denied = house.call("POST", "/api/models/fancy/versions/1/convert", {}, key=reader)
    assert denied.status == 403


def test_kills_in_the_middle_leave_no_half_version(
    new_house: Callable[..., House], tmp_path: Path
) -> None:
    house = new_house(empty=True)
    made = decoder("llama3")
    made.matrix("model.embed_tokens.weight", made.config["vocab_size"], 64)
    for number in range(3, 43):  # 40 layers more, 30 MB in all, to have time
        for name in [n for n in made.tensors if n.startswith("model.layers.0.")]:
            made.tensors[name.replace(".0.", f".{number}.", 1)] = made.tensors[name]
    made.config |= {"num_hidden_layers": 43, "intermediate_size": 1024}
    for name in [n for n in made.tensors if ".mlp." in n]:
        shape = (64, 1024) if "down" in name else (1024, 64)
        made.tensors[name] = np.zeros(shape, np.float32)
    house.cli("model", "import", str(made.save(tmp_path / "long")))
    house.start()
    for victim in ("control", "child"):
        job = house.call("POST", "/api/models/long/versions/1/convert", {}).json
        children = eventually(lambda: _converters(house), "the conversion has begun")
        if victim == "control":
            house.kill_control()
            eventually(partial(_are_gone, children), "it ends too")
            house.start()
        else:
            os.kill(children[0], signal.SIGKILL)
            done = house.call("GET", f"/api/jobs/{job['id']}?wait=30").json
            assert (done["state"], done["error"]["code"]) == ("failed", "broken.conversion")
        numbers = [v["number"] for v in house.json("model", "show", "long")["versions"]]
        assert numbers == [1]
        assert not list((house.home / "scratch").glob("convert-*"))
    assert house.json("model", "convert", "long")["version"] == 2


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['gguf'] = None\n"
        "from freehold.cli.main import main; sys.exit(main())"
    )
    made = decoder("llama3")
    home = House(tmp_path / "home")
    home.cli("model", "import", str(made.save(tmp_path / "tiny")))
    ran = subprocess.run(
        [sys.executable, "-c", script, "model", "convert", "tiny", "--home", str(home.home)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "pip install 'freehold[convert]'" in ran.stderr


def _are_gone(pids: list[int]) -> bool:
    return not any(map(psutil.pid_exists, pids))


def _converters(house: House) -> list[int]:
    """The processes that convert for a house, once one of them has written something."""
    assert house.control is not None
    started = time.monotonic()
    while time.monotonic() - started < 0.2:
        if any(p.stat().st_size for p in (house.home / "scratch").glob("convert-*/model.gguf")):
            found = psutil.Process(house.control.pid).children(recursive=True)
            return [p.pid for p in found if "freehold.models.convert" in p.cmdline()]
    return []


def _tensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + at for at in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return found
