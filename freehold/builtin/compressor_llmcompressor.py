"""``compressor.llmcompressor``: safetensors as vLLM runs them, by llm-compressor in its own Python.

Its libraries take 6 GB and want other versions than ours, so it is asked over a pipe: the setting
``compress.llmcompressor`` names an interpreter that has it.
"""

import math
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from freehold.errors import Invalid, NoCapacity, Unavailable
from freehold.models.child import end, lines
from freehold.models.compress.compressor import Commission, Made
from freehold.models.compress.launch import Found
from freehold.models.compress.native import ended, said
from freehold.models.compress.order import Measured, Point, TensorRow
from freehold.models.compress.request import LOSS, MOST_LOSS, Aim, Request
from freehold.models.identify import INDEX
from freehold.models.intervals import Interval, mean_interval
from freehold.models.registry import Version
from freehold.models.safetensors import Tensor, read_header
from freehold.models.source import Progress
from freehold.settings import Compress, environment

SCRIPT = Path(__file__).with_name("llmcompressor_work.py")
SCHEMES = ("W4A16", "FP8_DYNAMIC", "W8A8")
"""What may be made, the smallest first; the other two have the same size."""
GROUP = 128
"""Weights that share a scale in W4A16: rows must be whole ones."""
WHOLE = frozenset({"F32", "F16", "BF16"})
MADE = frozenset({"config.json", "generation_config.json", INDEX})
"""What is taken of a made checkpoint beside its weights; the tokenizer stays byte for byte."""
PARTS = ("_packed", "_scale", "_shape", "_zero_point", "_g_idx")
"""What a tensor's name may end in after it was packed."""
PASSED = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")


class Scheme(msgspec.Struct, frozen=True, kw_only=True):
    """One scheme as it was made and judged, text by text."""

    scheme: str
    divergence: list[list[float]]
    before: list[list[float]]
    after: list[list[float]]
    agrees: list[list[float]]
    seconds: float
    cpu_seconds: float
    peak_memory: int
    device: str

    @property
    def loss(self) -> Interval:
        """The divergence of its predictions, in nats a token."""
        return mean_interval(self.divergence)


