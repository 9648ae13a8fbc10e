"""How likely a model finds a text, and the choices of a question.

A choice is scored as lm-eval's HFLM scores it (github.com/EleutherAI/lm-evaluation-harness), so the numbers are the same:
context and choice are encoded together, spaces at the end of the context belong to the choice, and a context that is too long
loses its beginning. One thing is different: control tokens that are written in a text are ordinary text, as everywhere in Jojo.

Shape letters: B sequences, T tokens, C channels, N targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loader import IGNORED
from evaluation.questions import Question
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, one_line

BATCH_TOKENS = 8192  # about so many tokens are read at once
LOGIT_ROWS = 512  # targets whose logits are in memory at the same time


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a choice after its context."""

    log_likelihood: float  # nats, summed over the choice's tokens
    n_tokens: int
    n_bytes: int  # of the choice as it is written, in UTF-8


@dataclass(frozen=True)
class Score:
    """What a model thinks of the last tokens of a sequence."""

    log_likelihood: float  # nats, summed over these tokens
    is_likeliest: bool  # whether each of them is the likeliest token at its place


@torch.no_grad()
def target_losses(model: GPT, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The loss in nats of each target that is not -1, row after row, and whether the target is the likeliest token.

    Returns float64 (N,) and bool (N,) on the CPU. The softmax is float32.

    `inputs` and `targets` are int64 (B, T) on any device. The weights may have any dtype, int8 included.
    Raises UserError if a loss is not a finite number.
    """
    targets = targets.to(model.device)
    hidden = model.transformer(inputs.to(model.device))[targets != IGNORED]  # (N, C)
    parts = zip(torch.split(hidden, LOGIT_ROWS), torch.split(targets[targets != IGNORED], LOGIT_ROWS), strict=True)
    losses, likeliest = [], []
    for part, ids in parts:
        logits = model.lm_head(part)[:, : model.n_vocab].float()  # (up to LOGIT_ROWS, V)
        losses.append(F.cross_entropy(logits, ids, reduction="none"))
        likeliest.append(logits.argmax(-1) == ids)
    result = torch.cat(losses).cpu().double()
    if not result.isfinite().all():
        raise UserError("The model's losses are not finite numbers; use an earlier checkpoint, or --dtype float32.")
    return result, torch.cat(likeliest).cpu()


def encode_choice(tokenizer: Tokenizer, context: str, choice: str) -> tuple[list[int], list[int]]:
    """The ids of <|endoftext|> and the context, and those of the choice.

    The choice's are what context and choice together have beyond the context's number of ids. So inside of a word they may be
    other ids than those of the choice alone, or none.
    """
    before = tokenizer.encode(context.rstrip())
    return [tokenizer.eot_id, *before], tokenizer.encode(context + choice)[len(before) :]


def choice_likelihoods(model: GPT, tokenizer: Tokenizer, questions: Sequence[Question]) -> list[tuple[Likelihood, ...]]:
    """The likelihood of every choice of every question, in their order. The model must be in eval mode.

    Raises UserError for a choice without tokens of its own, or with more than the context window.
    """
    block_size = model.config.block_size
    encoded = []
    for number, question in enumerate(questions, 1):
        for choice in question.choices:
            before, ids = encode_choice(tokenizer, question.context, choice)
            what = f"Question {number}: the choice '{one_line(choice, 40)}'"
            if not ids:
                raise UserError(f"{what} only changes the context's last token; let the choice begin a new word.")
            if len(ids) > block_size:
                raise UserError(f"{what} has {len(ids):,} tokens, more than the context of {block_size:,}; shorten it.")
            encoded.append(([*before, *ids], len(ids)))
    sums = iter(score.log_likelihood for score in scored(model, encoded))
    counts = iter(n_tokens for _, n_tokens in encoded)
    return [tuple(Likelihood(next(sums), next(counts), len(c.encode())) for c in q.choices) for q in questions]


def scored(model: GPT, sequences: Sequence[tuple[list[int], int]]) -> list[Score]:
    """The score of each sequence's last tokens: pairs (ids, how many of them). A sequence that is too long loses its beginning.

    Sequences of about the same length are read together; the unused end of a row changes nothing before it.
    """
    from tqdm import tqdm

    result: list[Score] = [Score(0.0, True)] * len(sequences)
    sequences = [(ids[-model.config.block_size - 1 :], n_tokens) for ids, n_tokens in sequences]
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i][0]))  # the longest first
    shown = tqdm(total=len(order), desc="Scoring", unit=" answers", leave=False, disable=None, delay=1)
    while order:
        longest = len(sequences[order[0]][0]) - 1
        size = max(1, BATCH_TOKENS // longest)
        batch, order = order[:size], order[size:]
        inputs = torch.zeros(len(batch), longest, dtype=torch.int64)  # (B, T)
        targets = torch.full_like(inputs, IGNORED)
        for row, i in enumerate(batch):
            ids, n_tokens = sequences[i]
            end = len(ids) - 1
            inputs[row, :end] = torch.tensor(ids[:-1])
            targets[row, end - n_tokens : end] = torch.tensor(ids[-n_tokens:])
        sizes = [sequences[i][1] for i in batch]
        losses, likeliest = (torch.split(values, sizes) for values in target_losses(model, inputs, targets))
        for i, loss, hits in zip(batch, losses, likeliest, strict=True):
            result[i] = Score(-loss.sum().item(), bool(hits.all()))
        shown.update(len(batch))
    shown.close()
    return result
