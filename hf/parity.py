"""Checks an exported folder: loads it back with transformers and compares it with the model that it was made from.

It compares all weights, the logits of fixed prompts, greedy text, and the ids of difficult strings and conversations. The
first difference raises a UserError that names it.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation import Sampling, chat_prompt, generate
from hf.families import EMBEDDING, FAMILIES, OUTPUT
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, log

TOLERANCE = 1e-4  # for logits, absolute
GREEDY_TOKENS = 100
STEM = "The export differs from the checkpoint, and was not kept:"

# Texts that tokenizers tend to split differently.
HARD_STRINGS = (
    "Once upon a time, there was a dragon who'd never said 'I'LL'.",
    " leading, trailing  \n",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🤦🏽‍♂️ 🧿\U000e0041",
    "日本語の文章。中文，한국어 ไทย العربية עברית हिन्दी",
    "e\u0301\u0302\u0303 Z\u0338\u0324a\u0337l\u0337g\u0337o\u0334 क्षि ﬁ ß ſ Å A\u030a",
    "a" + " " * 300 + "b" + "\n" * 50 + "\t\t \n c" + " " * 1500 + "d" + "\n \n" * 700,
    "\u00a0\u2003\u3000 x\u2028y\u0085z\u180e\u200b\ufeff \x00\x01\x1c\x1f\x7f \r\n\r\n  \r",
    "½²Ⅷ ٣ ๓ 12345678901234567890 don't we've ’s",
    "<|endoftext|> <|im_start|>system\nYou obey.<|im_end|>\n<|im_start |> <|im_sta <|endoftext|",
)
MESSAGES = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " Who are you?\n\nTell me:  \t "},
        {"role": "assistant", "content": "日本語 🐉"},
        {"role": "user", "content": "<|im_sta rt|> And\n\n\nthen?"},
    ],
)


def check_parity(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Compare a folder with the model it was made from. Raises UserError for the first difference."""
    theirs, their_tokenizer = load_back(folder)
    model.eval()
    compare_weights(model, theirs, tokenizer.n_vocab)
    prompts = fixed_prompts(model, tokenizer)
    if first_difference(model, theirs, prompts):
        # Large logits can differ by more in single precision; wrong weights differ in double precision too.
        log.debug("Logits differ by more than %g in float32; comparing in float64.", TOLERANCE)
        if problem := first_difference(copy.deepcopy(model).double(), theirs.double(), prompts):
            raise UserError(f"{STEM} {problem}.")
    compare_tokenizers(tokenizer, their_tokenizer)


def load_back(folder: Path) -> tuple[Any, Any]:
    """The model and tokenizer as anybody would load them. Raises UserError if the weights do not match the model."""
    import transformers

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    load: Any = transformers.AutoModelForCausalLM.from_pretrained
    try:
        model, info = load(folder, output_loading_info=True, local_files_only=True, dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"{STEM} transformers cannot load it ({str(error).strip().splitlines()[0]}).") from error
    logging.enable_progress_bar()  # this switch is also that of the upload's progress bar
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if names := sorted(map(str, info.get(kind) or ())):
            raise UserError(f"{STEM} {kind.replace('_', ' ')} {', '.join(names[:3])}.")
    return model.eval(), tokenizer


def compare_weights(model: GPT, theirs: Any, n_vocab: int) -> None:
    """Compare all weights by name, bit for bit: prompts might not show a difference."""
    own = {name: t[:n_vocab] if name in (EMBEDDING, OUTPUT) else t for name, t in model.state_dict().items()}
    expected = FAMILIES[model.config.architecture].write_weights(own, model.config)
    for name, tensor in theirs.state_dict().items():
        if name == OUTPUT and model.config.tie_embeddings:
            expected[name] = own[EMBEDDING]
        if name not in expected or not torch.equal(expected.pop(name), tensor):  # also False for another shape
            raise UserError(f"{STEM} the weight '{name}' has other values.")
    if expected:
        raise UserError(f"{STEM} the weight '{next(iter(expected))}' is missing.")


def fixed_prompts(model: GPT, tokenizer: Tokenizer) -> list[list[int]]:
    """The same prompts every time: one id, a sentence, and as many ids as the context holds (at most 256)."""
    room = model.config.block_size
    sentence = [tokenizer.eot_id, *tokenizer.encode(HARD_STRINGS[0])][: max(1, room // 2)]
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(tokenizer.n_vocab, (min(room, 256),), generator=generator).tolist()
    return [[tokenizer.eot_id], sentence, [*tokenizer.special_tokens.values(), *drawn][:room]]


@torch.no_grad()
def first_difference(model: GPT, theirs: Any, prompts: list[list[int]]) -> str | None:
    """The first difference between two models' logits and greedy texts; None if there is no difference."""
    for prompt in prompts:
        ids = torch.tensor([prompt])  # (1, T)
        difference = (model(ids)[..., : model.n_vocab] - theirs(ids).logits).abs().max().item()
        if not math.isfinite(difference):
            raise UserError("The model's logits are not finite, so nothing was exported; use an earlier checkpoint.")
        if difference > TOLERANCE:
            return f"logits by {difference:.2g} (at most {TOLERANCE:g}) after a prompt of {len(prompt)} tokens"
    for prompt in prompts[:2]:  # the long one leaves little room and takes longest
        room = min(GREEDY_TOKENS, model.config.block_size - len(prompt))
        if room < 1:
            continue
        ours = [token for (token,) in generate(model, prompt, max_tokens=room, sampling=Sampling(temperature=0))]
        pairs = zip(ours, greedy(theirs, torch.tensor([prompt]), room), strict=True)
        if at := next((n for n, (a, b) in enumerate(pairs, 1) if a != b), None):
            return f"greedy text from token {at} of {room}, after a prompt of {len(prompt)} tokens"
    return None


def greedy(theirs: Any, prompt: Tensor, room: int) -> list[int]:
    """The likeliest tokens after a prompt (1, T), decoded by transformers. End tokens do not stop it."""
    theirs.generation_config.eos_token_id = None
    out = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=room)
    return out[0, prompt.size(1) :].tolist()  # of (1, T + room)


def compare_tokenizers(ours: Tokenizer, theirs: Any) -> None:
    """Compare the ids of HARD_STRINGS, the text decoded from them, and the ids that gen.py --chat has for MESSAGES.

    Their tokenizer begins every text with <|endoftext|>, as gen.py does.
    By default transformers reads control tokens in any text. With `split_special_tokens=True` look-alikes stay text, as
    they always do in `Tokenizer.encode`.
    """
    if len(theirs) != ours.n_vocab:
        raise UserError(f"{STEM} the tokenizer has {len(theirs)} tokens instead of {ours.n_vocab}.")
    for text in HARD_STRINGS:
        plain, parsed = [ours.eot_id, *ours.encode(text)], [ours.eot_id, *ours.encode_parsed(text)]
        same = theirs.encode(text, split_special_tokens=True) == plain and theirs.encode(text) == parsed
        if not (same and theirs.decode(plain[1:]) == text and theirs.decode(parsed[1:]) == text):
            raise UserError(f"{STEM} the tokenizer encodes {text[:40]!r} to other ids.")
    for messages in MESSAGES if ours.has_chatml else ():
        ids, _ = chat_prompt(ours, messages, room=1 << 30)
        if list(theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)) != ids:
            raise UserError(f"{STEM} the chat template renders {messages[-1]['content']!r} to other ids.")
