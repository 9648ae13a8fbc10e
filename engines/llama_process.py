"""A llama.cpp server for one GGUF file: engines/llama_process.py FILE CONTEXT. It prints its address, and ends with its input.

It is a process of its own, because llama.cpp ends its process if something in a file is not as it expects.
"""

import os
import sys

import xllamacpp


def main(path: str, context: int) -> None:
    """Serve until the input ends."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path, parameters.n_ctx, parameters.n_parallel = path, context, 1
    parameters.warmup, parameters.verbosity = False, 1  # 1: errors only
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = max(1, (os.cpu_count() or 1) // 2)  # threads that wait for a busy core are slow
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # closing the server can wait for its own threads for ever


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
