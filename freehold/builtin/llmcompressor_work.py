"""What ``compressor.llmcompressor`` runs in an interpreter of its own, in which nothing of ours is.

Run as a script: an order as JSON on standard input, lines of JSON on standard output: ``{"stage",
"share"}`` while it works, ``{"scheme"}`` for each scheme that was made and judged, ``{"done"}`` or
``{"error"}`` at last. Only the standard library and what llm-compressor brings is imported. What
was made of a scheme is kept in scratch with what it lost, so a second run begins after it.

No code of a checkpoint is run, nothing is unpickled, nothing is fetched.
"""

import contextlib
import fcntl
import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH, FIRST = 256, 32
"""Tokens of a text, and of those the ones at its beginning that are not judged."""
LEARNED, JUDGED = 64, 16
ROWS = 64
"""Positions that are compared at once."""
LOCKED = 60.0


class Work:
    """An order under way. ``tell`` writes a line."""

    def __init__(self, order: dict[str, Any], tell: Any) -> None:
        import torch
        from transformers import AutoTokenizer

        self.folder, self.scratch = order["folder"], Path(order["scratch"])
        self.tell = tell
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        torch.set_num_threads(order["threads"])
        self.tokenizer = AutoTokenizer.from_pretrained(
            self.folder, trust_remote_code=False, local_files_only=True
        )
        self.learn = self._texts(order["learn"])[:LEARNED]
        self.judge = self._texts(order["judge"])[:JUDGED]
        if not self.learn or not self.judge:
            raise ValueError("the calibration text has too few tokens")

    def _texts(self, passages: list[str]) -> list[list[int]]:
        stream: list[int] = []
        for passage in passages:
            stream += self.tokenizer(passage + "\n\n", add_special_tokens=False)["input_ids"]
        begins = self.tokenizer.bos_token_id
        lead = [begins] if begins is not None else []
        step = LENGTH - len(lead)
        found = [lead + stream[at : at + step] for at in range(0, len(stream), step)]
        return [text for text in found if len(text) > FIRST + 2]

    def model(self, folder: str) -> Any:
        """Load a checkpoint as it is stored, from safetensors only."""
        from transformers import AutoModelForCausalLM

        found = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", trust_remote_code=False, local_files_only=True,
            use_safetensors=True,
        )  # fmt: skip
        return found.to(self.device).eval()

    def reference(self) -> None:
        """Keep what the original predicts, unless that was done before."""
        from safetensors.torch import save_file

        if (self.scratch / "reference.json").exists():
            return
        model = self.model(self.folder)
        for number, rows in enumerate(self._predictions(model, "reference")):
            save_file({"logp": rows.half().cpu()}, self._kept(number))
        _keep(self.scratch / "reference.json", {"texts": len(self.judge)})

    def make(self, scheme: str) -> dict[str, Any]:
        """Make the files of a scheme and judge them as they were written."""
        target = self.scratch / scheme
        told = self.scratch / f"{scheme}.json"
        if told.exists():
            found: dict[str, Any] = json.loads(told.read_text())
            return found
        began = time.monotonic()
        shutil.rmtree(target, ignore_errors=True)
        self.tell({"stage": f"make {scheme}", "share": 0.0})
        self._oneshot(scheme, target)
        found = self._compare(self.model(str(target)), scheme)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found |= {
            "scheme": scheme,
            "seconds": round(time.monotonic() - began, 2),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_memory": usage.ru_maxrss * 1024,
        }
        _keep(told, found)
        return found

    def _oneshot(self, scheme: str, target: Path) -> None:
        from datasets import Dataset
        from llmcompressor import oneshot
        from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

        kind = QuantizationModifier if scheme == "FP8_DYNAMIC" else GPTQModifier
        rows = [{"input_ids": text, "attention_mask": [1] * len(text)} for text in self.learn]
        # Eight-bit floats with scales made on the way need no text to learn from.
        learns = {} if scheme == "FP8_DYNAMIC" else {
            "dataset": Dataset.from_list(rows), "max_seq_length": LENGTH,
            "num_calibration_samples": len(rows), "shuffle_calibration_samples": False,
        }  # fmt: skip
        model = self.model(self.folder)
        oneshot(
            model=model,
            tokenizer=self.tokenizer,
            recipe=kind(targets="Linear", scheme=scheme, ignore=["lm_head"]),
            **learns,
        )
        model.save_pretrained(target, save_compressed=True)
        self.tokenizer.save_pretrained(target)

    def _compare(self, model: Any, scheme: str) -> dict[str, Any]:
        """Return divergence, both losses on the next token and agreement, text by text."""
        from safetensors.torch import load_file

        found: dict[str, list[list[float]]] = {
            name: [] for name in ("divergence", "before", "after", "agrees")
        }
        for number, rows in enumerate(self._predictions(model, f"judge {scheme}")):
            before = load_file(self._kept(number))["logp"].to(rows.device).float()
            before = before - before.logsumexp(-1, keepdim=True)
            told: dict[str, list[float]] = {name: [] for name in found}
            for at in range(0, len(rows), ROWS):
                p, q = before[at : at + ROWS], rows[at : at + ROWS]
                told["divergence"] += (p.exp() * (p - q)).sum(-1).clamp(min=0).tolist()
                told["agrees"] += (p.argmax(-1) == q.argmax(-1)).float().tolist()
            following = self.judge[number][FIRST + 1 :]
            for name, logp in (("before", before), ("after", rows)):
                told[name] = [-logp[at, token].item() for at, token in enumerate(following)]
            for name, values in told.items():
                found[name].append(values)
        if not all(math.isfinite(v) for texts in found.values() for each in texts for v in each):
            raise ValueError(f"what was made as {scheme} predicts no numbers")
        return {**found, "device": self.device}

    def _predictions(self, model: Any, stage: str) -> Iterator[Any]:
        """Yield the log-probabilities of each judging text, from the first judged position on."""
        import torch

        with torch.inference_mode():
            for number, text in enumerate(self.judge):
                self.tell({"stage": stage, "share": number / len(self.judge)})
                logits = model(input_ids=torch.tensor([text], device=self.device)).logits[0, FIRST:]
                yield logits.float().log_softmax(-1)

    def _kept(self, number: int) -> str:
        return str(self.scratch / f"reference-{number}.safetensors")


def _keep(path: Path, value: object) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def _alone(scratch: Path) -> int:
    """Return a lock on the folder: a process of a killed control may still be about to end."""
    lock = os.open(scratch / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCKED
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def main() -> int:
    """Read the order, work, say how it went."""
    os.umask(0o077)
    order = json.loads(sys.stdin.buffer.read())
    told = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever libraries print is no line of ours

    def tell(document: object) -> None:
        told.write(json.dumps(document).encode() + b"\n")

    try:
        _alone(Path(order["scratch"]))
        work = Work(order, tell)
        work.reference()
        for scheme in order["schemes"]:
            tell({"scheme": work.make(scheme)})
    except MemoryError:
        tell({"error": {"kind": "unavailable", "code": "unavailable.memory",
                        "message": "not enough memory for this compression"}})  # fmt: skip
        return 1
    except OSError as error:
        tell({"error": {"kind": "os", "code": str(error.errno or 0), "message": str(error)}})
        return 1
    except Exception as error:  # noqa: BLE001  # anybody's libraries: their words are told
        text = f"llm-compressor cannot do this: {type(error).__name__}: {error}"[:600]
        tell({"error": {"kind": "invalid", "code": "invalid.checkpoint", "message": text}})
        return 1
    tell({"done": True})
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
