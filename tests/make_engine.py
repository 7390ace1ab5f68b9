"""A source distribution that builds in seconds: its server is the wheel's, behind a tiny program.

Real where it matters: CMake and the compiler make the program, and what it becomes is a llama.cpp
server that takes the command line of one.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

CMAKE = """cmake_minimum_required(VERSION 3.10)
project(tiny C)
add_executable(llama-server main.c)
set_target_properties(llama-server PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
"""
MAIN = """#include <unistd.h>
#include <stdio.h>
int main(int argc, char **argv) {
    char *found[256] = {PYTHON, SCRIPT};
    int count = 2;
    for (int i = 1; i < argc && count < 254; i++) found[count++] = argv[i];
    execv(PYTHON, found);
    perror("cannot start");
    return 1;
}
"""
SERVER = '''"""The wheel's server behind the command line of llama-server."""

import sys
import threading

import xllamacpp

if "--version" in sys.argv:
    print("version: 0.0-tiny (build 0)")
    sys.exit()
given = dict(zip(sys.argv[1:], sys.argv[2:]))
params = xllamacpp.CommonParams()
params.model.path = given["--model"]
params.model_alias = {given["--alias"]}
with open(given["--api-key-file"]) as file:
    params.api_keys = [file.read().strip()]
params.hostnames = [given["--host"]]
params.port = int(given["--port"])
params.n_ctx = int(given["--ctx-size"])
params.n_parallel = int(given["--parallel"])
params.n_ubatch = int(given.get("--ubatch-size", params.n_ubatch))
params.n_batch = int(given.get("--batch-size", params.n_batch))
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(given["--threads"])
params.embedding = "--embedding" in sys.argv
params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
params.kv_unified = True
params.ui = False
params.verbosity = 2
params.use_jinja = True
added = [after for flag, after in zip(sys.argv, sys.argv[1:]) if flag == "--lora-scaled"]
params.lora_adapters = [
    xllamacpp.CommonAdapterLoraInfo(path, float(scale))
    for path, _, scale in (each.rpartition(":") for each in added)
]
params.lora_init_without_apply = "--lora-init-without-apply" in sys.argv
if given.get("--cache-ram") == "0":
    params.cache_ram_mib = 0
params.cache_idle_slots = "--no-cache-idle-slots" not in sys.argv
WRONG
server = xllamacpp.Server(params)
threading.Event().wait()
'''


def source(folder: Path, *, wrong: bool = False, broken: bool = False) -> tuple[Path, str]:
    """Write the archive; ``wrong`` answers otherwise, ``broken`` does not compile."""
    script = folder / "server.py"
    script.write_text(SERVER.replace("WRONG", "params.rope_freq_base = 37.0" if wrong else ""))
    main = MAIN.replace("PYTHON", json.dumps(sys.executable)).replace(
        "SCRIPT", json.dumps(str(script))
    )
    root = "tiny-1.0/vendor/llama.cpp"
    return archive(
        folder / f"tiny{'-wrong' * wrong}{'-broken' * broken}.tar.gz",
        {
            "tiny-1.0/PKG-INFO": "Name: tiny",
            f"{root}/CMakeLists.txt": CMAKE,
            f"{root}/main.c": main + ("this is no C" if broken else ""),
            f"{root}/tools/server/CMakeLists.txt": "",
            f"{root}/ggml/CMakeLists.txt": "",
        },
    )


def program(folder: Path, wrong: str = "") -> Path:
    """Compile the server alone, as a build would lie there, and return the folder it is in.

    ``wrong`` is a line that it runs before it serves; ``rewrite`` gives it another.
    """
    script, main = folder / "server.py", folder / "main.c"
    rewrite(folder, wrong)
    text = MAIN.replace("PYTHON", json.dumps(sys.executable))
    main.write_text(text.replace("SCRIPT", json.dumps(str(script))))
    built = folder / "built"
    built.mkdir()
    subprocess.run(["cc", "-o", str(built / "llama-server"), str(main)], check=True)
    return built


def rewrite(folder: Path, wrong: str) -> None:
    """Have a compiled server act otherwise from its next start: as when a card or library goes."""
    (folder / "server.py").write_text(SERVER.replace("WRONG", wrong))


def archive(path: Path, files: dict[str, str], *links: tarfile.TarInfo) -> tuple[Path, str]:
    """Write a gzipped tar archive and return it with its digest."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
        for link in links:
            tar.addfile(link)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
