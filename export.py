"""Write a model as a GGUF file for llama.cpp, Ollama and LM Studio.

python export.py models/x.pt --to gguf                 models/x.gguf in f16, and models/x.Modelfile for Ollama
python export.py models/x.pt --to gguf --dtype q8_0    half the size
python export.py hf_model --to gguf -o x.gguf          a Hugging Face folder
A real llama.cpp loads the file and is compared with the model before the file gets its name. docs/engines.md has more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engines import GGUF_DTYPES
from jojo.command import Parser, run_command
from utils import UserError, __version__, byte_count, log, replace_text, user_path


def build_parser() -> Parser:
    """Flags of export.py."""
    parser = Parser("MODEL --to gguf ", prog="export.py", description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="checkpoint or Hugging Face folder")
    add("--to", required=True, choices=("gguf",), help="format of the file")
    add("--dtype", default="f16", choices=GGUF_DTYPES, help="type of the matrices [%(default)s]")
    add("-o", "--output", metavar="FILE", help="the file to write; default: MODEL.gguf beside the model")
    add("--no_check", action="store_true", help="do not load the file with llama.cpp")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="show tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def default_output(model: Path) -> Path:
    """MODEL.gguf beside the model, or in the current folder if the model lies outside of it."""
    name = f"{model.resolve().name.removesuffix('.pt')}.gguf"
    inside = Path.cwd() in model.resolve().parents
    return model.with_name(name) if inside else Path(name)


def main(arguments: Sequence[str]) -> int:
    """Run export.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    path = user_path(args.model)
    output = user_path(args.output) if args.output else default_output(path)
    if output.suffix != ".gguf":
        raise UserError(f"'{output}' must end in .gguf, so that programs find it; correct -o.")

    from engines.export import export_gguf
    from engines.modelfile import modelfile
    from generation import load_model
    from hf.folder import load_folder_or_file

    model, tokenizer, _ = load_model(load_folder_or_file(path))
    export_gguf(model, tokenizer, output, args.dtype, output.stem, check=not args.no_check)
    agreed = "not checked by llama.cpp" if args.no_check else "llama.cpp agrees: ids, probabilities, greedy text"
    log.info("Wrote '%s' (%s, %s; %s).", output, args.dtype, byte_count(output.stat().st_size), agreed)
    beside = output.with_suffix(".Modelfile")
    if beside.exists():
        log.info("'%s' stays as it is; delete it to get a new one.", beside)
    else:
        replace_text(beside, modelfile(model, tokenizer, output.name))
        log.info("Wrote '%s'.", beside)
    log.info('llama.cpp: llama-cli -m %s -p "Once upon a time"', output)
    log.info("Ollama:    ollama create %s -f %s && ollama run %s", output.stem, beside, output.stem)
    return 0


if __name__ == "__main__":
    run_command(main)
