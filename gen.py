"""Write text with a trained model.

python gen.py models/x.pt --prompt "Once upon a time"
python gen.py models/x.pt --interactive                asks for one prompt after another
python gen.py models/x.pt --chat                       a conversation, for models trained on chat data
python gen.py                                          the newest model in models/
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jojo.command import Parser, Stopped, run_command
from utils import UserError, __version__, log, one_line, output_path, plural, printable, replace_text, user_path


def build_parser() -> Parser:
    """Flags of gen.py."""
    parser = Parser("[MODEL] ", prog="gen.py", description=__doc__)
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="checkpoint or Hugging Face folder [the newest in models/]")
    add("--prompt", metavar="TEXT", help="text to continue; without one, a new document begins")
    add("--prompt_file", metavar="FILE", help="read the prompt from a text file")
    add("--interactive", action="store_true", help="ask for one prompt after another; Ctrl-D ends it")
    add("--chat", action="store_true", help="hold a conversation until you type exit; with --prompt, answer only that")
    add("--system", metavar="TEXT", help="system message of the conversation")
    add("--nonstop", action="store_true", help="continue after the end of a document or turn, up to --max_tokens")
    add("--max_tokens", type=int, default=300, metavar="N", help="write at most N tokens [%(default)s]")
    add("--temp", type=float, default=0.7, metavar="X", help="temperature; 0 = always the likeliest [%(default)s]")
    add("--top_k", type=int, default=50, metavar="N", help="draw from the N likeliest tokens; 0 = off [%(default)s]")
    nucleus = "draw from the likeliest tokens whose probabilities add up to X; 1 = off [%(default)s]"
    add("--top_p", type=float, default=1.0, metavar="X", help=nucleus)
    penalty = "above 1, text repeats itself less; 1 = off [%(default)s]"
    add("--repetition_penalty", type=float, default=1.0, metavar="X", help=penalty)
    add("--seed", type=int, metavar="N", help="the same seed gives the same text [a new one each time]")
    add("--num_samples", type=int, default=1, metavar="N", help="write N texts at once [%(default)s]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps [%(default)s]")
    dtypes = ("auto", "float32", "bfloat16", "float16", "int8")
    add("--dtype", default="auto", choices=dtypes, help="type of the weights; int8 is the fastest [%(default)s]")
    add("--output", metavar="FILE", help="also write the text to a file")
    add("--no_delay", action="store_true", help="print each text when it is complete, not token by token")
    add("--use_base_tokenizer", action="store_true", help="use GPT-2's 50,257 tokens, without ChatML's")
    add("--parse_special", action="store_true", help="read <|im_start|> and the like in the prompt as control tokens")
    add("--verbose", action="store_true", help="also show the model and its speed, on stderr")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="show tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for values out of range and for flags that exclude each other."""
    for name, least, most in (("max_tokens", 1, 10**9), ("num_samples", 1, 10**4), ("seed", 0, 2**63 - 1)):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name} must be between {least} and {most:,}, not {one_line(value, 30)}.")
    has_prompt = args.prompt is not None or args.prompt_file is not None
    for excluded, message in (
        (args.prompt is not None and args.prompt_file is not None, "Use either --prompt or --prompt_file, not both."),
        (args.interactive and args.chat, "Use either --interactive or --chat, not both."),
        (args.interactive and has_prompt, "--interactive asks for prompts; leave out --prompt and --prompt_file."),
        (args.system is not None and not args.chat, "--system needs a conversation; add --chat."),
        (args.chat and args.parse_special, "--chat writes the control tokens itself; leave out --parse_special."),
        (args.chat and args.num_samples > 1, "--chat gives one answer at a time; leave out --num_samples."),
        ((args.output or "").endswith(".pt"), "--output is for text, and must not replace a model; name a .txt file."),
    ):
        if excluded:
            raise UserError(message)


def read_prompt(args: argparse.Namespace) -> str | None:
    """The prompt from --prompt or --prompt_file, without the newline at the file's end. Raises UserError or OSError."""
    if args.prompt_file is None:
        return args.prompt
    from jojo.text.readers import read_text

    return "".join(read_text(user_path(args.prompt_file))).removesuffix("\n")