class LLMCompressor:
    """Makes W4A16, FP8 or W8A8; the loss of each is measured, by its own predictions."""

    formats = ("safetensors",)

    def __init__(self, settings: Compress) -> None:
        """``settings.llmcompressor`` is the interpreter."""
        self._python = settings.llmcompressor

    def check(self, version: Version, request: Request) -> None:
        """Refuse what it cannot do, or cannot measure; and everything where it is not there."""
        name, manifest = f"{version.row.model}:{version.row.number}", version.manifest
        if version.row.format != "safetensors":
            raise Invalid("invalid.format", f"{name} is {version.row.format}, not safetensors")
        if manifest.adapter is not None:
            raise Invalid("invalid.task", f"{name} is an adapter: compress its base instead")
        if manifest.task not in ("chat", "completion"):
            raise Invalid(
                "invalid.task",
                f"{name} does {manifest.task}: llm-compressor is for models that write; convert it "
                "to GGUF and compress that",
            )
        if manifest.quantisation not in WHOLE:
            raise Invalid(
                "invalid.format",
                f"{name} holds {manifest.quantisation} already: take the original in 16 bit",
            )
        if request.tasks is not None:
            raise Invalid(
                "invalid.tests",
                "tasks are asked through an engine, and none here runs safetensors: leave them out",
            )
        _check_python(self._python)

    def compress(self, commission: Commission, progress: Progress) -> Made:
        """Make schemes until one is within what was asked; blocks for minutes."""
        version, request, scratch = commission.version, commission.request, commission.scratch
        _check_python(self._python)
        _check_memory(version)
        aimed = _aim(request, version)
        tensors = _tensors(commission.files)
        folder = laid_out(commission.files, scratch / "source")
        order = {
            "folder": str(folder),
            "scratch": str(scratch),
            "schemes": schemes(tensors, aimed, version.row.bytes),
            "threads": commission.hardware.cores,
            "learn": commission.texts.learn,
            "judge": commission.texts.judge,
        }
        found: list[tuple[Scheme, dict[str, Path]]] = []
        for line in self._lines(order, scratch, version.row.bytes, progress):
            if "scheme" in line:
                scheme = msgspec.convert(line["scheme"], Scheme)
                found.append((scheme, _files(commission.files, scratch / scheme.scheme)))
                if aimed.target is None and scheme.loss.high <= aimed.loss:
                    break
        scheme, files = pick(found, aimed)
        return Made(
            files=files,
            method=f"llm-compressor, {scheme.scheme} on {scheme.device}",
            aim=aimed,
            measured=_measured(version, tensors, scheme, found, files, len(commission.texts.learn)),
            launch=Found(settings=version.settings),
        )

    def _lines(
        self, order: dict[str, Any], scratch: Path, size: int, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        """Run the script to its end, or to that of whoever reads; yield what it says."""
        log = scratch / "log"
        with log.open("wb") as errors:
            child = subprocess.Popen(
                [self._python, "-I", str(SCRIPT)], cwd=scratch, env=_around(scratch),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        over = False
        try:
            child.stdin.write(msgspec.json.encode(order))
            child.stdin.close()
            for line in lines(child.stdout, progress, size):
                if error := line.get("error"):
                    raise said(error)
                over = over or "done" in line
                yield line
        except BrokenPipeError:
            pass
        finally:
            end(child)
        if not over:
            raise ended(log, child.returncode)


def schemes(tensors: Iterable[Tensor], aimed: Aim, size: int) -> list[str]:
    """Return which schemes are worth making for an aim, in the order to try them. Pure."""
    held = list(tensors)
    matrices = [tensor for tensor in held if _is_linear(tensor)]
    whole = all(tensor.shape[1] % GROUP == 0 for tensor in matrices)
    eight = size - sum(tensor.bytes - tensor.elements for tensor in matrices)
    if aimed.target is None:
        return [name for name in SCHEMES if whole or name != "W4A16"]
    if eight <= aimed.target or not whole:
        return ["FP8_DYNAMIC", "W8A8"]
    return ["W4A16"]


def pick(found: list[tuple[Scheme, dict[str, Path]]], aimed: Aim) -> tuple[Scheme, dict[str, Path]]:
    """Return the smallest within the loss, or the most faithful within the size. Pure but sizes."""

    def size(each: tuple[Scheme, dict[str, Path]]) -> int:
        return sum(path.stat().st_size for path in each[1].values())

    if aimed.target is None:
        within = [each for each in found if each[0].loss.high <= aimed.loss]
        return min(within, key=size) if within else min(found, key=lambda each: each[0].loss.mean)
    fitting = [each for each in found if size(each) <= aimed.target]
    if fitting:
        return min(fitting, key=lambda each: each[0].loss.mean)
    return min(found, key=size)


def _aim(request: Request, version: Version) -> Aim:
    """Where it runs is somewhere else: this machine's memory says nothing about it."""
    if request.target_size is not None:
        target = int(version.row.bytes * request.target_size)
        why = f"asked for {request.target_size:.0%} of the size"
        return Aim(loss=request.max_loss or MOST_LOSS, target=target, why=why)
    why = "asked for a loss" if request.max_loss else f"the smallest scheme within {LOSS:.0%}"
    return Aim(loss=request.max_loss or LOSS, target=None, why=why)


def _check_python(python: str) -> None:
    advice = (
        "compressing safetensors needs llm-compressor in a Python of its own (6 GB): python3 -m "
        "venv DIR && DIR/bin/pip install 'llmcompressor>=0.14,<0.15', then say in freehold.toml "
        '[compress] llmcompressor = "DIR/bin/python"; or convert it to GGUF and compress that'
    )
    if not python:
        raise Unavailable("unavailable.extra", advice)
    if not os.access(python, os.X_OK):
        raise Unavailable("unavailable.extra", f"{python} cannot be run; {advice}")
    if any(Path(python).parent.parent.glob("lib/python3*/site-packages/llmcompressor/__init__.py")):
        return
    look = "import importlib.util as u, sys; sys.exit(u.find_spec('llmcompressor') is None)"
    try:
        asked = subprocess.run([python, "-I", "-c", look], timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable("unavailable.extra", f"{python} cannot be run; {advice}") from error
    if asked.returncode:
        raise Unavailable("unavailable.extra", f"{python} has no llmcompressor; {advice}")


def _check_memory(version: Version) -> None:
    needed = int(version.row.bytes * 2.5) + 1_500_000_000
    available = psutil.virtual_memory().available
    if needed > available:
        raise NoCapacity(
            "unavailable.memory",
            f"compressing this takes {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB "
            "are free: stop something, or compress it on a larger machine",
        )


def _around(scratch: Path) -> dict[str, str]:
    """Return the environment: none of our secrets, no network, nothing written elsewhere."""
    given = environment()
    kept = {name: given[name] for name in PASSED if name in given}
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    own = {"HOME": str(scratch), "HF_HOME": str(scratch / "hf"), "TOKENIZERS_PARALLELISM": "false"}
    return kept | offline | own


def laid_out(files: Mapping[str, Path], folder: Path) -> Path:
    """Give a checkpoint's files their names again: links to where their bytes lie."""
    for name, path in files.items():
        place = folder / name
        if ".." in place.parts or Path(name).is_absolute():
            raise Invalid("invalid.checkpoint", f"{name!r:.80} is no name of a file")
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.unlink(missing_ok=True)
        place.symlink_to(path.absolute())
    return folder


def _files(source: Mapping[str, Path], made: Path) -> dict[str, Path]:
    """Return the files of a made checkpoint: its weights and config, and the source's own rest."""
    rest = {
        name: path for name, path in source.items()
        if name not in MADE and not name.endswith(".safetensors")
    }  # fmt: skip
    return rest | {
        path.name: path for path in sorted(made.iterdir())
        if path.name in MADE or path.suffix == ".safetensors"
    }  # fmt: skip


def _tensors(files: Mapping[str, Path]) -> list[Tensor]:
    names = sorted(name for name in files if name.endswith(".safetensors"))
    return [tensor for name in names for tensor in read_header(files[name]).tensors]


def _is_linear(tensor: Tensor) -> bool:
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and not any(part in tensor.name for part in ("embed", "lm_head", "norm", "wte", "wpe"))
    )


def _measured(
    version: Version,
    tensors: list[Tensor],
    scheme: Scheme,
    found: list[tuple[Scheme, dict[str, Path]]],
    files: Mapping[str, Path],
    learned: int,
) -> Measured:
    held = {tensor.name: tensor for tensor in _tensors(files)}
    rows = tuple(_row(tensor, held) for tensor in tensors)
    both = list(zip(scheme.before, scheme.after, strict=True))
    rise = mean_interval([[q - p for p, q in zip(a, b, strict=True)] for a, b in both])
    return Measured(
        bytes_before=version.row.bytes,
        bytes_full=sum(tensor.elements for tensor in tensors) * 2,
        bytes_after=_size(files),
        dequantised=False,
        tied=False,
        metric="kl",
        loss=scheme.loss,
        foreseen=scheme.loss.mean,
        perplexity_before=math.exp(mean_interval(scheme.before).mean),
        perplexity_after=math.exp(mean_interval(scheme.after).mean),
        perplexity=Interval(*(math.expm1(x) for x in (rise.mean, rise.low, rise.high))),
        agreement=mean_interval(scheme.agrees),
        tokens_judged=sum(map(len, scheme.divergence)),
        texts_learned=learned,
        tensors=rows,
        line=tuple(Point(_size(made), each.loss.mean) for each, made in found),
        seconds={each.scheme: each.seconds for each, _ in found},
        cpu_seconds=scheme.cpu_seconds,
        peak_memory=scheme.peak_memory,
    )


def _row(tensor: Tensor, held: Mapping[str, Tensor]) -> TensorRow:
    """Hold a tensor against what became of it: packed, or as it was, with its scales."""
    stem = tensor.name.removesuffix(".weight")
    names = {tensor.name, *(f"{stem}.weight{part}" for part in PARTS)}
    parts = [each for name, each in held.items() if name in names]
    own = held.get(tensor.name)
    after = own.dtype if own else "packed" if parts else "none"
    return TensorRow(
        name=tensor.name, shape=tensor.shape, before=tensor.dtype, after=after,
        bytes_before=tensor.bytes, bytes_after=sum(each.bytes for each in parts), loss=None,
    )  # fmt: skip


def _size(files: Mapping[str, Path]) -> int:
    return sum(path.stat().st_size for path in files.values())
