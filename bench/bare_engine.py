"""The bare engine: llama.cpp's server exactly as Freehold runs it, with nothing around it.

    python -m bench.bare_engine MODEL.gguf [--context 8192] [--slots 4] [--threads N]

Prints one JSON line with its URL and key, then serves until it is stopped.
"""

import argparse
import json
import os
import secrets
import threading

import psutil
import xllamacpp


def main() -> None:
    """Serve one model file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--alias", default="bare")
    parser.add_argument("--threads", type=int, help="[the cores]")
    parser.add_argument("--key", default=secrets.token_urlsafe(24))
    given = parser.parse_args()
    key = given.key
    cores = given.threads or min(psutil.cpu_count(logical=False) or 1, len(os.sched_getaffinity(0)))
    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.api_keys = [key]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = given.context
    params.n_parallel = given.slots
    params.kv_unified = True
    params.cpuparams.n_threads = cores
    params.cpuparams_batch.n_threads = cores
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.ui = False
    params.verbosity = 2
    server = xllamacpp.Server(params)
    print(json.dumps({"url": f"{server.listening_address}/v1", "key": key}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