class Session:
    """A loaded model and the flags that say how it writes."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        from generation import Sampling, load_model
        from hf.folder import load_folder_or_file
        from jojo.checkpoints.run_files import newest_checkpoint
        from jojo.machine.device import choose_device, choose_dtype
        from jojo.networks import formulas

        self.args = args
        self.sampling = Sampling(args.temp, args.top_k, args.top_p, args.repetition_penalty)
        path = user_path(args.model) if args.model else newest_checkpoint(Path("models"))
        device = choose_device(args.device, from_flag=True).value
        dtype = choose_dtype(args.dtype, device).value
        checkpoint = load_folder_or_file(path)
        self.model, self.tokenizer, _ = load_model(checkpoint, device, dtype, chatml=not args.use_base_tokenizer)
        self.generator = torch.Generator()
        seed = self.generator.seed() % 2**32 if args.seed is None else args.seed
        self.generator.manual_seed(seed)
        self.unfinished: list[str] = []  # what write() has printed so far, for --output after Ctrl-C
        self.note(str(path), always=not args.model)
        shape = self.model.config
        self.note(
            f"{shape.architecture}, {formulas(shape).n_parameters:,} parameters: "
            f"{plural(shape.n_layer, 'layer')}, {plural(shape.n_head, 'head')}, "
            f"width {shape.n_embd}, context {shape.block_size}; format {checkpoint.version}; {device}, {dtype}; seed {seed}"
        )

    def note(self, text: str, always: bool = False) -> None:
        """Print a line on stderr, if --verbose was given or `always`."""
        if self.args.verbose or always:
            print(f"[{printable(text)}]", file=sys.stderr)

    def encode(self, text: str | None) -> list[int]:
        """A prompt's ids. <|endoftext|> comes first, as before every document in training."""
        encode = self.tokenizer.encode_parsed if self.args.parse_special else self.tokenizer.encode
        ids, block_size = encode(text) if text else [], self.model.config.block_size
        if len(ids) >= block_size:
            log.warning("The prompt (%d tokens) exceeds the context (%d); its start is left out.", len(ids), block_size)
        return [self.tokenizer.eot_id, *ids]

    def write(self, prompt: list[int], before: str = "") -> list[str]:
        """Continue a prompt. Prints `before` and then the text while it is made. Returns what was printed for each sample."""
        from generation import generate
        from jojo.text.tokenizer import TextStream

        args, started, n_tokens = self.args, time.perf_counter(), 0
        stop = set() if args.nonstop else self.tokenizer.end_ids
        streams = [TextStream(self.tokenizer) for _ in range(args.num_samples)]
        texts = self.unfinished = [before] * args.num_samples
        is_live = args.num_samples == 1 and not args.no_delay
        shown = printable if sys.stdout.isatty() else str
        if is_live:
            print(shown(before), end="", flush=True)
        for step in generate(
            self.model, prompt, max_tokens=args.max_tokens, sampling=self.sampling, stop=stop,
            num_samples=args.num_samples, generator=self.generator,
        ):  # fmt: skip
            for sample, token in enumerate(step):
                if token is not None:
                    n_tokens += 1
                    piece = streams[sample].push(token)  # "" until a character is complete
                    texts[sample] += piece
                    if is_live:
                        print(shown(piece), end="", flush=True)
        for number, text in enumerate(texts, 1):
            heading = [f"--- {number} ---"] if args.num_samples > 1 else []
            print(*heading, "" if is_live else shown(text), sep="\n", flush=True)
        self.unfinished = []
        seconds = time.perf_counter() - started
        self.note(f"{n_tokens} tokens in {seconds:.2f} s: {n_tokens / seconds:.1f} tokens/s")
        return texts


def ask(question: str) -> str | None:
    """A line from the user; None at the end of the input. Raises UserError if it cannot be decoded."""
    try:
        line = input(question if sys.stdin.isatty() else "").removeprefix("\ufeff").removesuffix("\r")
        line.encode()  # fails if the C locale let other bytes through
        return line
    except EOFError:
        return None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise UserError(f"The input is not {error.encoding.upper()} text; convert it first.") from None


def interactive(session: Session, record: list[str]) -> None:
    """Ask for prompts and continue each; `record` gets the texts for --output."""
    session.note("Ctrl-D or Ctrl-C ends this", always=sys.stdin.isatty())
    while (prompt := ask("\nprompt> ")) is not None:
        record += session.write(session.encode(prompt), prompt)


def chat(session: Session, first: str | None, record: list[str]) -> None:
    """Hold a conversation, or answer one question. Its oldest turns are dropped when the context is full."""
    from generation import chat_prompt, ends_turns, room_for_prompt

    session.tokenizer.require_chatml()
    on_terminal = first is None and sys.stdin.isatty()
    if on_terminal:
        session.note("exit, quit, Ctrl-D or Ctrl-C ends the conversation", always=True)
    if not ends_turns(session.model, session.tokenizer):
        log.warning("This model was not trained on conversations, or not for long; docs/chat.md shows how to do it.")
    system, block_size = session.args.system, session.model.config.block_size
    room = room_for_prompt(block_size, session.args.max_tokens)
    messages = [{"role": "system", "content": system}] if system else []
    for question in iter(lambda: ask("you> "), None) if first is None else [first]:
        if first is None and question.strip().lower() in ("exit", "quit"):
            return
        messages.append({"role": "user", "content": question})
        ids, dropped = chat_prompt(session.tokenizer, messages, room)
        if len(ids) > block_size:
            left_out = "its beginning and the system message are" if system else "its beginning is"
            log.warning("The question has more tokens than the context; %s left out.", left_out)
        if dropped:
            session.note(f"the context is full: the oldest {dropped} messages are left out")
        if on_terminal:
            print("model> ", end="", flush=True)
        answer = session.write(ids)[0].strip()
        messages.append({"role": "assistant", "content": answer})
        record += [f"user: {question}", f"assistant: {answer}"]


def main(arguments: Sequence[str]) -> int:
    """Run gen.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    check_flags(args)
    prompt = read_prompt(args)
    output = output_path(args.output) if args.output else None
    session = Session(args)
    record: list[str] = []
    try:
        if args.chat:
            chat(session, prompt, record)
        elif args.interactive:
            interactive(session, record)
        else:
            record += session.write(session.encode(prompt), prompt or "")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        if interrupted or session.unfinished:
            print()  # the message about the error gets a line of its own
        record += session.unfinished if interrupted else []
        asks = prompt is None and (args.chat or args.interactive)
        if not (interrupted and asks) or isinstance(error, Stopped):
            raise
    finally:
        if output and record:  # if nothing was written, an older file stays
            replace_text(output, "\n".join(record) + "\n")
    return 0


if __name__ == "__main__":
    run_command(main, if_full="use fewer --num_samples, --dtype bfloat16 or int8, or a smaller model")
