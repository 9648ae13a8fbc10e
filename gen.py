"""Talk to a model: checkpoint -> prompt -> text, streamed as it is decoded.

python gen.py models/x.pt --prompt "Once upon a time"
python gen.py models/x.pt --interactive                a prompt a line
python gen.py models/x.pt --chat                       a conversation (models trained on chat data)
python gen.py                                          the newest model in models/
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from jojo.command import Parser, run_command
from utils import UserError, __version__, log, one_line, replace_text, user_path

if TYPE_CHECKING:
    import torch

    from generation import Sampling
    from jojo.text.tokenizer import Tokenizer
    from model import GPT


def build_parser() -> Parser:
    """Flags of gen.py."""
    parser = Parser(
        prog="gen.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="checkpoint of any version; default: the newest in models/")
    add("--prompt", metavar="TEXT", help="text to continue; default: the beginning of a new document")
    add("--prompt_file", metavar="FILE", help="read the prompt from a file (UTF-8)")
    add("--interactive", action="store_true", help="ask for a prompt again and again")
    add("--chat", action="store_true", help="hold a conversation in ChatML; with --prompt: one answer")
    add("--system", metavar="TEXT", help="system message of the conversation")
    add("--nonstop", action="store_true", help="go on past the end of a document or turn, to --max_tokens")
    add("--max_tokens", type=int, default=300, metavar="N", help="new tokens, at most [%(default)s]")
    add(
        "--temp", type=float, default=0.7, metavar="X", help="temperature; 0 = always the likeliest token [%(default)s]"
    )
    add("--top_k", type=int, default=50, metavar="N", help="draw from the N likeliest tokens; 0 = off [%(default)s]")
    add(
        "--top_p",
        type=float,
        default=1.0,
        metavar="X",
        help="draw from the likeliest that reach probability X; 1 = off",
    )
    add("--repetition_penalty", type=float, default=1.0, metavar="X", help="above 1: repeat less; 1 = off")
    add("--seed", type=int, metavar="N", help="same seed, same text; default: another text each time")
    add(
        "--num_samples", type=int, default=1, metavar="N", help="continuations to write, decoded together [%(default)s]"
    )
    add("--device", default="auto", metavar="TEXT", help="auto, cpu, cuda, cuda:N or mps [%(default)s]")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
        help="of the weights; int8 decodes fastest [%(default)s]",
    )
    add("--output", metavar="FILE", help="also write the text to a file")
    add("--no_delay", action="store_true", help="print each text when it is complete instead of as it is decoded")
    add("--use_base_tokenizer", action="store_true", help="GPT-2's own 50,257 tokens, without those of ChatML")
    add("--parse_special", action="store_true", help="read <|im_start|> and the like in the prompt as control tokens")
    add("--verbose", action="store_true", help="say which model this is and how fast it decodes (on stderr)")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def read_prompt(args: argparse.Namespace) -> str | None:
    """The prompt from --prompt or --prompt_file. Raises UserError for a file that cannot be read."""
    if args.prompt_file is None:
        return args.prompt
    if args.prompt is not None:
        raise UserError("--prompt and --prompt_file both give a prompt; use one of them.")
    try:
        return user_path(args.prompt_file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"No prompt file '{args.prompt_file}'; check the path.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"'{args.prompt_file}' is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None


def refuse_combinations(args: argparse.Namespace) -> None:
    """Raises UserError for flags that would not act together."""
    prompted = args.prompt is not None or args.prompt_file is not None
    wrong = [
        (args.interactive and args.chat, "--interactive and --chat are two ways to talk; use one of them"),
        (args.interactive and prompted, "--interactive asks for prompts; leave out --prompt and --prompt_file"),
        (args.system is not None and not args.chat, "--system belongs to a conversation; add --chat"),
        (args.chat and args.parse_special, "--parse_special reads prompts written in ChatML; --chat writes it itself"),
        (args.chat and args.num_samples > 1, "--chat gives one answer at a time; leave out --num_samples"),
    ]
    if problem := next((text for applies, text in wrong if applies), None):
        raise UserError(f"{problem}.")


class Speaker:
    """A loaded model and how it is to speak."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from generation import Sampling, load_model
        from hf.folder import load_any
        from jojo.checkpoints.run_files import newest_checkpoint
        from jojo.machine import device as devices
        from jojo.machine.estimate import n_parameters

        self.args = args
        self.sampling: Sampling = Sampling(args.temp, args.top_k, args.top_p, args.repetition_penalty)
        path = user_path(args.model) if args.model else newest_checkpoint(Path("models"))
        device = devices.choose_device(args.device, from_flag=True).value
        dtype = devices.choose_dtype(args.dtype, device).value
        self.model: GPT
        self.tokenizer: Tokenizer
        self.model, self.tokenizer, checkpoint = load_model(
            load_any(path), device, dtype, chatml=not args.use_base_tokenizer
        )
        self.generator: torch.Generator = torch.Generator()
        seed = self.generator.seed() % 2**32 if args.seed is None else args.seed
        self.generator.manual_seed(seed)
        if not args.model or args.verbose:
            print(f"[{path}]", file=sys.stderr)
        if args.verbose:
            shape = self.model.config
            print(
                f"[{n_parameters(shape):,} parameters: {shape.n_layer} layers, {shape.n_head} heads, width "
                f"{shape.n_embd}, context {shape.block_size}; format {checkpoint.version}; {device}, {dtype}; seed {seed}]",
                file=sys.stderr,
            )

    def encode(self, text: str | None) -> list[int]:
        """A prompt's ids, after the <|endoftext|> that every document follows in training."""
        if not text:
            return [self.tokenizer.eot_id]
        ids = self.tokenizer.encode_parsed(text) if self.args.parse_special else self.tokenizer.encode(text)
        if len(ids) >= self.model.config.block_size:
            log.warning(
                "The prompt has %d tokens, the context %d; its beginning is left out.",
                len(ids),
                self.model.config.block_size,
            )
        return [self.tokenizer.eot_id, *ids]

    def write(self, prompt: list[int], out: TextIO, before: str = "") -> list[str]:
        """Continue a prompt; prints `before` and the text as it comes. Returns the continuations."""
        args, started = self.args, time.perf_counter()
        texts = [""] * args.num_samples
        live = args.num_samples == 1 and not args.no_delay
        if live:
            print(before, end="", file=out, flush=True)
        counts = [0]
        for sample, piece in self._decode(prompt, counts):
            texts[sample] += piece
            if live and piece:
                print(piece, end="", file=out, flush=True)
        if live:
            print(file=out)
        for number, text in enumerate([] if live else texts, 1):
            print(
                *([f"--- {number} ---"] if args.num_samples > 1 else []), before + text, sep="\n", file=out, flush=True
            )
        if args.verbose:
            seconds = time.perf_counter() - started
            print(f"[{counts[0]} tokens in {seconds:.2f} s: {counts[0] / seconds:.1f} tokens/s]", file=sys.stderr)
        return texts

    def _decode(self, prompt: list[int], counts: list[int]) -> Iterator[tuple[int, str]]:
        """(sample, text) pieces as they become certain."""
        from generation import generate
        from jojo.text.tokenizer import TextStream

        args = self.args
        stop = set() if args.nonstop else {i for n, i in self.tokenizer.special_tokens.items() if n != "<|im_start|>"}
        streams = [TextStream(self.tokenizer) for _ in range(args.num_samples)]
        for step in generate(
            self.model, prompt, max_tokens=args.max_tokens, sampling=self.sampling, stop=stop,
            num_samples=args.num_samples, generator=self.generator,
        ):  # fmt: skip
            for sample, token in enumerate(step):
                if token is not None:
                    counts[0] += 1
                    yield sample, streams[sample].push(token)


