"""The measurements of tools/test_mfu_optimization.py as a table, JSON, a plot, and a config file to train with."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from config import SECTIONS, Config, Value, Values, resolve
from jojo.config_file import file_layers
from jojo.plotting import LR_COLOR, TRAIN_COLOR, new_figure, save_figure
from tools.parts.runs import predicted_note
from tools.parts.sweep_search import MIN_GAIN, Row, Settings, Sweep
from utils import __version__, byte_count, one_line, short_count

OTHER_COLOR, FAILED_COLOR = "#9ab8c8", "#a04000"
HEADINGS = (
    "batch size", "accumulation", "dtype", "compile", "threads", "ms", "tokens/s", "MFU", "peak memory", "ratio",
)  # fmt: skip
AXIS = "tokens/s (more is better); labels: micro-batch size x accumulation, dtype, threads"
TEXT_COLUMNS = ("dtype", "compile")


@dataclass(frozen=True)
class SweepResult:
    """Everything that is reported.

    sweep: the measurements.
    config: the config that was measured, resolved. Its batch size, dtype, compile and threads are "the config's own
        settings"; the sweep tries others.
    tool_flags: the flags of the command that measured it.
    machine: facts about the machine, by name.
    flops_per_token: FLOPs as MFU counts them.
    peaks: the device's peak FLOP/s by dtype; None: unknown.
    """

    sweep: Sweep
    config: Config
    tool_flags: Sequence[str]
    machine: Mapping[str, Any]
    flops_per_token: float
    peaks: Mapping[str, float | None]

    def mfu(self, row: Row) -> float | None:
        """The MFU of settings that work; None if the peak is unknown."""
        peak = self.peaks.get(row.settings.dtype)
        return row.tokens_per_s * self.flops_per_token / peak if peak else None

    def ratio(self, row: Row) -> float | None:
        """Speed relative to the config's own settings; None if either does not work."""
        own = self.sweep.rows[self.sweep.own]
        return row.ratio(own) if row.works and own.works else None

    @property
    def best(self) -> Row:
        row = self.sweep.best
        assert row  # if no settings work, nothing is reported
        return row


# --- the table ------------------------------------------------------------------------------------------------------


def table(result: SweepResult) -> str:
    """One line per combination of settings, fastest first."""
    ranked = result.sweep.ranked
    lines = [list(HEADINGS), *(cells(result, row) for row in ranked)]
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(HEADINGS))]
    texts = []
    for cells_of_line, row in zip(lines, [None, *ranked], strict=True):
        aligned = [
            cell.ljust(width) if heading in TEXT_COLUMNS else cell.rjust(width)
            for cell, width, heading in zip(cells_of_line, widths, HEADINGS, strict=False)
        ]
        failed = [row.failed] if row and row.failed else []
        notes = [f" <- {', '.join(remarks(result, row))}"] if row and remarks(result, row) else []
        texts.append("  ".join([*aligned, *failed, *notes]).rstrip())
    note = "medians over rounds, and each round times all settings once; ratio: speed relative to the config's own settings"
    note += predicted_note(result.best.predicted)
    return "\n".join([*texts, f"({note})"])


def remarks(result: SweepResult, row: Row) -> list[str]:
    """Words that mark the best settings and the config's own."""
    return ["best"] * (row is result.best) + ["the config's own"] * (row.settings == result.sweep.own)


def cells(result: SweepResult, row: Row) -> list[str]:
    """The cells of a row, without measurements if the settings do not work."""
    settings = row.settings
    first = [str(settings.batch_size), str(settings.accumulation), settings.dtype, "yes" if settings.compiled else "no"]
    first.append(str(settings.threads))
    if not row.works:
        return first
    mfu, ratio, memory = result.mfu(row), result.ratio(row), row.peak_memory_bytes
    return [
        *first, f"{row.ms:,.1f}", f"{row.tokens_per_s:,.0f}", "-" if mfu is None else f"{mfu:.1%}",
        "-" if memory is None else byte_count(memory), "-" if ratio is None else f"{ratio:.2f}",
    ]  # fmt: skip


def speed(result: SweepResult, row: Row) -> str:
    """Tokens per second, also relative to the config's own settings."""
    ratio = result.ratio(row)
    compared = "" if ratio is None or row.settings == result.sweep.own else f", {ratio:.2f} times the config's own"
    return f"{short_count(row.tokens_per_s)} tokens/s{compared}"


# --- JSON -----------------------------------------------------------------------------------------------------------


def as_json(result: SweepResult) -> str:
    """All results and every round as JSON."""
    values = {
        "jojo": __version__,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "arguments": list(result.tool_flags),
        "machine": dict(result.machine),
        "peak_flops": dict(result.peaks),
        "tokens_per_batch": result.config.tokens_per_batch,
        "own": asdict(result.sweep.own),
        "best": asdict(result.best.settings),
        "rows": [row_values(result, row) for row in result.sweep.ranked],
    }
    return json.dumps(values, indent=2) + "\n"


def row_values(result: SweepResult, row: Row) -> dict[str, Any]:
    """A row as plain values; None: not measured."""
    works = row.works
    return asdict(row.settings) | {
        "ms": row.ms if works else None,
        "tokens_per_s": row.tokens_per_s if works else None,
        "mfu": result.mfu(row) if works else None,
        "peak_memory_bytes": row.peak_memory_bytes,
        "ratio": result.ratio(row),
        "failed": row.failed,
        "rounds": [{"ms": row.ms_of[n], "tokens_per_s": row.tokens_per_s_of[n], "round": n} for n in sorted(row.ms_of)],
    }


