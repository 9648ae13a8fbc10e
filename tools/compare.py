"""Compare configs: train each with the same seeds, and say whether the difference is more than chance.

    python tools/compare.py configs/a.json configs/b.json --seeds 5
    python tools/compare.py configs/a.json "configs/a.json --optimizer.kind muon" --until 0.05 --max_seeds 20
    python tools/compare.py configs/a.json configs/b.json --time

A RUN is a config file, flags of train.py, or both in quotes. The first one is compared with each of the others. Runs with the same
seed read the same data in the same order. All files are in a folder (--output). If the command is interrupted, give it again: it
continues where it stopped, with the same results. It writes compare.json and compare.png there.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jojo.command import Parser, run_command
from tools.parts.compared_runs import METRICS, Arm, Result, finished
from utils import UserError, byte_count, duration, log, one_line, plural, replace_text, user_path

if TYPE_CHECKING:
    from tools.parts.statistics import Difference, Looks

NAMES = "ABCDEFGHIJ"


def outcomes(results: dict[str, list[Result]], metric: str, equal_time: bool) -> dict[str, list[float]]:
    """The value of each run that counts, by arm: the last one, or the one at the time when the fastest run has ended."""
    limit = min(result.seconds[-1] for runs in results.values() for result in runs) if equal_time else math.inf
    return {name: [result.at(limit, metric) for result in runs] for name, runs in results.items()}


def compare(values: dict[str, list[float]], looks: Looks) -> dict[str, tuple[Difference, float]]:
    """For each arm but the first: its difference from the first, and the adjusted p-value.

    The p-value is adjusted for the planned looks (statistics.py), and multiplied by the number of comparisons (Bonferroni).
    """
    from tools.parts.statistics import paired

    (_, first), *others = values.items()
    found = {}
    for name, own in others:
        difference = paired([b - a for a, b in zip(first, own, strict=True)])
        found[name] = difference, min(1.0, looks.adjusted(difference.p) * len(others))
    return found


def planned_looks(args: argparse.Namespace) -> list[int]:
    """After how many seeds to look at the result: once, or with --until after 5, 10, 20 ... up to --max_seeds."""
    seeds = [args.seeds]
    while args.until and 2 * seeds[-1] <= args.max_seeds:
        seeds.append(2 * seeds[-1])
    return seeds


def run_all(arms: Sequence[Arm], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train and compare until the answer is clear. Returns the content of compare.json."""
    from tools.parts.statistics import Looks

    results: dict[str, list[Result]] = {arm.name: [] for arm in arms}
    looks = Looks(planned_looks(args))
    for n in looks.seeds:
        for seed in range(len(results["A"]) + 1, n + 1):
            for arm in arms[:: 1 if seed % 2 else -1]:  # in turns, so that a change of the machine's speed hits all
                result = finished(arm, seed, folder, args.keep_models)
                log.info("seed %d  %s  %s %.4f", seed, arm.name, args.metric, result.values[args.metric][-1])
                results[arm.name].append(result)
        check_equal(results, folder)
        values = outcomes(results, args.metric, args.time)
        found = compare(values, looks)
        if args.until and all(p < args.until for _, p in found.values()):
            break
    return report_of(arms, args, looks.seeds, results, values, found)


def check_equal(results: dict[str, list[Result]], folder: Path) -> None:
    """Raises UserError if a run had other data than those with other seeds, or if code or machine changed meanwhile."""
    made_with = results["A"][0].made_with
    for name, runs in results.items():
        for seed, result in enumerate(runs, 1):
            if result.data != runs[0].data or result.made_with != made_with:
                what = "data" if result.data != runs[0].data else "code, or another machine,"
                raise UserError(
                    f"Run {name} with seed {seed} had other {what} than the first; delete '{folder}' and start again."
                )


