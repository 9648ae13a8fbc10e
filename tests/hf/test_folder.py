"""Hugging Face folder -> checkpoint: other GPT-2 models, our exports, and folders that are refused."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import helpers_run
import pytest
import torch
import torch.nn.functional as F
from helpers_hf import change_json, change_weights, foreign
from helpers_model import QWEN3, random_model, tiny_config

import gen
from generation import load_model
from hf import folder as hf
from hf.families import FAMILIES
from hf.folder import EMBEDDING, OUTPUT, load_hf
from hf.hub import find_model
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.text.tokenizer import Tokenizer
from utils import UserError


@pytest.mark.parametrize("shift", [0.0, -35.0])
def test_training_starts_at_the_loss_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    from transformers import AutoModelForCausalLM

    helpers_run.settle(tmp_path, monkeypatch)
    foreign(tmp_path / "gpt2", shift)
    flags = ["--dataset", "mine", "--device", "cpu", "--dtype", "float32", "--batch_size", "2", "--max_iters", "1"]
    outcome = helpers_run.train_plainly("--init_from", "gpt2", *flags, "--training.eval_iters", "1")
    assert outcome.code == 0, outcome.said
    (row,) = helpers_run.metrics_rows("models/mine_epoch1.metrics.jsonl")
    state = helpers_run.state_of("models/mine_epoch1.pt")
    assert state["config"]["model"]["vocab_size"] == 50304
    assert state["tokenizer"] == Tokenizer().definition()

    with_run = helpers_run.prepare_run(helpers_run.request_of("--init_from", "gpt2", *flags))
    batch = with_run.loader().batch(0, 0)
    with_run.close()
    inputs, targets = torch.from_numpy(batch.inputs[0]), torch.from_numpy(batch.targets[0])
    theirs = AutoModelForCausalLM.from_pretrained("gpt2")
    with torch.no_grad():
        logits = theirs(inputs).logits
    assert not shift or logits.max() < -20
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1).item()
    assert row["loss"] == pytest.approx(expected, abs=1e-3)


def test_new_rows_start_as_the_mean(tmp_path: Path) -> None:
    foreign(tmp_path / "gpt2", -35.0)
    checkpoint = load_hf(tmp_path / "gpt2", chatml=True)
    embedding = checkpoint.model[EMBEDDING]
    assert embedding.shape == (50304, 16)
    assert torch.allclose(embedding[50257:], embedding[:50257].mean(0).expand(47, -1), atol=1e-5)
    assert checkpoint.tokenizer == Tokenizer().definition()
    assert checkpoint.config["model"]["bias"] is True
    assert load_hf(tmp_path / "gpt2").tokenizer == Tokenizer(chatml=False).definition()  # no chatml, no new tokens


def test_the_names_of_gpt2s_own_files(tmp_path: Path) -> None:
    """Names without `transformer.`, masks, a second copy of the output matrix, and several files."""
    from safetensors.torch import load_file, save_file

    place = foreign(tmp_path / "gpt2")
    expected = load_hf(place).model
    weights = load_file(place / "model.safetensors")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    plain |= {"h.0.attn.bias": torch.ones(1, 1, 16, 16).tril(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    plain["lm_head.weight"] = plain["wte.weight"].clone()
    (place / "model.safetensors").unlink()
    names = sorted(plain)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: plain[name] for name in part}, place / file)
    index = {name: file for file, part in parts.items() for name in part}
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    found = load_hf(place).model
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("tied", "shard"), [(True, {}), (False, {"max_shard_size": "2MB"})])
def test_a_qwen3_as_transformers_saves_it(tmp_path: Path, tied: bool, shard: dict[str, str]) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
    }
    rope = {"rope_type": "default", "rope_theta": 300.0}
    other = {
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "tie_word_embeddings": tied,
        "rope_parameters": rope,
    }
    theirs = Qwen3ForCausalLM(Qwen3Config(**shape, **other, vocab_size=50257)).bfloat16()
    theirs.save_pretrained(tmp_path, **shard)
    assert (tmp_path / "model.safetensors").is_file() == (not shard)
    ours, _, checkpoint = load_model(load_hf(tmp_path))
    tokens = torch.arange(20).view(1, 20)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens)[..., :50257], theirs.float()(tokens).logits, atol=1e-4, rtol=0)
    assert (ours.config.rope_theta, ours.config.tie_embeddings, ours.config.n_inner) == (300.0, tied, 24)
    assert checkpoint.model[OUTPUT].equal(checkpoint.model[EMBEDDING]) == tied


LIKE_QWEN3 = {
    "model_type": "qwen3", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 4, "intermediate_size": 24, "max_position_embeddings": 32, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "theta"),
    [
        ({}, 1e4), ({"rope_theta": 1e6}, 1e6), ({"rope_theta": 1e6, "rope_parameters": None}, 1e6),
        ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 7, "rope_type": "default"}}, 7.0),
    ],
)  # fmt: skip
def test_rope_theta_is_where_transformers_4_or_5_wrote_it(change: dict[str, Any], theta: float) -> None:
    assert FAMILIES["qwen3"].read_config(LIKE_QWEN3 | change, Path("x"))["rope_theta"] == theta


@pytest.mark.parametrize(
    "change",
    [
        {"head_dim": 128}, {"rope_scaling": {"rope_type": "yarn"}}, {"rope_parameters": {"type": "yarn"}},
        {"attention_bias": True}, {"use_sliding_window": True}, {"layer_types": ["sliding_attention"] * 2},
        {"quantization_config": {"bits": 4}}, {"hidden_act": "gelu"}, {"rope_theta": 1e300}, {"rope_theta": math.nan},
        {"num_key_value_heads": 0}, {"num_key_value_heads": 3}, {"intermediate_size": 10**9}, {"rms_norm_eps": 0},
        {"tie_word_embeddings": "no"},
    ],
    ids=str,
)  # fmt: skip
def test_a_qwen3_that_jojo_cannot_compute_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refused:
        FAMILIES["qwen3"].read_config(LIKE_QWEN3 | change, Path("x"))
    ours = {"num_key_value_heads": "n_kv_head", "intermediate_size": "n_inner", "rms_norm_eps": "norm_eps"}
    ours |= {"tie_word_embeddings": "tie_embeddings"}
    (name,) = change
    assert ours.get(name, name) in str(refused.value) and "\n" not in str(refused.value)


K_PROJ = "model.layers.0.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("lm_head.weight", None, "'lm_head.weight' is missing"),
        ("lm_head.weight", torch.zeros(65, 16), r"'lm_head.weight' has the shape \(65, 16\) instead of \(64, 16\)"),
        (K_PROJ, None, f"'{K_PROJ}' is missing"),
        (K_PROJ, torch.zeros(16, 16), f"'{K_PROJ}' has the shape"),
        (K_PROJ, torch.tensor(1.0), f"'{K_PROJ}' has the shape"),
        ("model.layers.2.mlp.up_proj.weight", torch.zeros(24, 16), "is not part of a Qwen3"),
    ],
)
def test_weights_that_do_not_fit_a_qwen3_are_named(name: str, weight: torch.Tensor | None, message: str) -> None:
    model = random_model(tiny_config(**QWEN3 | {"n_embd": 16, "tie_embeddings": False}))
    stored = FAMILIES["qwen3"].write_weights(model.state_dict(), model.config)
    stored = {n: t for n, t in stored.items() if n != name} | ({} if weight is None else {name: weight})
    with pytest.raises(UserError, match=message):
        FAMILIES["qwen3"].read_weights(stored, model.config)


def test_biases_that_training_moved_stay(folder: Path) -> None:
    assert load_hf(folder).config["model"]["bias"] is False
    change_weights(folder, lambda w: w["transformer.ln_f.bias"].fill_(0.5))
    checkpoint = load_hf(folder)
    assert checkpoint.config["model"]["bias"] is True
    assert checkpoint.model["transformer.ln_f.bias"].unique().tolist() == [0.5]


@pytest.mark.parametrize(
    "change",
    [
        {"n_inner": 48}, {"activation_function": "relu"}, {"scale_attn_weights": False}, {"model_type": "llama"},
        {"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True}, {"layer_norm_epsilon": 1e-6},
        {"tie_word_embeddings": False}, {"n_layer": "two"}, {"n_head": 3}, {"n_layer": 3}, {"n_positions": 64},
        {"vocab_size": 50256}, {"n_embd": 10**9}, {"quantization_config": {"bits": 4}},
    ],
    ids=str,
)  # fmt: skip
def test_models_that_model_py_cannot_compute_are_refused(tmp_path: Path, folder: Path, change: dict[str, Any]) -> None:
    change_json(folder / "config.json", **change)
    with pytest.raises(UserError) as refused:
        load_hf(folder)
    (name,) = change
    assert {"n_positions": "block_size"}.get(name, name) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged, or not a safetensors file"):
        load_hf(folder)
    weights.write_bytes((90_000_000).to_bytes(8, "little") + b"{}")  # so large a header takes minutes to read
    with pytest.raises(UserError, match="its header has 90,000,000 bytes"):
        load_hf(folder)
    header = json.dumps({"wte.weight": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + b"0")  # PyTorch cannot convert this type
    with pytest.raises(UserError, match="is damaged, or not a safetensors file"):
        load_hf(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="in a pickle, which can run code"):
        load_hf(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": "../x.safetensors"}}))
    with pytest.raises(UserError, match=r"no file '\.\./x.safetensors'"):
        load_hf(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="must hold a JSON object"):
        load_hf(folder)
    os.truncate(folder / "config.json", (1 << 27) + 1)
    with pytest.raises(UserError, match=r"config.json' is larger than 128 MiB"):
        load_hf(folder)
    with pytest.raises(UserError, match=r"no config\.json"):
        load_hf(tmp_path)
    for source in ("no/such/folder", str(index), "", "a b"):
        with pytest.raises(UserError):
            load_hf(find_model(source))


def test_gen_talks_to_a_folder(exported: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--prompt", "Once", "--max_tokens", "12", "--seed", "1", "--device", "cpu", "--dtype", "float32"]
    texts = []
    for source in exported:
        assert gen.main([str(source), *flags]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    with pytest.raises(UserError, match="is a folder; name a checkpoint"):
        gen.main([str(tmp_path), *flags])


def test_a_folder_becomes_a_checkpoint(exported: tuple[Path, Path], tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(hf.__file__).parents[1] / "tools"))
    try:
        import hf_to_checkpoint as tool
    finally:
        sys.path.pop(0)
    output = tmp_path / "models" / "back.pt"
    assert tool.main([str(exported[1]), "-o", str(output)]) == 0
    first, second = load_checkpoint(exported[0]), load_checkpoint(output)
    assert second.version == "3"
    assert second.tokenizer == first.tokenizer
    assert all(torch.equal(second.model[name], tensor) for name, tensor in first.model.items())
    with pytest.raises(UserError, match="exists already"):
        tool.main([str(exported[1]), "-o", str(output)])


def test_init_from_excludes_checkpoints() -> None:
    with pytest.raises(UserError, match="--checkpoint and --init_from name different models"):
        helpers_run.train_plainly("--init_from", "x", "--checkpoint", "y.pt")


def test_the_error_for_another_shape_says_what_to_leave_out(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers_run.settle(tmp_path, monkeypatch)
    flags = ["--init_from", str(exported[1]), "--dataset", "mine", "--max_iters", "1"]
    config = str(Path(hf.__file__).parents[1] / "configs" / "story-small.json")
    with pytest.raises(UserError, match=r"story-small\.json\) against .* Leave these options out"):
        helpers_run.train_plainly(*flags, "--config", config)
    with pytest.raises(UserError, match="Leave these options out"):
        helpers_run.train_plainly(*flags, "--model.n_layer", "9")
