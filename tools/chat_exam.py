"""Examine a model trained on the `chitchat` conversations: how many of its answers are right.

    python tools/chat_exam.py models/chitchat_epoch1.pt
    python tools/chat_exam.py models/x.pt --temp 0.3 --seed 2 --show

The conversations have names and wordings that training never sees. The model reads its own earlier answers. An answer is
right if the recipe might give it, word for word. The second line counts the tries in which the user tells a name first, and
asks for it in the fourth turn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from utils import log, printable, user_path

if TYPE_CHECKING:
    from generation import Sampling
    from jojo.text.tokenizer import Message, Tokenizer
    from model import GPT

TALKS, NAMES = 100, 50  # conversations, and more of them in which a name is asked for
MOST_TALKS = 5000  # to look for them
MAX_TOKENS = 100  # in an answer


def own_answers(
    model: GPT, tokenizer: Tokenizer, sampling: Sampling, messages: list[Message], seed: int
) -> Iterator[list[Message]]:
    """Yields the conversation up to each answer; the users' turns are those of `messages`, the answers the model's own."""
    import torch

    from generation import chat_prompt, generate

    generator = torch.Generator().manual_seed(seed)
    stop = set(tokenizer.special_tokens.values())
    said: list[Message] = []
    for message in messages:
        if message["role"] == "user":
            prompt, _ = chat_prompt(tokenizer, [*said, message], model.config.block_size - MAX_TOKENS)
            steps = generate(model, prompt, max_tokens=MAX_TOKENS, sampling=sampling, stop=stop, generator=generator)
            answer = tokenizer.decode(token for (token,) in steps if token is not None).strip()
            said = [*said, message, {"role": "assistant", "content": answer}]
            yield said


def asks_for_name(messages: list[Message]) -> bool:
    """Whether the user tells a name in the first turn, no other later, and asks for it in the fourth."""
    from recipes.chitchat import understand

    kinds = [understand(message["content"])[0].name for message in messages if message["role"] == "user"]
    return kinds[:1] == ["tell name"] and kinds[3:4] == ["my name"] and not {"new name", "my name"} & {*kinds[1:3]}


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser("PT ", prog="chat_exam.py", description=__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="PT", help="the model")
    add("--temp", type=float, default=0.0, metavar="X", help="temperature of the answers [%(default)s]")
    add("--seed", type=int, default=1, metavar="N", help="of the conversations and the answers [%(default)s]")
    add("--show", action="store_true", help="print the wrong answers")
    add("--debug", action="store_true", help="show tracebacks with errors")
    args = parser.parse_args(arguments)

    from generation import Sampling, load_model
    from recipes.chitchat import VALIDATION_EVERY, accepts, conversation

    model, tokenizer, _ = load_model(user_path(args.checkpoint))
    talks = [conversation(number * VALIDATION_EVERY, args.seed)["messages"] for number in range(MOST_TALKS)]
    talks, named = talks[:TALKS], [messages[:8] for messages in talks if asks_for_name(messages)][:NAMES]
    right: list[list[bool]] = []  # for each conversation, which answers are right
    for number, messages in enumerate([*talks, *named]):
        right.append([])
        for said in own_answers(model, tokenizer, Sampling(args.temp), messages, args.seed + number):
            right[-1].append(accepts(said[:-1], said[-1]["content"]))
            if args.show and not right[-1][-1]:
                log.info("%s\n  > %s", said[-2]["content"], printable(said[-1]["content"]))
    answers, last = [is_right for which in right[:TALKS] for is_right in which], [which[-1] for which in right]
    share = f"{sum(answers)} of {len(answers)} answers are right, and {sum(last[:TALKS])} of {len(talks)} last ones"
    log.info("%s\n%d of %d names are right in the fourth turn", share, sum(last[TALKS:]), len(named))
    return 0


if __name__ == "__main__":
    run_command(main)
