"""What evaluate.py found, as tables for the screen and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.bits_per_byte import TextResult
from evaluation.choices import SCORES, TaskResult
from evaluation.core import CoreResult
from evaluation.intervals import Estimate
from evaluation.standard import StandardResult
from jojo.plotting import LR_COLOR, TRAIN_COLOR, VAL_COLOR, new_figure, save_figure

COLORS = dict(zip(SCORES, (TRAIN_COLOR, VAL_COLOR, LR_COLOR), strict=True))
LONGEST_NAME = 32  # characters of a text's or task's name in a table and in the picture


@dataclass
class Results:
    """The results of one model, by the names of the texts and tasks. `standard` are lm-eval's tasks."""

    texts: dict[str, TextResult] = field(default_factory=dict)
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    core: CoreResult | None = None
    standard: dict[str, StandardResult] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, unrounded."""
        return {
            "bits_per_byte": {name: result.to_dict() for name, result in self.texts.items()},
            "tasks": {name: result.to_dict() for name, result in self.tasks.items()},
            "core": self.core and self.core.to_dict(),
            "lm_eval": {name: result.to_dict() for name, result in self.standard.items()},
        }

    def tables(self) -> str:
        """All results for people, rounded, each with its 95 % interval; those of lm-eval with its standard error."""
        blocks = []
        if self.texts:
            rows = [["text", "bits per byte", "loss", "documents", "bytes"]]
            for result in self.texts.values():
                shown = with_interval(result.bpb, 4)
                rows.append(
                    [result.source, shown, f"{result.loss:.4f}", f"{result.n_documents:,}", f"{result.n_bytes:,}"]
                )
            blocks.append(aligned(rows))
        if self.tasks:
            rows = [["task", *SCORES, "chance", "questions"]]
            for name, task in self.tasks.items():
                scores = [with_interval(score, 3) for score in task.scores.values()]
                rows.append([name, *scores, f"{task.chance:.3f}", f"{len(task.likelihoods):,}"])
            blocks.append(aligned(rows))
        if self.core:
            rows = [["CORE task", "accuracy", "centered"]]
            for name, accuracy in self.core.accuracies.items():
                rows.append([name, with_interval(accuracy, 3), f"{self.core.centered[name]:.4f}"])
            blocks.append(aligned([*rows, ["CORE, the mean of the centered", "", f"{self.core.metric:.4f}"]]))
        if self.standard:
            rows = [["lm-eval task", "metric", "value", "standard error", "questions"]]
            for name, standard in self.standard.items():
                for metric, (value, error) in standard.metrics.items():
                    shown = "" if error is None else f"{error:.4f}"
                    rows.append([name, metric, f"{value:.4f}", shown, f"{standard.n_questions:,}"])
            blocks.append(aligned(rows))
        return "\n\n".join(blocks)

    def shares(self) -> list[tuple[str, dict[str, Estimate], float | None]]:
        """Of every task its name, the shares of right answers by kind of score, and what guessing scores, if that is known."""
        rows: list[tuple[str, dict[str, Estimate], float | None]]
        rows = [(name, task.scores, task.chance) for name, task in self.tasks.items()]
        if self.core:
            chances = self.core.chances
            rows += [(f"CORE {name}", {"acc": one}, chances[name]) for name, one in self.core.accuracies.items()]
        rows += [(f"lm-eval {name}", found, None) for name, task in self.standard.items() if (found := task.shares())]
        return rows

    def draw(self, path: Path, title: str) -> None:
        """Write a picture of all results with their intervals, a PNG. Metrics of lm-eval that are no shares are left out."""
        texts = [(result.source, {"bpb": result.bpb}, None) for result in self.texts.values()]
        shares = self.shares()
        parts = [part for part in (texts, shares) if part]
        heights = [1.5 + len(part) for part in parts]
        figure = new_figure(8, 1.1 + sum(0.9 + 0.45 * len(part) for part in parts))
        panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
        panels[0].set_title(title, fontsize=11)
        for axes, part in zip(panels, parts, strict=True):
            draw_estimates(axes, part)
        if texts:
            panels[0].set_xlabel("bits per byte (lower is better)")
            panels[0].set_xlim(0, 1.05 * panels[0].get_xlim()[1])
        if shares:
            panels[-1].set_xlabel("share of right answers (higher is better)")
            panels[-1].set_xlim(0, 1)
            named = dict(zip(*reversed(panels[-1].get_legend_handles_labels()), strict=True))  # each label once
            figure.legend(named.values(), named, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
        save_figure(figure, path)


def draw_estimates(axes: Any, rows: Sequence[tuple[str, dict[str, Estimate], float | None]]) -> None:
    """A row for each name, from above: a dot and an interval for each of its estimates, and a line at chance."""
    for row, (_, estimates, chance) in enumerate(rows):
        for place, (score, estimate) in enumerate(estimates.items()):
            y = row + 0.2 * (place - (len(estimates) - 1) / 2)
            sides = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
            axes.errorbar(
                [estimate.value], [y], xerr=sides, fmt="o", markersize=5, capsize=3,
                color=COLORS.get(score, TRAIN_COLOR), label=score if score in COLORS else None,
            )  # fmt: skip
        if chance is not None:
            axes.plot([chance] * 2, [row - 0.4, row + 0.4], color="gray", linestyle=":", label="chance")
    axes.set_yticks(range(len(rows)), [shortened(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def shortened(name: str) -> str:
    """The end of a long name: of a path, the end says more than the beginning."""
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def with_interval(estimate: Estimate, digits: int) -> str:
    """Such as 0.750 [0.686, 0.805]."""
    interval = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]" if estimate.interval else ""
    return f"{estimate.value:.{digits}f}{interval}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    rows = [[shortened(row[0]), *row[1:]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line) for line in lines)
