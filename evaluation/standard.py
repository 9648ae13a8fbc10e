"""Standard tasks such as hellaswag, by lm-eval (github.com/EleutherAI/lm-evaluation-harness, requirements-eval.txt).

lm-eval has the prompts, the data and the metrics. The model answers through `lm_model`, so that nothing has to be exported, and
with the numbers that lm-eval finds for the exported model. lm-eval is imported inside the functions that need it.
"""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.intervals import RESAMPLES, Estimate, Z
from evaluation.likelihood import encode_choice, scored
from jojo.text.tokenizer import Tokenizer
from model import GPT
from utils import UserError, log, one_line

FREE_TEXT = "asks for free text, but only given answers can be scored; leave it out."
LM_EVAL_SEEDS = (0, 1234)  # lm-eval's own: for the order of choices in a few tasks, and for the examples in prompts


@dataclass(frozen=True)
class StandardResult:
    """What a model scores in a task of lm-eval."""

    n_questions: int
    version: str  # of the task: numbers of different versions do not compare
    metrics: dict[str, tuple[float, float | None]]  # each with its standard error, if lm-eval has one

    def shares(self) -> dict[str, Estimate]:
        """The metrics that are a share of right answers, such as acc and acc_norm, with 95 % intervals."""
        found = {name: one for name, one in self.metrics.items() if name.startswith(("acc", "exact_match"))}
        halves = {name: math.nan if error is None else Z * error for name, (_, error) in found.items()}
        return {name: Estimate(value, value - halves[name], value + halves[name]) for name, (value, _) in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, unrounded."""
        values: dict[str, Any] = {"questions": self.n_questions, "version": self.version}
        for name, (value, error) in self.metrics.items():
            values |= {name: value, f"{name}_stderr": error}
        return values


def load_standard(names: Sequence[str], builtin: Sequence[str]) -> dict[str, Any]:
    """The tasks with these names and their data, as lm-eval's `evaluate` wants them. A name may be that of a group.

    Raises UserError for an unknown name (with the nearest one, also of `builtin`), for data that is not on this machine and
    cannot be fetched, for a task that wants free text, and if lm-eval is not installed.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError:
        what = f"'{one_line(names[0])}' is no file and no built-in task{near(names[0], builtin)}"
        raise UserError(f"{what}; for lm-eval's tasks: python -m pip install -r requirements-eval.txt") from None
    log.info("Looking up the tasks of lm-eval, and their data ...")
    manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            what = f"'{one_line(name)}' is no file, no built-in task and no task of lm-eval"
            raise UserError(f"{what}{near(name, [*builtin, *manager.all_tasks])}; correct --tasks.")
    random.seed(LM_EVAL_SEEDS[0])
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        found = load_one(manager, name)
        for part in loaded:
            loaded[part] |= found.get(part, {})
    for task in loaded["tasks"].values():  # as lm-eval's command does
        task.set_config(key="num_fewshot", value=task.get_config("num_fewshot") or 0)
        task.set_fewshot_seed(seed=LM_EVAL_SEEDS[1])
    return loaded


def load_one(manager: Any, name: str) -> dict[str, Any]:
    """What lm-eval loads for a name. Raises UserError."""
    try:
        found: dict[str, Any] = manager.load([name])
    except ConnectionError as error:
        from datasets.config import HF_DATASETS_CACHE

        do = f"run this once where there is network, and copy its folder '{HF_DATASETS_CACHE}' to this machine"
        raise UserError(f"The data of '{name}' is missing: {one_line(str(error))}; {do}.") from error
    except Exception as error:  # a task may have code of its own, with any error
        reason = one_line(f"{type(error).__name__}: {error}", 160)
        raise UserError(f"lm-eval cannot load the task '{name}' ({reason}); leave it out.") from error
    if any(task.OUTPUT_TYPE == "generate_until" for task in found["tasks"].values()):
        raise UserError(f"The task '{name}' {FREE_TEXT}")
    return found


def near(name: str, known: Sequence[str]) -> str:
    """The hint " (did you mean 'x'?)" with the closest of the known names, or ""."""
    close = difflib.get_close_matches(name[:100], known, 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def lm_model(model: GPT, tokenizer: Tokenizer) -> Any:
    """The model as an LM of lm-eval. It must be in eval mode."""
    from lm_eval.api.model import LM
    from lm_eval.utils import get_rolling_token_windows

    longest = model.config.block_size

    def answer(context: str, continuation: str) -> tuple[list[int], int]:
        """What the model reads, and how many ids at its end are the answer."""
        before, ids = encode_choice(tokenizer, context, continuation)
        if not 0 < len(ids) <= longest:
            what = f"The answer '{one_line(continuation, 40)}' has {len(ids):,} tokens of its own"
            raise UserError(f"{what}, and the model can score 1 to {longest:,}; leave out its task.")
        return [*before, *ids], len(ids)

    class Model(LM):  # type: ignore[misc]
        """Scores given answers. lm-eval's own class has the docstrings of the methods."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            scores = scored(model, [answer(*request.args) for request in requests])
            return [(score.log_likelihood, score.is_likeliest) for score in scores]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            sums = []
            for request in requests:
                windows = get_rolling_token_windows(tokenizer.encode(request.args[0]), tokenizer.eot_id, longest, 1)
                scores = scored(model, [([*before, ids[-1]], len(ids)) for before, ids in windows])
                sums.append(sum(score.log_likelihood for score in scores))
            return sums

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            raise UserError(f"A task of lm-eval {FREE_TEXT}")

    return Model()


def run_standard(model: GPT, tokenizer: Tokenizer, tasks: Any, most: int | None) -> dict[str, StandardResult]:
    """What a model scores in each task and group that load_standard returns, from the first `most` questions of each task."""
    from lm_eval import evaluate

    lm = lm_model(model, tokenizer)
    found = evaluate(lm, tasks, limit=most, bootstrap_iters=RESAMPLES, log_samples=False)
    results = {}
    for name, values in found["results"].items():
        metrics = {}
        for key, value in values.items():
            metric, comma, kind = key.partition(",")  # such as "acc,none" and "acc_stderr,none"
            if comma and not metric.endswith("_stderr"):
                error = values.get(f"{metric}_stderr,{kind}", "N/A")
                metrics[metric if kind == "none" else key] = (float(value), None if error == "N/A" else float(error))
        results[name] = StandardResult(values["sample_len"], str(found["versions"].get(name)), metrics)
    return results
