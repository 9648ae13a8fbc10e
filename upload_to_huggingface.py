"""Publish a model: checkpoint -> Hugging Face folder -> Hub.

    python upload_to_huggingface.py models/x.pt --repo-name my-model --dataset fairytales --dry-run
    python upload_to_huggingface.py models/x.pt --repo-name my-model --dataset fairytales --private

The folder is loaded back with transformers and compared with the checkpoint before it is uploaded.
--dry-run stops before the upload. docs/huggingface.md explains the folder, the model card and the messages.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engines import GGUF_DTYPES
from jojo.command import Parser, run_command
from utils import UserError, __version__, log, one_line, user_path

if TYPE_CHECKING:
    from pathlib import Path

    from model import GPT

REPOSITORY = r"(?!.*(\.git|[-.])$)[A-Za-z0-9_](?:[A-Za-z0-9_]|[-.](?![-.]))*"
NAMES = {  # flag: (pattern of the names that the Hub accepts, hint for the error message)
    "repo_name": (REPOSITORY, "with letters, digits, '_', single '-' and '.'; the owner goes into --organization"),
    "organization": (REPOSITORY, "with letters, digits, '_', single '-' and '.'"),
    "dataset": (r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", "like 'fairytales' or 'owner/fairytales'"),
    "license": (r"[a-z0-9][a-z0-9.-]*", "like 'mit' or 'cc-by-4.0'"),
    "language": (r"[a-z]{2,3}(-[A-Za-z]+)?", "like 'en'"),
}


def build_parser() -> Parser:
    """Flags of upload_to_huggingface.py."""
    parser = Parser("CHECKPOINT --repo-name NAME --dataset NAME ", prog="upload_to_huggingface.py", description=__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="checkpoint of any version")
    add("--repo-name", required=True, metavar="NAME", help="name of the repository, without its owner")
    add("--dataset", required=True, metavar="NAME", help="what the model was trained on, for the model card")
    add("--organization", metavar="ORG", help="owner of the repository; default: you")
    add("--private", action="store_true", help="create a repository that only its owner can see")
    add("--tokenizer", choices=("gpt2", "extended"), help="extended has the chat tokens; default: the checkpoint's")
    add("--license", default="mit", metavar="ID", help="licence, as the Hub calls it [%(default)s]")
    add("--language", default="en", metavar="CODE", help="language of the texts [%(default)s]")
    gguf = "also a GGUF file for llama.cpp and Ollama, with matrices of this type [f16]"
    add("--gguf", nargs="?", const="f16", choices=GGUF_DTYPES, help=gguf)
    add("--output-dir", default="./hf_model", metavar="DIR", help="the folder to write [%(default)s]")
    add("--commit-message", metavar="MESSAGE", help="message of the commit; default: Upload NAME (Jojo VERSION)")
    add("--dry-run", action="store_true", help="make and check the folder, but do not use the network")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def refuse_names(args: argparse.Namespace) -> None:
    """Raises UserError for names that the Hub does not accept."""
    for name, (pattern, hint) in NAMES.items():
        value = getattr(args, name)
        if value is not None and (len(value) > 96 or not re.fullmatch(pattern, value, re.ASCII)):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} '{one_line(value, 40)}' is not a name that the Hub accepts; write it {hint}.")


def main(arguments: Sequence[str]) -> int:
    """Run upload_to_huggingface.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    refuse_names(args)

    from hf.hub import Hub, check_endpoint

    check_endpoint()
    from engines.export import export_gguf
    from hf.card import CardRequest, write_card
    from hf.export import export, export_tokenizer, refuse_to_overwrite
    from hf.folder import GGUF_FILE
    from jojo.checkpoints.checkpoint import load_checkpoint

    folder = user_path(args.output_dir).resolve()
    refuse_to_overwrite(folder)
    checkpoint = load_checkpoint(user_path(args.checkpoint))
    tokenizer = export_tokenizer(checkpoint, args.tokenizer)
    hub = None if args.dry_run else Hub()
    owner = args.organization or (hub.user if hub else None)
    repo_id = f"{owner}/{args.repo_name}" if owner else args.repo_name
    request = CardRequest(repo_id, args.dataset, args.license, args.language, bool(args.gguf))

    def write_rest(place: Path, model: GPT) -> None:
        write_card(checkpoint, model, tokenizer, request, place)
        if args.gguf:
            export_gguf(model.eval(), tokenizer, place / GGUF_FILE, args.gguf, args.repo_name)

    export(checkpoint, folder, tokenizer, write_rest)
    log.info("Exported to '%s'. Weights, logits, greedy text and tokens equal those of '%s'.", folder, checkpoint.path)
    if hub is None:
        log.info("Nothing was uploaded, because of --dry-run.")
        return 0
    message = args.commit_message or f"Upload {args.repo_name} (Jojo {__version__})"
    try:
        address = hub.upload(folder, repo_id, args.private, message)
    except UserError as error:
        raise UserError(f"{error} The folder '{folder}' is complete.") from error
    log.info("Uploaded: %s", address)
    return 0


if __name__ == "__main__":
    run_command(main)
