"""Run every client against one Freehold: ``make clients``. Needs npm, and a network once.

The model ``smol`` is the starter's, in a real engine. ``tools`` and ``texts`` are scripted engines,
which call a tool or say a text: the starter is too small to call tools, and sees no images.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.house import House
from tests.scripted import scripted

FOLDER = Path(__file__).parent
WORK = FOLDER.parents[1] / ".cache" / "clients"
PYTHON = ("langchain-openai", "langchain-anthropic", "llama-index-llms-openai-like", "llm")
JAVASCRIPT = (
    "openai", "@anthropic-ai/sdk", "ai", "@ai-sdk/open-responses", "@ai-sdk/anthropic", "zod",
)  # fmt: skip
CALLS = [
    {"index": 0, "id": "call_a", "type": "function",
     "function": {"name": "weather", "arguments": '{"city"'}},
    {"index": 0, "function": {"arguments": ': "Bonn"}'}},
]  # fmt: skip


def event(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip


def install() -> None:
    """Put the clients where they are kept between runs."""
    WORK.mkdir(parents=True, exist_ok=True)
    venv = WORK / "venv"
    if not (venv / "bin" / "llm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(venv / "bin" / "pip"), "install", "-q", *PYTHON], check=True)
    if not all((WORK / "node_modules" / name).exists() for name in JAVASCRIPT):
        subprocess.run(["npm", "init", "-y"], cwd=WORK, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["npm", "install", "--silent", *JAVASCRIPT], cwd=WORK, check=True)


def command(script: Path) -> list[str]:
    if script.suffix == ".mjs":  # modules are looked up beside the file
        copy = WORK / script.name
        copy.write_bytes(script.read_bytes())
        return ["node", str(copy)]
    if script.suffix == ".sh":
        return ["bash", str(script)]
    if "open_responses" in script.name:
        return [sys.executable, "-m", f"tests.clients.{script.stem}"]
    return [str(WORK / "venv" / "bin" / "python"), str(script)]


def run(house: House) -> int:
    """Run all, say how each went, and return how many failed."""
    environment = {
        **os.environ,
        "FREEHOLD_URL": house.url,
        "FREEHOLD_KEY": house.key,
        "PATH": f"{WORK / 'venv' / 'bin'}:{os.environ['PATH']}",
    }
    failed = 0
    for script in sorted(FOLDER.glob("with_*")):
        ran = subprocess.run(
            command(script), env=environment, capture_output=True, text=True, check=False
        )
        failed += ran.returncode != 0
        said = ran.stdout.strip() if ran.returncode == 0 else (ran.stdout + ran.stderr)[-3000:]
        print(f"{'ok    ' if ran.returncode == 0 else 'FAILED'} {script.name}: {said}", flush=True)
    return failed


def main() -> None:
    """Start a house with three deployments and run everything on it."""
    install()
    weights = next((FOLDER.parents[1] / ".cache").glob("*.gguf"))
    with tempfile.TemporaryDirectory() as folder, scripted() as tools, scripted() as texts:
        role = event({"role": "assistant", "content": None})
        tools.events = [
            role,
            *(event({"tool_calls": [call]}) for call in CALLS),
            event({}, "tool_calls"),
        ]
        texts.events = [role, event({"content": "A red dot."}), event({}, "stop")]
        house = House(Path(folder) / "home")
        house.cli("model", "import", str(weights), "--name", "smol")
        house.cli("deploy", "smol")
        house.cli("deploy", "--url", tools.url, "--as", "tools")
        house.cli("deploy", "--url", texts.url, "--as", "texts")
        try:
            sys.exit(run(house.start()))
        finally:
            house.close()


if __name__ == "__main__":
    main()
