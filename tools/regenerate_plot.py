"""Draw a run's plot again, or compare several runs in one plot.

    python tools/regenerate_plot.py models/x.pt                        writes models/x.png
    python tools/regenerate_plot.py models/a.pt models/b.metrics.jsonl -o both.png

It reads metrics files, and checkpoints of any version. A metrics file has the losses of all batches, a checkpoint at most
4,096 of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from utils import UserError, log, output_path, parse_json, user_path  # isort: split

from jojo.checkpoints.checkpoint import load_checkpoint
from jojo.command import Parser, run_command
from jojo.metrics import MetricsTracker
from jojo.plotting import add_legend, choose_losses, draw_rates, marks, panels, plot_run, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = ".metrics.jsonl"
RUN_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")


def read_metrics(path: Path) -> MetricsTracker:
    """The metrics in a file; lines that are not rows are skipped. Raises UserError if the file is missing."""
    if not path.is_file():
        raise UserError(f"There is no metrics file '{path}'.")
    tracker = MetricsTracker()
    with open(path, "rb") as file:
        for line in file:
            try:
                row: dict[str, Any] = {k: math.nan if v is None else v for k, v in parse_json(line).items()}
                tracker.add_batch(row)
                if "val_loss" in row:
                    tracker.add_evaluation(row["step"], row)
                tracker.elapsed_s, tracker.tokens = row["elapsed_s"], row["tokens"]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
    return tracker


def load(path: Path) -> tuple[str, MetricsTracker]:
    """A run's name and its metrics. Raises UserError if the file has no losses."""
    if path.name.endswith(ROWS):
        metrics = read_metrics(path)
    else:
        metrics = MetricsTracker()
        state = load_checkpoint(path).state
        if "metrics" in state:  # a file with only weights has none
            metrics.load_state_dict(state)
    losses = choose_losses(metrics)
    if not losses.train and not losses.val:
        raise UserError(f"'{path}' has no losses to plot; try the run's metrics file ({ROWS}).")
    log.debug("%s: %s.", path, losses.reason)
    return path.name.removesuffix(ROWS).removesuffix(".pt"), metrics


def plot_runs(title: str, runs: Sequence[tuple[str, MetricsTracker]]) -> Figure:
    """Several runs, each in its own colour: training losses as lines, validation losses dashed."""
    figure, axes, below = panels(title)
    x_labels = set()
    for number, (name, metrics) in enumerate(runs):
        losses, color = choose_losses(metrics), RUN_COLORS[number % len(RUN_COLORS)]
        x_labels.add(losses.x_label)
        if losses.val:
            name += f", lowest validation {min(v for _, v in losses.val):.4f}"
            axes.plot(*zip(*losses.val, strict=True), color=color, linestyle="--", **marks(losses.val))
        if losses.train:
            axes.plot(*zip(*losses.train, strict=True), color=color, label=name, **marks(losses.train))
        draw_rates(below, metrics.learning_rate.points, color)
    below.set_xlabel(" / ".join(sorted(x_labels)))
    add_legend(figure, axes, "training (validation dashed)")
    return figure


def main(arguments: Sequence[str]) -> int:
    """Run the tool with these arguments; returns the exit code."""
    parser = Parser("FILE ... ", prog="regenerate_plot.py", description=__doc__)
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="checkpoints (.pt) and metrics files (.metrics.jsonl)")
    add("-o", "--output", metavar="PNG", help="the file to write; needed for several runs [the run's name with .png]")
    add("--title", metavar="TEXT", help="title of the plot [the run's name, or Comparison]")
    add("--debug", action="store_true", help="say which losses were chosen and why, and show tracebacks with errors")
    args = parser.parse_args(arguments)
    paths = [user_path(name) for name in args.files]
    if len(paths) > 1 and args.output is None:
        raise UserError("Name the plot of several runs with -o FILE.png.")
    runs = [load(path) for path in paths]
    if len({name for name, _ in runs}) < len(runs):  # runs of the same name from different folders
        runs = [(str(path), metrics) for path, (_, metrics) in zip(paths, runs, strict=True)]
    output = user_path(args.output) if args.output is not None else paths[0].with_name(f"{runs[0][0]}.png")
    if not output.parent.is_dir():
        raise UserError(f"There is no folder '{output.parent}' for the plot; create it first.")
    output_path(str(output))  # fails if the file cannot be written
    if len(runs) == 1:
        name, metrics = runs[0]
        figure = plot_run(args.title or name, choose_losses(metrics), metrics.learning_rate.points)
    else:
        figure = plot_runs(args.title or "Comparison", runs)
    save_figure(figure, output)
    log.info("Wrote %s", output)
    return 0


if __name__ == "__main__":
    run_command(main)
