"""Open WebUI as it is, in a real browser, with Freehold behind it: ``make open-webui``.

Needs Chromium with its driver and, once, a network and 3 GB for Open WebUI. A person's question is
typed into the page and the streamed answer is read from it.

    python -m tests.clients.open_webui [PICTURE.png]
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.run import FOLDER, WORK
from tests.house import House, eventually

VENV = WORK / "open-webui"
QUESTION = "Say hello to the reader in one short sentence."
STARTS_WITHIN = 300.0
ANSWERS_WITHIN = 120


def install() -> None:
    """Put Open WebUI where it is kept between runs."""
    if not (VENV / "bin" / "open-webui").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        wanted = ("open-webui", "selenium")
        subprocess.run([str(VENV / "bin" / "pip"), "install", "-q", *wanted], check=True)


@contextmanager
def serving(house: House, folder: Path) -> Iterator[str]:
    """Run Open WebUI; it knows of nothing but Freehold."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {
        **os.environ,
        "DATA_DIR": str(folder),
        "WEBUI_AUTH": "False",
        "WEBUI_SECRET_KEY": "only-for-this-run",
        "OPENAI_API_BASE_URL": f"{house.url}/v1",
        "OPENAI_API_KEY": house.key,
        "ENABLE_OLLAMA_API": "False",
        "RAG_EMBEDDING_ENGINE": "openai",
        "OFFLINE_MODE": "True",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_VERSION_UPDATE_CHECK": "False",
        "SCARF_NO_ANALYTICS": "true",
        "ANONYMIZED_TELEMETRY": "false",
    }
    command = [str(VENV / "bin" / "open-webui"), "serve", "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, cwd=folder, stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url), "Open WebUI", STARTS_WITHIN)
        yield url
    finally:
        child.terminate()
        child.wait()


def _answers(url: str) -> bool:
    ran = subprocess.run(["curl", "-fsS", f"{url}/health"], capture_output=True, check=False)
    return ran.returncode == 0


def main() -> None:
    """Start a house and Open WebUI, and ask from the browser."""
    install()
    weights = next((FOLDER.parents[1] / ".cache").glob("*.gguf"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        house = House(folder / "home")
        house.cli("model", "import", str(weights), "--name", "smol")
        house.cli("deploy", "smol")
        try:
            house.start()
            data = folder / "open-webui"
            data.mkdir()
            with serving(house, data) as url:
                _ask(url, sys.argv[1:])
            asked = [r for r in house.audit(limit="100") if r.get("deployment") == "smol"]
            streamed = [r for r in asked if r.get("stream") and r.get("outcome") == "ok"]
            assert streamed, "no whole stream was recorded"
            print(f"recorded: {len(asked)} answers, {len(streamed)} of them streamed and whole")
        finally:
            house.close()


def _ask(url: str, picture: list[str]) -> None:
    """Type the question in a browser, which runs in the virtual environment of Open WebUI."""
    script = Path(__file__).with_name("browser.py")
    ran = subprocess.run(
        [str(VENV / "bin" / "python"), str(script), url, QUESTION, str(ANSWERS_WITHIN), *picture],
        check=False,
    )
    assert ran.returncode == 0, "the browser saw no answer"


if __name__ == "__main__":
    main()
