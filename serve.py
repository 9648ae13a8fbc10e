"""Serve models on this machine: an OpenAI-compatible API, and a page to talk to them and look inside.

python serve.py models/x.pt                     then open http://127.0.0.1:8000
python serve.py models/a.pt models/b.pt         several models, also side by side on the page
python serve.py                                 the newest model in models/
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from jojo.command import Parser, is_loopback, run_command
from utils import UserError, __version__, one_line, user_path

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


def build_parser() -> Parser:
    """Flags of serve.py."""
    parser = Parser("[MODEL ...] ", prog="serve.py", description=__doc__)
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="checkpoints or Hugging Face folders [the newest in models/]")
    add("--port", type=int, default=8000, metavar="N", help="port of the server; 0 takes any free one [%(default)s]")
    add("--host", default="127.0.0.1", metavar="NAME", help="address to listen on; others need --api_key [%(default)s]")
    names = "also answer requests to this name, as a proxy passes them on; may be repeated"
    add("--host_name", metavar="NAME", action="append", default=[], help=names)
    add("--api_key", metavar="KEY", help="clients must send this key [the environment variable JOJO_API_KEY]")
    template = "how a conversation is written: chatml, or a Jinja file [chatml, for models trained on chat data]"
    add("--template", metavar="NAME", help=template)
    add(
        "--max_tokens", type=int, default=4096, metavar="N", help="most tokens that a request may ask for [%(default)s]"
    )
    add("--time_limit", type=float, default=300, metavar="S", help="seconds after which a text ends [%(default)s]")
    add("--rows", type=int, default=16, metavar="N", help="write at most N texts at once [%(default)s]")
    add("--queue", type=int, default=64, metavar="N", help="let at most N texts wait, refuse more [%(default)s]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps [%(default)s]")
    dtypes = ("auto", "float32", "bfloat16", "float16", "int8")
    add("--dtype", default="auto", choices=dtypes, help="type of the weights; int8 is the fastest [%(default)s]")
    add("--no_color", "--no-color", action="store_true", help="no colours, even on a terminal")
    add("--debug", action="store_true", help="show tracebacks with errors")
    add("--version", action="version", version=f"Jojo {__version__}")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raises UserError for values out of range, and for a server that strangers could use."""
    for name, least, most in (("port", 0, 65535), ("max_tokens", 1, 10**6), ("rows", 1, 1024), ("queue", 1, 10**5)):
        value = getattr(args, name)
        if not least <= value <= most:
            raise UserError(f"--{name} must be between {least} and {most:,}, not {value}.")
    if args.time_limit <= 0:
        raise UserError(f"--time_limit must be above 0, not {args.time_limit:g}.")
    args.api_key = args.api_key or os.environ.get("JOJO_API_KEY")
    if args.api_key and not args.api_key.isascii():
        raise UserError("--api_key must have only ASCII characters: clients send it in a header.")
    if not is_loopback(args.host) and not args.api_key:
        raise UserError(
            f"Other machines can reach {args.host}, so the server needs a key; set JOJO_API_KEY, or add --api_key KEY."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address. Raises UserError if there can be none."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError):
        raise UserError(f"This machine knows no address '{one_line(host, 60)}'; choose another --host.") from None
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"Cannot listen on {host}, port {port} ({reason}); choose another --port or --host.") from None


def main(arguments: Sequence[str]) -> int:
    """Run serve.py with these arguments; returns the exit code."""
    args = build_parser().parse_args(arguments)
    check_flags(args)
    try:
        from serving.app import Limits, WebServer
        from serving.guard import Rules
    except ModuleNotFoundError as error:
        raise UserError(f"serve.py needs {error.name}: pip install -r requirements-serve.txt") from None
    from jojo.checkpoints.run_files import newest_checkpoint
    from jojo.machine.device import choose_device, choose_dtype
    from serving.models import load

    paths = [user_path(name) for name in args.models] or [newest_checkpoint(Path("models"))]
    device = choose_device(args.device, from_flag=True).value
    dtype = choose_dtype(args.dtype, device).value
    with listen(args.host, args.port) as listener:  # before the models, which take longer
        models = load(paths, device, dtype, args.template, args.rows, args.queue)
        own = [] if is_loopback(args.host) else [socket.gethostname()]
        hosts = {name.lower() for name in (*LOCAL_NAMES, args.host, *args.host_name, *own)}
        rules = Rules(hosts, any_address=not is_loopback(args.host), key=args.api_key)
        server = WebServer(models, Limits(args.max_tokens, args.time_limit), rules)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, server.handle_exit)  # as uvicorn does with SIGINT and SIGTERM
        name = f"[{args.host}]" if ":" in args.host else args.host
        url = f"http://{name}:{listener.getsockname()[1]}"
        print(f"Serving {', '.join(models)} ({device}, {dtype}). Ctrl-C ends it.")
        print(f"  Page: {url}\n  API:  {url}/v1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal to stop again at its end
            server.run(sockets=[listener])
        server.close_engines()
    print("\nStopped.")
    return 0


if __name__ == "__main__":
    run_command(main, if_full="use fewer models, --dtype bfloat16 or int8, or smaller models")
