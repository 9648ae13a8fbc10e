"""The lm-eval harness measures an exported model. Runs only if lm-eval is installed (requirements-eval.txt)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import helpers_run
import pytest
from helpers_model import save_format3

import upload_to_huggingface

if importlib.util.find_spec("lm_eval"):

    def test_the_harness_finds_the_bits_per_byte_that_training_reports(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from lm_eval import simple_evaluate

        helpers_run.settle(tmp_path, monkeypatch)
        text = " ".join(helpers_run.sentences(200))  # one long document: its windows hardly depend on where they begin
        helpers_run.write_lines(Path("data/mine-train.jsonl"), [{"text": text}])
        helpers_run.write_lines(Path("data/mine-val.jsonl"), [{"text": " ".join(helpers_run.sentences(150, 200))}])
        trainer = helpers_run.make_trainer("--max_iters", "60", "--training.eval_iters", "1000")
        before = trainer.evaluate()["bpb"]
        trainer.train()
        expected = trainer.evaluate()["bpb"]
        trainer.run.close()
        assert expected < 0.7 * before

        path = save_format3(trainer.model, tmp_path / "x.pt")
        assert upload_to_huggingface.main([str(path), "--repo-name", "tales", "--dataset", "mine", "--dry-run"]) == 0
        task = {
            "task": "tales",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": "data/mine-val.jsonl"}},
            "validation_split": "validation",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        }
        model = {"pretrained": "hf_model", "dtype": "float32", "device": "cpu", "add_bos_token": False}
        found = simple_evaluate("hf", model, tasks=[task])
        assert found["results"]["tales"]["bits_per_byte,none"] == pytest.approx(expected, rel=0.03)