# --- the plot -------------------------------------------------------------------------------------------------------


def draw(path: Path, result: SweepResult, title: str) -> None:
    """Draw a bar of tokens/s for each combination of settings, the fastest on top."""
    rows, own = result.sweep.ranked, result.sweep.own
    longest = max(row.tokens_per_s for row in rows if row.works)
    figure = new_figure(9.0, 1.3 + 0.32 * len(rows))
    axes = figure.add_subplot()
    for line, row in enumerate(rows):
        if row.works:
            color = TRAIN_COLOR if row is result.best else LR_COLOR if row.settings == own else OTHER_COLOR
            axes.barh(line, row.tokens_per_s, height=0.72, color=color)
        ratio, end = result.ratio(row), row.tokens_per_s if row.works else 0.0
        text = f"{end:,.0f}" if row.works else one_line(row.failed or "", 70)
        text += f"   {ratio:.2f}×" if ratio is not None and row.settings != own else ""
        text = "   ".join([text, *remarks(result, row)])
        axes.text(
            end + 0.01 * longest, line, text, fontsize=9, va="center",
            color="black" if row.works else FAILED_COLOR,
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), [str(row.settings) for row in rows], fontsize=9)
    axes.set(xlim=(0, 1.45 * longest), ylim=(len(rows) - 0.4, -0.6), xlabel=AXIS)
    axes.set_title(title, fontsize=10, loc="left")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    save_figure(figure, path)


# --- the config -----------------------------------------------------------------------------------------------------


def changed_options(config: Config, own: Settings, best: Settings) -> dict[str, Value]:
    """The options, by dotted name, that turn a config's settings into the best ones. Not the threads: the config has no
    option for their number.

    Evaluations are counted in micro-batches. Their number changes too, so that they read as much text as before.
    """
    training, changes = config.training, dict[str, Value]()
    if best.batch_size != own.batch_size:
        evaluated = {"eval_iters": training.eval_iters, "val_batches": training.val_batches}
        changes = {"batch_size": best.batch_size, "gradient_accumulation_steps": best.accumulation} | {
            name: -(-micro * own.batch_size // best.batch_size) for name, micro in evaluated.items() if micro
        }
        changes = {f"training.{name}": value for name, value in changes.items()}
    if best.dtype != own.dtype:
        changes["system.dtype"] = best.dtype
    if best.compiled != own.compiled:
        changes["training.compile_model"] = best.compiled
    return {name: value for name, value in changes.items() if value != config.get(name)}


def best_config(
    result: SweepResult, path: Path, config_file: Path | None, flags: Mapping[str, Value], of_checkpoint: bool = False
) -> str:
    """The text of a config file with the best settings: it extends the file that the sweep started from, and has only what
    differs.

    Args:
        result: the measurements.
        path: where the text will be written.
        config_file: the file that the sweep started from; None: the defaults.
        flags: options from the command line, by dotted name.
        of_checkpoint: the run starts from a checkpoint or model. Its options may differ from the config file's, so all flags
            are written, not only those that change the file.
    """
    base = resolve(file_layers(config_file), partial=True)[0] if config_file else Config()
    changes = changed_options(result.config, result.sweep.own, result.best.settings)
    differs = {name: value for name, value in flags.items() if of_checkpoint or value != base.get(name)} | changes
    sections: Values = {}
    for section in SECTIONS:
        own = {name.partition(".")[2]: value for name, value in differs.items() if name.startswith(f"{section}.")}
        sections |= {section: own} if own else {}
    extends = {"extends": relative(config_file, path.parent)} if config_file else {}
    command = one_line(shlex.join(["python", "tools/test_mfu_optimization.py", *result.tool_flags]), 2000)
    comment = f"// {speed(result, result.best)}; found by: {command}"
    return f"{comment}\n{json.dumps(extends | sections, indent=2)}\n"


def relative(file: Path, folder: Path) -> str:
    """A file's path relative to a folder; the full path if they are on different drives (Windows)."""
    try:
        return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
    except ValueError:
        return file.resolve().as_posix()


def how_to_train(result: SweepResult, path: Path, checkpoint: str | None, init_from: str | None) -> str:
    """The command that trains with the best settings; OMP_NUM_THREADS sets the threads."""
    command = ["python", "train.py", "--config", str(path)]
    command += ["--checkpoint", checkpoint, "--allow_changes"] if checkpoint else []
    command += ["--init_from", init_from] if init_from else []
    threads = result.best.settings.threads
    variable = f"OMP_NUM_THREADS={threads} " if threads != result.sweep.own.threads else ""
    return variable + shlex.join(command)


def summary(result: SweepResult, path: Path, checkpoint: str | None = None, init_from: str | None = None) -> str:
    """The best settings, and how to train with them."""
    best, own = result.best, result.sweep.rows[result.sweep.own]
    if best is own:
        lead = f"The config's own settings are the fastest, to within {MIN_GAIN:.0%}"
    elif own.failed:
        lead = f"The config's own settings cannot be measured here ({own.settings}: {own.failed}). The fastest settings that work"
    else:
        lead = "Fastest"
    how = how_to_train(result, path, checkpoint, init_from)
    return f"{lead}: {best.settings}: {speed(result, best)}. Train with it:\n  {how}"
