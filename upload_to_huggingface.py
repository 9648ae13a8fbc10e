"""Publish a model: checkpoint -> Hugging Face folder -> Hub.

    python upload_to_huggingface.py models/x.pt --repo-name my-model --dataset fairytales --dry-run
    python upload_to_huggingface.py models/x.pt --repo-name my-model --dataset fairytales --private

The folder is loaded back with transformers and compared with the checkpoint before anything leaves this machine.
--dry-run stops there. docs/huggingface.md has all of it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from jojo.command import Parser, run_command
from utils import UserError, __version__, log, one_line, user_path


def build_parser() -> Parser:
    """Flags of upload_to_huggingface.py."""
    parser = Parser(
        prog="upload_to_huggingface.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="checkpoint of any version")
    add("--repo-name", required=True, metavar="NAME", help="the repository's name, without its owner")
    add("--dataset", required=True, metavar="NAME", help="what it was trained on, for the model card")
    add("--organization", metavar="ORG", help="the repository's owner; default: you")
    add("--private", action="store_true", help="create the repository for you alone to see")
    add("--tokenizer", choices=("gpt2", "extended"), help="GPT-2's, or with ChatML; default: the checkpoint's")
    add("--license", default="mit", metavar="ID", help="the model's licence, as the Hub calls it [%(default)s]")
    add("--language", default="en", metavar="CODE", help="the model's language [%(default)s]")
    add("--output-dir", default="./hf_model", metavar="DIR", help="where the folder goes [%(default)s]")
    add("--commit-message", metavar="TEXT", help="of the upload; default: the name and the version of Jojo")
    add("--dry-run", action="store_true", help="make and check the folder, and stop there: no network")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="more detail, and tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def refuse_names(args: argparse.Namespace) -> None:
    """Raises UserError for names that the Hub does not take."""
    for flag, name in (("--repo-name", args.repo_name), ("--organization", args.organization)):
        fits = name is None or re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[-.](?![-.]))*", name)
        if not fits or (name is not None and (len(name) > 96 or name.endswith(("-", ".", ".git")))):
            raise UserError(
                f"{flag} '{one_line(name, 40)}' is no name for the Hub: letters, digits, '_', single '-' and '.', "
                "at most 96; the owner goes into --organization."
            )
    if args.commit_message is not None and not args.commit_message.strip():
        raise UserError("--commit-message is empty; leave it out for the usual one.")


def main(arguments: Sequence[str]) -> int:
    """Run upload_to_huggingface.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    refuse_names(args)

    from hf.card import CardRequest, write_card
    from hf.export import export, export_tokenizer, refuse_foreign
    from hf.hub import Hub
    from jojo.checkpoints.checkpoint import load_checkpoint

    folder = user_path(args.output_dir).resolve()
    request = CardRequest(args.repo_name, args.dataset, args.license, args.language)
    refuse_foreign(folder)
    checkpoint = load_checkpoint(user_path(args.checkpoint))
    tokenizer = export_tokenizer(checkpoint, args.tokenizer)
    hub = None if args.dry_run else Hub()
    owner = args.organization or (hub.user if hub else None)
    repo_id = f"{owner}/{args.repo_name}" if owner else args.repo_name
    request = CardRequest(repo_id, args.dataset, args.license, args.language)

    export(checkpoint, folder, tokenizer, lambda place, model: write_card(checkpoint, model, tokenizer, request, place))
    log.info("The export agrees with '%s' in weights, logits, greedy text and tokens: %s", checkpoint.path, folder)
    if hub is None:
        log.info("Nothing was uploaded (--dry-run).")
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