def report_of(
    arms: Sequence[Arm],
    args: argparse.Namespace,
    looks: Sequence[int],
    results: dict[str, list[Result]],
    values: dict[str, list[float]],
    found: dict[str, tuple[Difference, float]],
) -> dict[str, Any]:
    """What compare.json holds. Everything but `times` is the same whenever the comparison is repeated on this machine."""
    runs, differences, times = {}, {}, {}
    for arm in arms:
        own, first = values[arm.name], results[arm.name][0]
        curves = [result.values[args.metric] for result in results[arm.name]]
        facts = {"flags": list(arm.flags), "config_digest": arm.digest, "data": first.data, "tokens": first.tokens}
        runs[arm.name] = facts | {"values": own, "mean": mean(own), "standard_deviation": stdev(own)}
        runs[arm.name] |= {"batches": first.batches, "curves": curves}
        peak = max(result.peak_memory_bytes for result in results[arm.name])
        times[arm.name] = {"seconds": [result.seconds for result in results[arm.name]], "peak_memory_bytes": peak}
    for name, (difference, p) in found.items():
        interval = [difference.low, difference.high]
        tested = {"p": difference.p, "adjusted_p": p, "identical": difference.identical}
        differences[f"{name} - A"] = {"mean": difference.mean, "interval_95": interval, **tested}
    return {
        "metric": args.metric, "at": "equal time" if args.time else "the last batch",
        "seeds": len(values["A"]), "looks_after_seeds": list(looks), "made_with": results["A"][0].made_with,
        "runs": runs, "differences": differences, "times": times,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The result as text: a line per run, and a sentence per comparison."""
    where = {"at": report["at"], "n": plural(report["seeds"], "seed")}
    lines = [f"{report['metric']} at {where['at']}, mean and standard deviation of {where['n']}:", ""]
    for name, run in report["runs"].items():
        times = report["times"][name]
        seconds = mean(times[-1] for times in times["seconds"])
        facts = f"{duration(seconds)}, {run['tokens']:,} tokens, {byte_count(times['peak_memory_bytes'])}"
        lines.append(
            f"  {name}  {run['mean']:.4f} ± {run['standard_deviation']:.4f}   {facts}   {shlex.join(run['flags'])}"
        )
    lines.append("")
    base = report["runs"]["A"]["mean"]
    for name, difference in report["differences"].items():
        lines.append(f"  {name}: {in_words(difference, base)}")
    return "\n".join(lines)


def in_words(difference: dict[str, Any], base: float) -> str:
    """A comparison as a sentence."""
    if difference["identical"]:
        return "identical in every run."
    low, high = difference["interval_95"]
    share, p = difference["mean"] / base, difference["adjusted_p"]
    clear = ("better" if share < 0 else "worse") if p < 0.05 else "this may be chance"
    return f"{difference['mean']:+.4f} ({share:+.2%}), 95 % interval {low:+.4f} to {high:+.4f}, p = {p:.2g}; {clear}."


def draw(report: dict[str, Any], path: Path) -> None:
    """The mean curve of each run, in a band of one standard deviation."""
    import numpy as np

    from jojo.plotting import add_legend, new_figure, save_figure

    figure = new_figure(9, 5)
    axes = figure.subplots()
    at_time = report["at"] == "equal time"
    for name, run in report["runs"].items():
        curves = np.array(run["curves"])  # (seeds, evaluations)
        x = np.array(report["times"][name]["seconds"]).mean(0) if at_time else np.array(run["batches"])
        center, spread = curves.mean(0), curves.std(0, ddof=1)
        (line,) = axes.plot(
            x, center, label=f"{name}: {one_line(shlex.join(run['flags']), 60)}", marker="o", markersize=3
        )
        axes.fill_between(x, center - spread, center + spread, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("seconds of training" if at_time else "batch")
    axes.set_ylabel({"bpb": "bits per byte (validation)"}.get(report["metric"], f"{report['metric']} (nats per token)"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, axes)
    save_figure(figure, path)


def build_parser() -> Parser:
    """Flags of compare.py."""
    parser = Parser("RUN RUN ", prog="compare.py", description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a config file, with flags of train.py in the same quotes")
    add(
        "--seeds",
        type=int,
        default=5,
        metavar="N",
        help="seeds of each run; with --until, before the first look [%(default)s]",
    )
    add("--until", type=float, metavar="P", help="stop when all adjusted p-values are below P, else double the seeds")
    add("--max_seeds", type=int, default=20, metavar="N", help="with --until: at most N seeds [%(default)s]")
    add("--metric", default="bpb", choices=METRICS, help="what is compared [%(default)s, bits per byte]")
    add("--time", action="store_true", help="compare at equal training time, not after the last batch")
    add("--keep_models", action="store_true", help="keep the checkpoints of finished runs")
    add("--output", default="compare", metavar="FOLDER", help="folder of all files [%(default)s/]")
    add("--debug", action="store_true", help="show tracebacks with errors")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the comparison, write its files and print it."""
    args = build_parser().parse_args(arguments)
    for wrong, message in (
        (not 2 <= len(args.runs) <= len(NAMES), f"Name two to {len(NAMES)} runs to compare."),
        (not 2 <= args.seeds <= 1000, "--seeds must be from 2 to 1,000."),
        (args.until is not None and not 0 < args.until < 1, "--until is a p-value, between 0 and 1: --until 0.05"),
        (args.until is not None and args.max_seeds < args.seeds, "--max_seeds must not be below --seeds."),
    ):
        if wrong:
            raise UserError(message)
    arms = [Arm.parse(name, text) for name, text in zip(NAMES, args.runs, strict=False)]
    folder = user_path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    report = run_all(arms, args, folder)
    replace_text(folder / "compare.json", json.dumps(report, indent=1) + "\n")
    draw(report, folder / "compare.png")
    log.info("%s\n\nAll values: %s, curves: %s", table(report), folder / "compare.json", folder / "compare.png")
    return 0


if __name__ == "__main__":
    run_command(main)
