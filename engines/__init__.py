"""Files that other programs run: GGUF for llama.cpp, Ollama and LM Studio."""

GGUF_DTYPES = ("f16", "bf16", "q8_0")  # of the matrices; vectors are float32
