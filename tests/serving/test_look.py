"""What the page shows of a model, compared with plain computations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers_model import QWEN3, both_architectures, random_model, tiny_config
from helpers_serving import TOKENIZER, Client, served, serving

from serving.look import attention, token_probabilities

N_VOCAB = TOKENIZER.n_vocab


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(served("tiny"), served("qwen3", **QWEN3)) as made:
        yield made


@both_architectures
def test_probabilities_are_those_of_the_models_logits(family: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.look.LOGIT_ROWS", 3)
    model = random_model(tiny_config(**family, vocab_size=TOKENIZER.padded_vocab_size), N_VOCAB)
    ids = [TOKENIZER.eot_id, *TOKENIZER.encode("Once upon a time there was a cat")]
    looked = token_probabilities(model, TOKENIZER, ids, 5)
    probabilities = model(torch.tensor([ids]))[0, :, :N_VOCAB].softmax(-1)
    first, *rest = looked["tokens"]
    assert first == {"id": ids[0], "text": "<|endoftext|>", "logprob": None, "rank": None, "top": []}
    for place, entry in enumerate(rest):
        p = probabilities[place]
        assert math.exp(entry["logprob"]) == pytest.approx(p[ids[place + 1]].item(), abs=1e-6)
        assert entry["rank"] == 1 + int((p > p[ids[place + 1]]).sum())
        assert [top["id"] for top in entry["top"]] == p.topk(5).indices.tolist()
        assert [math.exp(top["logprob"]) for top in entry["top"]] == pytest.approx(p.topk(5).values.tolist(), abs=1e-6)
    assert "".join(entry["text"] for entry in rest) == "Once upon a time there was a cat"
    loss = torch.nn.functional.cross_entropy(model(torch.tensor([ids[:-1]]))[0, :, :N_VOCAB], torch.tensor(ids[1:]))
    assert looked["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert looked["bits_per_byte"] == pytest.approx(loss.item() * len(rest) / math.log(2) / 32, abs=1e-5)


def test_a_text_without_a_second_token_has_no_loss() -> None:
    model = random_model(tiny_config(vocab_size=TOKENIZER.padded_vocab_size), N_VOCAB)
    looked = token_probabilities(model, TOKENIZER, [5], 3)
    assert len(looked["tokens"]) == 1 and looked["loss"] is looked["bits_per_byte"] is None


@both_architectures
@pytest.mark.parametrize("layer", [0, 1])
def test_a_heads_weights_times_its_values_are_what_the_projection_reads(family: dict[str, Any], layer: int) -> None:
    """So all heads' weights together explain the attention's output exactly."""
    model = random_model(tiny_config(**family, vocab_size=TOKENIZER.padded_vocab_size), N_VOCAB)
    ids = [7, 3, 9, 3, 11, 2]
    part, seen = model.transformer.h[layer].attn, {}
    hooks = [
        part.register_forward_pre_hook(lambda _, given: seen.update(inputs=given)),
        part.c_proj.register_forward_pre_hook(lambda _, given: seen.update(read=given[0][0])),
    ]
    with torch.no_grad():
        model.transformer(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    _, _, v = part.heads(*seen["inputs"][:2])
    heads = []
    for head in range(part.n_head):
        looked = attention(model, TOKENIZER, ids, layer, head)
        weights = torch.zeros(len(ids), len(ids))
        for row, values in enumerate(looked["weights"]):
            assert len(values) == row + 1 and sum(values) == pytest.approx(1, abs=1e-5)
            weights[row, : row + 1] = torch.tensor(values)
        heads.append(weights @ v[0, head * v.size(1) // part.n_head])
    torch.testing.assert_close(torch.cat(heads, -1), seen["read"], rtol=0, atol=1e-4)


def test_the_page_can_ask_for_text_or_ids(client: Client) -> None:
    ids = [TOKENIZER.eot_id, *TOKENIZER.encode("A cat")]
    by_text = client.ask("/inspect/tokens", {"model": "qwen3", "text": "A cat"})
    assert by_text == client.ask("/inspect/tokens", {"model": "qwen3", "ids": ids, "top": 10})
    assert by_text[0] == 200 and [token["id"] for token in by_text[1]["tokens"]] == ids
    status, looked = client.ask("/inspect/attention", {"model": "qwen3", "ids": ids, "layer": 1, "head": 3})
    assert status == 200 and looked["tokens"][1]["text"] == "A"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("tokens", {}, "either 'text' or 'ids'"),
        ("tokens", {"text": "A", "ids": [1]}, "either 'text' or 'ids'"),
        ("tokens", {"ids": [10**6]}, "below"),
        ("tokens", {"text": "a cat " * 40}, "at most 32"),
        ("attention", {"text": "A", "layer": 2, "head": 0}, "layer: must be below 2"),
        ("attention", {"text": "A", "layer": 0, "head": 9}, "head: must be below 2"),
        ("attention", {"text": "A", "layer": 0}, "head: Field required"),
    ],
)
def test_a_wrong_question_gets_one_sentence(client: Client, path: str, body: dict[str, Any], said: str) -> None:
    status, answer = client.ask(f"/inspect/{path}", {"model": "tiny"} | body)
    assert status == 400 and said in answer["error"]["message"]
