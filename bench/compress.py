"""Compression beside llama.cpp's stock types: the same model, the same texts, interleaved.

The peer is ``llama_model_quantize`` itself, from an npm package that ships llama.cpp's library,
with the same importance matrix and without. Weights of a full-precision model are not to be had
everywhere, so the reference is made off any grid: a quantised model as 16-bit floats, plus noise
of about the size of its own rounding. Both sides compress that. Judged by text neither learned
from.

    python -m bench.compress [MODEL.gguf ...] [--out FILE]
"""

import argparse
import ctypes as c
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import compressed
from bench.stage import catalog_model, starter
from freehold.models import ggml
from freehold.models.compress import calibration
from freehold.models.compress.order import Order
from freehold.models.compress.ruler import Predictions
from freehold.models.compress.weights import Weights, full_type, pieces_of
from freehold.models.compress.work import Work, mean
from freehold.models.gguf_write import metadata_bytes, retyped, write
from freehold.models.intervals import mean_interval

PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
STOCK = {"Q3_K_M": 12, "IQ4_XS": 30, "Q4_0": 2, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
"""Names to numbers of llama.cpp's file types."""
SMALLER = 0.08
"""How much smaller than the stock file ours is made, to see that it still loses less."""
NAMES = ("Q4_0", "Q4_K_M", "Q5_K_M")
"""Those that are measured where nothing else is said."""
NOISE = 0.07
"""Of a row's own spread: what four bits round away, so that the weights lie on nobody's grid."""
HERE = Path(__file__).parent
WORK = HERE / ".work" / "compress"


class Stock(c.Structure):
    """``llama_model_quantize_params``."""

    _fields_ = (
        ("nthread", c.c_int32), ("ftype", c.c_int), ("output", c.c_int), ("embedding", c.c_int),
        ("allow_requantize", c.c_bool), ("quantize_output", c.c_bool), ("only_copy", c.c_bool),
        ("pure", c.c_bool), ("keep_split", c.c_bool), ("dry_run", c.c_bool),
        ("imatrix", c.c_void_p), ("overrides", c.c_void_p), ("types", c.c_void_p),
        ("prune", c.c_void_p), ("buffer", c.c_size_t),
    )  # fmt: skip


class Matrix(c.Structure):
    """``llama_model_imatrix_data``."""

    _fields_ = (("name", c.c_char_p), ("data", c.c_void_p), ("size", c.c_size_t))


def peer() -> Path:
    """Return the folder of llama.cpp's libraries, fetched once."""
    found = WORK / "package" / "bins" / "linux-x64"
    if not found.is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", PACKAGE], cwd=WORK, check=True, capture_output=True)
        archive = next(WORK.glob("node-llama-cpp-*.tgz"))
        subprocess.run(["tar", "xzf", archive.name], cwd=WORK, check=True)
    return found


def stock_child() -> None:
    """Quantise by llama.cpp: what is asked for on standard input as JSON. A child: it may abort."""
    asked = json.load(sys.stdin)
    folder = peer()
    for name in ("libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so"):
        library = c.CDLL(str(folder / name), mode=c.RTLD_GLOBAL)
    library.llama_model_quantize_default_params.restype = Stock
    library.llama_model_quantize.argtypes = (c.c_char_p, c.c_char_p, c.POINTER(Stock))
    params = library.llama_model_quantize_default_params()
    assert (params.ftype, params.output, params.buffer) == (7, 43, 8 << 30), "another layout"
    params.ftype, params.nthread = asked["ftype"], asked["threads"]
    kept = []
    if asked["importance"]:
        import base64

        rows = json.loads(Path(asked["importance"]).read_text())
        table = (Matrix * (len(rows) + 1))()
        for number, (name, text) in enumerate(rows.items()):
            data = base64.b64decode(text)
            buffer = c.create_string_buffer(data, len(data))
            kept += [buffer, name.encode()]
            table[number] = Matrix(kept[-1], c.addressof(buffer), len(data) // 4)
        params.imatrix = c.addressof(table)
    code = library.llama_model_quantize(
        asked["source"].encode(), asked["target"].encode(), c.byref(params)
    )
    sys.exit(code)


def stock(source: Path, target: Path, ftype: int, importance: Path | None, threads: int) -> float:
    """Make a stock file; return the CPU seconds it took."""
    asked = {"source": str(source), "target": str(target), "ftype": ftype, "threads": threads,
             "importance": str(importance) if importance else None}  # fmt: skip
    before = os.times()
    subprocess.run(
        [sys.executable, "-c", "from bench.compress import stock_child; stock_child()"],
        input=json.dumps(asked).encode(), check=True, capture_output=True,
    )  # fmt: skip
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def off_grid(source: Path, target: Path) -> None:
    """Write a model as 16-bit floats with noise: random bytes read as 8-bit weights, by ggml."""
    with_noise = Weights(source)
    entries = metadata_bytes(source, with_noise.header)
    entries.pop("general.file_type", None)
    wanted = [retyped(t, full_type(t)) for t in with_noise.header.tensors]
    library = ggml.library()

    def data(tensor: Any) -> Iterator[Any]:
        own = with_noise.tensors[tensor.name]
        if len(tensor.shape) == 1 or tensor.shape[0] % 32:
            yield from with_noise.raw(own)
            return
        cols = tensor.shape[0]
        for first, rows in pieces_of(tensor):
            floats = with_noise.floats(own, first, rows)
            count = rows * cols
            spread = math.sqrt(sum(x * x for x in floats[:4096]) / min(count, 4096))
            # Bytes from -128 to 127 spread by 73.9: the scale of a block makes that the noise.
            scale = (c.c_float * 1)(NOISE * spread / 73.9)
            half = (c.c_uint16 * 1)()
            library.ggml_fp32_to_fp16_row(c.addressof(scale), c.addressof(half), 1)
            blocks = bytearray(os.urandom(count // 32 * 34))
            for at in range(0, len(blocks), 34):
                blocks[at : at + 2] = bytes(half)
            noise = (c.c_float * count)()
            ggml.to_floats("Q8_0", ggml.addressable(blocks), count, noise)
            with ggml.graph(2 * count * 4) as g:
                a = g.tensor("F32", cols, rows, c.addressof(floats))
                total = g.add(a, g.tensor("F32", cols, rows, c.addressof(noise)))
                g.run(total)
                made = bytearray(count * 2)
                library.ggml_fp32_to_fp16_row(total.contents.data, ggml.addressable(made), count)
            yield made

    write(target, entries, wanted, data)


def child(order: Order) -> dict[str, Any]:
    """Compress as the product does; return what was measured."""
    ran = subprocess.run(
        [sys.executable, "-m", "freehold.models.compress.worker"],
        input=msgspec.json.encode(order), capture_output=True, check=True,
    )  # fmt: skip
    last = json.loads(ran.stdout.splitlines()[-1])
    if "measured" not in last:
        raise RuntimeError(last)
    found: dict[str, Any] = last["measured"]
    return found


def measure(model: Path, names: list[str], threads: int, *, texts: int = 12) -> dict[str, Any]:
    """Compress one model both ways; return sizes and divergences."""
    WORK.mkdir(parents=True, exist_ok=True)
    reference = taken_off(model)
    shipped = calibration.built_in()
    scratch = WORK / f"{model.stem[:12]}-scratch"
    scratch.mkdir(exist_ok=True)
    order = Order(source=str(reference), scratch=str(scratch), loss=0.01, threads=threads,
                  learn=shipped.learn, judge=shipped.judge, thorough=texts)  # fmt: skip
    found: dict[str, Any] = {
        "model": model.stem[:12], "reference_bytes": reference.stat().st_size, "stock": {}
    }  # fmt: skip
    ruler: Judge | None = None
    for name in names:
        plain, weighted = (WORK / f"{model.stem[:12]}-{name}{end}.gguf" for end in ("", "-im"))
        if not plain.exists():
            stock(reference, plain, STOCK[name], None, threads)
        # Ours may be as large as the stock file and not a byte more; what was measured is kept.
        size = plain.stat().st_size
        mine, smaller = (WORK / f"{model.stem[:12]}-{name}-ours{end}.gguf" for end in ("", "-less"))
        for target, path in ((int(size * (1 - SMALLER)), smaller), (size, mine)):
            (scratch / "measured.json").unlink(missing_ok=True)
            began = time.monotonic()
            ours = child(msgspec.structs.replace(order, target=target))
            wall = time.monotonic() - began
            (scratch / "compressed.gguf").replace(path)
        if not weighted.exists():
            stock(reference, weighted, STOCK[name], scratch / "importance.json", threads)
        ruler = ruler or Judge(reference, order, threads)
        row: dict[str, Any] = {
            "bytes_stock": size, "bytes_stock_importance": weighted.stat().st_size,
            "bytes_ours": mine.stat().st_size, "wall_seconds": round(wall, 1),
            "cpu_seconds": ours["cpu_seconds"], "kl_ours": ruler.kl(mine),
            "kl_stock": ruler.kl(plain), "kl_stock_importance": ruler.kl(weighted),
            f"kl_ours_{SMALLER:.0%}_smaller": ruler.kl(smaller),
        }  # fmt: skip
        for kind in ("kl_stock", "kl_stock_importance"):
            row[f"ours_over_{kind}"] = round(row["kl_ours"]["mean"] / row[kind]["mean"], 3)
        print(name, json.dumps(row), flush=True)
        found["stock"][name] = row
    return found


def part(given: argparse.Namespace) -> dict[str, Any]:
    """Compress beside the stock types, an embedding model and the 0.5B, for ``bench.run``.

    What was stopped goes on after the last piece that was done.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    model, coder = given.model or starter(), catalog_model(compressed.CODER)
    pieces: dict[str, Callable[[], dict[str, Any]]] = {
        "the 0.5B, no option": compressed.timing,
        "all-MiniLM-L6-v2": compressed.embedding,
        "the 0.5B from 16 bit, --max-loss 1%": lambda: compressed.one_per_cent(taken_off(coder)),
        **{
            f"{model.stem[:12]} at the size of {name}": partial(measure_one, model, name)
            for name in NAMES
        },
    }
    kept = WORK / "pieces.json"
    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, piece in pieces.items():
        if name not in found:
            print(f"bench: compress: {name}", file=sys.stderr, flush=True)
            found[name] = piece()
            kept.write_text(json.dumps(found))
    kept.unlink()
    return {name: found[name] for name in pieces}


def measure_one(model: Path, name: str) -> dict[str, Any]:
    """Compress a model to the size of one stock type."""
    found: dict[str, Any] = measure(model, [name], 2)["stock"][name]
    return found


def taken_off(model: Path) -> Path:
    """Return a model as 16-bit floats off any grid; made once."""
    reference = WORK / f"{model.stem[:12]}-off-grid.gguf"
    if not reference.exists():
        off_grid(model, reference)
    return reference


class Judge:
    """Judges files of any origin by one ruler."""

    def __init__(self, reference: Path, order: Order, threads: int) -> None:
        from freehold.models.llama import Model

        self._order = msgspec.structs.replace(order, threads=threads)
        self._work = Work(self._order, lambda *_: None)
        model = Model(reference)
        _, _, texts = self._work.texts(model)
        self._ruler = Predictions(texts, WORK / "bench.logp")
        (WORK / "bench.logp").unlink(missing_ok=True)
        reading = self._work.readers(model)
        self._ruler.learn(reading)
        reading.close()
        model.close()

    def kl(self, path: Path) -> dict[str, float]:
        """Return the divergence of a file with its interval."""
        scores = self._work.judge(path, self._ruler, "judge")
        found: dict[str, float] = msgspec.to_builtins(
            mean_interval([each.divergence for each in scores])
        )
        assert abs(found["mean"] - mean(scores)) < 1e-9
        return found


def main() -> None:
    """Run it and print figures."""
    reading = argparse.ArgumentParser()
    reading.add_argument("models", nargs="*", type=Path)
    reading.add_argument("--names", default=",".join(STOCK))
    reading.add_argument("--threads", type=int, default=2)
    reading.add_argument("--texts", type=int, default=12)
    reading.add_argument("--out", type=Path, default=WORK / "results.json")
    given = reading.parse_args()
    models = given.models or sorted((HERE.parent / ".cache").glob("*.gguf"))
    found = [measure(m, given.names.split(","), given.threads, texts=given.texts) for m in models]
    given.out.write_text(json.dumps(found, indent=1))
    print(given.out.read_text())


if __name__ == "__main__":
    main()