def ask(question: str) -> str | None:
    """A line from the user; None at the end of input."""
    try:
        return input(question if sys.stdin.isatty() else "")
    except EOFError:
        return None


def interactive(speaker: Speaker, record: list[str]) -> None:
    """A prompt a line, until an empty end of input."""
    while (prompt := ask("\nprompt> ")) is not None:
        record += [prompt + text for text in speaker.write(speaker.encode(prompt), sys.stdout, prompt)]


def chat(speaker: Speaker, first: str | None, record: list[str]) -> None:
    """A conversation: history is kept, and trimmed from the front when the context is full."""
    from generation import chat_prompt

    speaker.tokenizer.require_chatml()
    block_size = speaker.model.config.block_size
    room = max(block_size // 2, block_size - speaker.args.max_tokens)
    messages = [{"role": "system", "content": speaker.args.system}] if speaker.args.system else []
    question = first if first is not None else ask("you> ")
    while question is not None:
        messages.append({"role": "user", "content": question})
        ids, dropped = chat_prompt(speaker.tokenizer, messages, room)
        if len(ids) > block_size:
            left_out = "its beginning and the system message are" if speaker.args.system else "its beginning is"
            log.warning("The question has more tokens than the context; %s left out.", left_out)
        if dropped and speaker.args.verbose:
            print(f"[the context is full: {dropped} of the oldest messages left out]", file=sys.stderr)
        answer = speaker.write(ids, sys.stdout)[0].strip()
        messages.append({"role": "assistant", "content": answer})
        record += [f"user: {question}", f"assistant: {answer}"]
        question = ask("you> ") if first is None else None


def main(arguments: Sequence[str]) -> int:
    """Run gen.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    for name, most in (("max_tokens", 10**9), ("num_samples", 10**4)):
        if not 1 <= getattr(args, name) <= most:
            raise UserError(f"--{name} must be between 1 and {most:,}, not {one_line(getattr(args, name), 30)}.")
    refuse_combinations(args)
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UserError(f"--seed must be between 0 and 2^63 - 1, not {args.seed}.")
    prompt = read_prompt(args)
    if args.output and not user_path(args.output).parent.is_dir():
        raise UserError(f"--output: there is no folder '{user_path(args.output).parent}'; create it first.")
    speaker = Speaker(args)
    record: list[str] = []
    try:
        if args.chat:
            chat(speaker, prompt, record)
        elif args.interactive:
            interactive(speaker, record)
        else:
            record += [
                (prompt or "") + text for text in speaker.write(speaker.encode(prompt), sys.stdout, prompt or "")
            ]
    finally:
        if args.output and record:  # a run that failed leaves an older file alone
            replace_text(user_path(args.output), "\n".join(record) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main)
