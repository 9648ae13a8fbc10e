"""Checkpoint -> Hugging Face folder: it has the same model, and it replaces only an unchanged export of ours."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helpers_run
import pytest
import torch
import torch.nn.functional as F
from helpers_cli import messages
from helpers_hf import change_json, dry_run, load_plainly, nothing_said
from helpers_model import QWEN3, random_model, random_tokens, save_2x, save_format3, save_v1, tiny_config

import upload_to_huggingface
from generation import Sampling, chat_prompt, generate, load_model
from hf import export as hf_export
from hf import folder as hf
from hf import parity as hf_parity
from hf import tokenizer_files as hf_tokenizer
from hf.export import export
from hf.folder import EMBEDDING, OUTPUT, load_hf
from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.text.tokenizer import Tokenizer
from jojo.text.vocabulary import train_vocabulary
from model import GPT
from trainer import Trainer
from utils import UserError

SAVERS = {"1": save_v1, "2.x": save_2x, "3": save_format3}


@pytest.mark.parametrize(
    ("version", "changes", "tokenizer"),
    [
        ("1", {"bias": True}, "gpt2"),
        ("2.x", {"bias": False}, "extended"),
        ("3", {"bias": True}, "extended"),
        ("3", {"bias": False}, "gpt2"),
        ("3", QWEN3, "extended"),
        ("3", QWEN3 | {"tie_embeddings": False, "n_inner": 40, "n_kv_head": None}, "gpt2"),
    ],
)
def test_export_and_import_restore_a_checkpoint_of_every_version(
    tmp_path: Path, version: str, changes: dict[str, Any], tokenizer: str
) -> None:
    source = random_model(tiny_config(**changes, vocab_size=50304), 50259)
    path = SAVERS[version](source, tmp_path / "x.pt")
    place = dry_run(path, tmp_path / "out", "--tokenizer", tokenizer)
    theirs, their_tokenizer = load_plainly(place)

    n_vocab = 50257 if tokenizer == "gpt2" else 50259
    ours, _, _ = load_model(path, chatml=tokenizer == "extended")
    tokens = random_tokens(ours.config, 3, 32, n_vocab=n_vocab)
    with torch.no_grad(), nothing_said():
        logits = theirs(tokens).logits
        assert logits.shape[-1] == n_vocab == len(their_tokenizer)
        assert (ours(tokens)[..., :n_vocab] - logits).abs().max() < 1e-4
        prompt = their_tokenizer("Once upon a time", return_tensors="pt")
        out = theirs.generate(**prompt, do_sample=False, max_new_tokens=20)[0]
    stop = {50256, 50258}
    written = [t for (t,) in generate(ours, out[:5].tolist(), max_tokens=20, sampling=Sampling(0), stop=stop)]
    assert out[5:].tolist()[: len(written)] == written

    back = load_hf(place)
    before = load_checkpoint(path)
    assert set(back.model) == set(before.model)
    assert all(torch.equal(back.model[name], tensor) for name, tensor in before.model.items())
    assert load_model(back)[0].config.architecture == source.config.architecture
    assert not [p for p in place.iterdir() if p.suffix in (".bin", ".pt", ".pkl")]


def test_a_vocabulary_without_padding(tmp_path: Path) -> None:
    model = random_model(tiny_config(vocab_size=50257, n_embd=4), 50257)
    path = save_v1(model, tmp_path / "x.pt")
    place = dry_run(path, tmp_path / "out")
    assert not (place / hf.PADDING_FILE).exists()
    assert not (place / "chat_template.jinja").exists()
    assert torch.equal(load_hf(place).model[EMBEDDING], model.lm_head.weight)


def test_config_json_describes_the_model(exported: tuple[Path, Path]) -> None:
    theirs, tokenizer = load_plainly(exported[1])
    config = theirs.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (2, 2, 16, 32)
    assert config.activation_function == "gelu_new"
    assert config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0.1
    assert config.bos_token_id == config.eos_token_id == tokenizer.eos_token_id == 50256
    assert theirs.generation_config.eos_token_id == [50256, 50258]
    assert tokenizer.model_max_length == 32
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [50257, 50258]
    assert config.jojo["bias"] is False


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(exported: tuple[Path, Path], dtype: torch.dtype) -> None:
    from transformers import AutoModelForCausalLM

    with nothing_said():
        half = AutoModelForCausalLM.from_pretrained(exported[1], dtype=dtype)
    assert half.dtype == dtype
    ours, _, _ = load_model(exported[0])
    tokens = random_tokens(ours.config, 2, 16, n_vocab=50259)
    with torch.no_grad():
        difference = (ours(tokens)[..., :50259] - half(tokens).logits.float()).abs().mean()
        assert difference < 0.02 * ours(tokens).abs().mean()


def test_a_failed_export_changes_nothing(exported: tuple[Path, Path], folder: Path, monkeypatch: Any) -> None:
    before = helpers_run.snapshot(folder)
    monkeypatch.setattr(hf_tokenizer, "CHAT_TEMPLATE", folder / "merges.txt")  # no template
    for place in (folder, folder.parent / "new"):
        with pytest.raises(UserError, match="chat template"):
            dry_run(exported[0], place)
    assert helpers_run.snapshot(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


BAD_WEIGHTS = {
    "'transformer.h.0.mlp.c_fc.weight' has the shape": lambda w: w.update(
        {"transformer.h.0.mlp.c_fc.weight": w["transformer.h.0.mlp.c_fc.weight"].t().contiguous()}
    ),
    "'transformer.h.1.attn.c_proj.weight' in .* was transposed": lambda w: w.update(
        {"transformer.h.1.attn.c_proj.weight": w["transformer.h.1.attn.c_proj.weight"].t()}  # square, so its shape fits
    ),
    "'transformer.h.1.ln_2.weight' is missing": lambda w: w.pop("transformer.h.1.ln_2.weight"),
    "'transformer.h.1.extra' is not part": lambda w: w.update({"transformer.h.1.extra": torch.zeros(1)}),
    "'transformer.h.1.mlp.c_proj.weight' in .* is not finite": lambda w: w["transformer.h.1.mlp.c_proj.weight"].fill_(
        math.nan
    ),
    "'lm_head.weight' in .* differs from": lambda w: w.update({OUTPUT: w[OUTPUT] + 1}),
}


@pytest.mark.parametrize("sentence", BAD_WEIGHTS)
def test_checkpoints_that_are_refused_by_name(exported: tuple[Path, Path], tmp_path: Path, sentence: str) -> None:
    checkpoint = load_checkpoint(exported[0])
    BAD_WEIGHTS[sentence](checkpoint.model)
    with pytest.raises(UserError, match=sentence):
        export(checkpoint, tmp_path / "out", Tokenizer())
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_not_overwritten(folder: Path, exported: tuple[Path, Path]) -> None:
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        before = (folder / name).read_text()
        change_json(folder / name, added=1)
        with pytest.raises(UserError, match=f"'{name}' in .* was changed since it was exported"):
            dry_run(exported[0], folder)
        (folder / name).write_text(before)
    dry_run(exported[0], folder)


def test_files_that_appear_during_an_export_stay(
    exported: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_export, "check_parity", lambda *_: (folder / "notes.txt").write_text("precious"))
    with pytest.raises(UserError, match=r"'notes\.txt'"):
        dry_run(exported[0], folder)
    assert (folder / "notes.txt").read_text() == "precious"


def test_an_edited_card_stays(exported: tuple[Path, Path], folder: Path) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text() + "MY EDIT\n")
    for _ in range(2):
        with messages() as said:
            dry_run(exported[0], folder)
        assert card.read_text().endswith("MY EDIT\n")
        assert any("was edited and stays as it is" in line for line in said)
    card.unlink()
    dry_run(exported[0], folder)
    assert "MY EDIT" not in card.read_text()


def test_leftovers_of_killed_exports_are_removed(exported: tuple[Path, Path], folder: Path) -> None:
    folder.with_name(".folder.new").mkdir()
    (folder.with_name(".folder.new") / "config.json").write_text("{")
    folder.with_name(".folder.lock").touch()
    before = helpers_run.snapshot(folder)
    folder.rename(folder.with_name(".folder.old"))  # its export was killed between the two renames
    with pytest.raises(UserError), hf_export.new_folder(folder) as new:
        assert helpers_run.snapshot(folder) == before and list(new.iterdir()) == []
        raise UserError("The comparison failed.")
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]
    dry_run(exported[0], folder)
    assert [p.name for p in folder.parent.iterdir()] == ["folder"]


def test_a_second_export_into_a_folder_waits_for_the_first(exported: tuple[Path, Path], folder: Path) -> None:
    code = "from hf.export import new_folder; from pathlib import Path; import sys\n"
    code += "with new_folder(Path(sys.argv[1])) as new: print(new, flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=Path(hf.__file__).parents[1], **pipes)
    assert first.stdout and first.stdout.readline().strip() == str(folder.with_name(".folder.new"))
    timer = threading.Timer(1.0, first.communicate)
    timer.start()
    with messages() as said:
        dry_run(exported[0], folder)
    timer.join()
    assert first.returncode == 0 and f"INFO: Another process is preparing '{folder}'; waiting for it." in said


def test_ctrl_c_between_the_renames_puts_the_folder_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = helpers_run.snapshot(folder)
    new = folder.with_name("new")
    new.mkdir()
    plain = os.replace

    def replace(old: Path, target: Path) -> None:
        if old == new:
            raise KeyboardInterrupt
        plain(old, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        hf_export.replace_folder(new, folder)
    assert helpers_run.snapshot(folder) == before


def test_sigterm_leaves_no_half_export(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """The export runs in another process, which gets SIGTERM while it compares."""
    code = (
        "import os, signal, sys, upload_to_huggingface; from hf import export; from jojo.command import run_command\n"
        "export.check_parity = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "run_command(upload_to_huggingface.main, sys.argv[1:])"
    )
    flags = [str(exported[0]), "--repo-name", "x", "--dataset", "d", "--dry-run", "--output-dir", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", code, *flags], cwd=Path(hf.__file__).parents[1], capture_output=True, text=True
    )
    assert ended.returncode == 143, ended.stderr
    assert "Interrupted" in ended.stderr and "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def scripted_model(turn_at: int) -> GPT:
    """A model that writes " Hi" before position `turn_at`, and <|im_end|> from there on. Its blocks compute nothing."""
    model = random_model(tiny_config(vocab_size=50304, bias=False, block_size=64), 50259)
    (hi,) = Tokenizer().encode(" Hi")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if ".ln_" in name else 0.0)
        model.lm_head.weight[hi, 0] = model.lm_head.weight[50258, 1] = 10.0
        model.transformer.wpe.weight[:turn_at, 0] = 1000.0
        model.transformer.wpe.weight[turn_at:, 1] = 1000.0
    return model


def test_the_pipeline_answers_messages_and_stops(tmp_path: Path) -> None:
    from transformers import pipeline

    messages = [{"role": "user", "content": "Hello"}]
    ids, _ = chat_prompt(Tokenizer(), messages, 64)
    path = save_format3(scripted_model(len(ids) + 2), tmp_path / "x.pt")
    place = dry_run(path, tmp_path / "out")
    generator = pipeline("text-generation", str(place))
    answer = generator(messages, max_new_tokens=20)[0]["generated_text"]
    assert answer == [*messages, {"role": "assistant", "content": " Hi Hi Hi"}]
    assert generator("Hello", max_new_tokens=3, return_full_text=False)[0]["generated_text"] == " Hi Hi Hi"


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """A Trainer with a small data set, before its first batch."""
    helpers_run.settle(tmp_path, monkeypatch)
    made = helpers_run.make_trainer("--data.tokenizer", "gpt2")
    yield made
    made.run.close()


def test_bits_per_byte_and_perplexity_are_those_of_transformers(trainer: Trainer, tmp_path: Path) -> None:
    place = dry_run(save_format3(trainer.model, tmp_path / "x.pt"), tmp_path / "out")
    theirs, _ = load_plainly(place)
    nats = tokens = text_nats = text_bytes = 0.0
    loader, sizes = trainer.eval_loaders["val"], torch.tensor(trainer.run.data.tokenizer.byte_lengths)
    for index in range(loader.batches_per_epoch):
        batch = loader.batch(0, index)
        inputs, targets = torch.from_numpy(batch.inputs[0]), torch.from_numpy(batch.targets[0])
        with torch.no_grad():
            logits = theirs(inputs).logits
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        size = (sizes[targets.clamp_min(0)] * (targets >= 0)).flatten()
        nats, tokens = nats + losses.sum().item(), tokens + (targets >= 0).sum().item()
        text_nats, text_bytes = text_nats + losses[size > 0].sum().item(), text_bytes + size.sum().item()
    ours = trainer.evaluate()
    assert ours["bpb"] == pytest.approx(text_nats / math.log(2) / text_bytes, rel=1e-3)
    assert math.exp(ours["val_loss"]) == pytest.approx(math.exp(nats / tokens), rel=1e-3)


OWN = train_vocabulary(helpers_run.sentences(80), 400)


@pytest.mark.parametrize("family", [{}, QWEN3 | {"tie_embeddings": False, "norm_eps": 1e-5}], ids=["gpt2", "qwen3"])
def test_export_and_import_restore_a_vocabulary_of_its_own(tmp_path: Path, family: dict[str, Any]) -> None:
    own = Tokenizer(vocabulary=OWN)
    model = random_model(tiny_config(vocab_size=own.padded_vocab_size, **family), own.n_vocab)
    path = save_format3(model, tmp_path / "x.pt", own)
    place = dry_run(path, tmp_path / "out")
    theirs, their_tokenizer = load_plainly(place)
    assert theirs.config.vocab_size == len(their_tokenizer) == own.n_vocab
    for text in hf_parity.HARD_STRINGS:
        assert their_tokenizer.encode(text, split_special_tokens=True) == [own.eot_id, *own.encode(text)]
    back = load_hf(place, chatml=True)
    assert back.tokenizer == own.definition()
    assert all(torch.equal(back.model[name], tensor) for name, tensor in load_checkpoint(path).model.items())
    assert (family | {"dropout": 0.1}).items() <= back.config["model"].items()
    card = (place / "README.md").read_text()
    assert f"| vocabulary | {own.n_vocab} tokens (its own and ChatML) |" in card
    assert f"The architecture is {'Qwen3' if family else 'GPT-2'}'s: " in card
    with pytest.raises(UserError, match="a vocabulary of its own"):
        dry_run(path, tmp_path / "gpt2", "--tokenizer", "gpt2")
    (place / "tokenizer.json").unlink()
    (place / "vocab.json").unlink()
    with pytest.raises(UserError, match="a tokenizer whose files are missing"):
        load_hf(place)


def test_the_page_names_every_flag_and_file() -> None:
    page = (Path(hf.__file__).parents[1] / "docs" / "huggingface.md").read_text(encoding="utf-8")
    actions = upload_to_huggingface.build_parser()._actions
    flags = {flag for action in actions for flag in action.option_strings if flag[:2] == "--"}
    usual = {"--help", "--version", "--no_color", "--no-color"}
    assert [flag for flag in sorted(flags - usual) if f"`{flag}" not in page] == []
    assert [name for name in hf.FILES if f"`{name}`" not in page] == []
