"""The plain training loop that the trainer is compared with: transformers' GPT-2, torch's AdamW, ten lines.

It shares with the trainer only what must be equal in a comparison: the first weights, the batches and the learning rate of
every batch. It works with any shape in float32 on the CPU. For a longer comparison by hand, run this in the project's folder
with `tests/helpers` on the path:

    import plain_recipe
    from training.flags import build_parser, read_request
    from training.run import prepare_run
    flags = "--model.n_layer 4 --model.n_embd 256 ... --model.bias true --dtype float32 --device cpu".split()
    request = read_request(build_parser().parse_args(flags), flags)
    print(plain_recipe.compare(prepare_run(request), n_batches=100))

(`model.bias` must be true, because transformers' GPT-2 always has biases.)

Shape letters: A micro-batches per batch, B sequences per micro-batch, T tokens per sequence, V vocabulary rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer import Trainer
from training.run import Run

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # transformers keeps these as (in, out)


def plain_model(run: Run, weights: Mapping[str, Tensor]) -> Any:
    """transformers' GPT-2 of the run's shape, with these weights, and with a vocabulary row for each token only."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape, n_vocab = run.config.model, run.data.tokenizer.n_vocab
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=n_vocab, n_positions=shape.block_size, n_embd=shape.n_embd, n_layer=shape.n_layer,
            n_head=shape.n_head, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
        )
    )  # fmt: skip
    theirs = {name: weight.clone() for name, weight in weights.items()}
    theirs = {name: weight.T if name.endswith(TRANSPOSED) else weight for name, weight in theirs.items()}
    for name in ("transformer.wte.weight", "lm_head.weight"):
        theirs[name] = theirs[name][:n_vocab]
    model.load_state_dict(theirs)
    return model


def plain_losses(run: Run, weights: Mapping[str, Tensor], n_batches: int) -> list[float]:
    """Loss of each of the run's first batches (nats per token, before that batch's update), by the plain loop."""
    model, loader, options = plain_model(run, weights), run.loader(), run.config.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(options.beta1, options.beta2))
    losses = []
    for number in range(n_batches):
        batch = loader.batch(*divmod(number, run.plan.batches_per_epoch))
        x, y = (torch.from_numpy(ids).flatten(0, 1) for ids in (batch.inputs, batch.targets))  # (A·B, T)
        loss = F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten(), ignore_index=-1)  # logits (A·B, T, V)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, options.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = run.plan.schedule.lr(number)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def trainer_losses(trainer: Trainer, n_batches: int) -> list[float]:
    """Loss of each of the trainer's first batches."""
    losses = []
    for _ in range(n_batches):
        losses.append(trainer.step(trainer.loader.batch(trainer.epoch, trainer.position)).loss)
        trainer.advance()
    return losses


def compare(run: Run, n_batches: int) -> tuple[float, list[float], list[float]]:
    """The largest difference between the two losses of a batch, then the trainer's losses and the plain ones."""
    trainer = Trainer(run)
    weights = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    ours, plain = trainer_losses(trainer, n_batches), plain_losses(run, weights, n_batches)
    return max(abs(a - b) for a, b in zip(ours, plain, strict=True)), ours, plain
