"""The results of tools/benchmark.py: medians and ratios as a table, JSON and a plot, and facts about the machine."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from jojo.machine import estimate
from jojo.plotting import LR_COLOR, TRAIN_COLOR, VAL_COLOR, new_figure, save_figure
from utils import replace_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS = "Jojo"
COLORS = {OURS: TRAIN_COLOR, "transformers": VAL_COLOR, "plain": LR_COLOR}  # by the first word of a contestant's name


# --- results --------------------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """One measured quantity, with a value for each contestant and round.

    title: its name in the table and the plot.
    unit: tokens/s, bytes, s, ms or %.
    values: contestant -> the values of all rounds. The last word of a contestant's name is its dtype, if it has one.
    """

    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contestant: str, value: float) -> None:
        """Add a round."""
        self.values.setdefault(contestant, []).append(value)

    def median(self, contestant: str) -> float:
        return median(self.values[contestant])

    def peer(self, contestant: str) -> str | None:
        """The contestant to compare with: the first other library in the same dtype, else the last one; None if only Jojo runs."""
        peers = [name for name in self.values if not name.startswith(OURS)]
        same = [name for name in peers if name.split()[-1] == contestant.split()[-1]]
        return next(iter(same[:1] or peers[-1:]), None)

    def ratio(self, contestant: str) -> float | None:
        """The contestant's median divided by its peer's."""
        peer = self.peer(contestant)
        return self.median(contestant) / self.median(peer) if peer else None

    @property
    def compared(self) -> str:
        """What the ratios compare with, in words; empty if only Jojo runs."""
        peers = list(dict.fromkeys(peer for name in self.values if (peer := self.peer(name))))
        return f"{peers[0].split()[0]} in the same dtype" if len(peers) > 1 else "".join(peers)

    @property
    def heading(self) -> str:
        """The title, with the unit if the values do not show it."""
        return f"{self.title}, tokens/s" if self.unit == "tokens/s" else self.title

    def text(self, contestant: str) -> str:
        """The median to about three digits, and its ratio to that of the peer."""
        ratio = self.ratio(contestant) if self.peer(contestant) != contestant else None
        return shown(self.median(contestant), self.unit) + (f"  {ratio:.3g}×" if ratio else "")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        results = {
            name: {
                "median": self.median(name),
                "ratio": self.ratio(name),
                "ratio_to": self.peer(name),
                "rounds": values,
            }
            for name, values in self.values.items()
        }
        return {"title": self.title, "unit": self.unit, "results": results}


@dataclass
class Part:
    """A part of the benchmark. All its measures have the same contestants."""

    title: str
    measures: dict[str, Measure]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0  # time that the measurement took

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return vars(self) | {"measures": {name: measure.to_dict() for name, measure in self.measures.items()}}


def shown(value: float, unit: str) -> str:
    """A value with its unit, to about three digits."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}" + ("" if unit == "tokens/s" else f" {unit}")


def table(part: Part) -> str:
    """A part as text: a row for each contestant, a column for each quantity."""
    measures = list(part.measures.values())
    rows = [["", *(measure.heading for measure in measures)]]
    rows += [[name, *(measure.text(name) for measure in measures)] for name in measures[0].values]
    widths = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("(medians" + (f"; × of {measures[0].compared})" if measures[0].compared else ")"))
    return "\n".join([part.title, *(f"  {line}" for line in [*lines, *part.notes])])


def write_json(path: Path, how: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """Write every round of every part, and how and where they were measured."""
    found = {name: part.to_dict() for name, part in parts.items()}
    values = {**how, "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "parts": found}
    replace_text(path, json.dumps(values, indent=2) + "\n")


# --- the machine ----------------------------------------------------------------------------------------------------


def machine_names() -> dict[str, Any]:
    """The machine and the versions of its software."""
    import torch

    return {
        "cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "torch": str(torch.__version__),
    }  # fmt: skip


def machine_facts() -> dict[str, Any]:
    """machine_names(), the version of transformers (None: not installed) and the measured peak of the processor."""
    return machine_names() | {
        "transformers": version("transformers") if find_spec("transformers") else None,
        "float32_gflops": round(estimate.measure_cpu_peak_flops("float32") / 1e9, 1),
        "bfloat16_gflops": round(estimate.measure_cpu_peak_flops("bfloat16") / 1e9, 1),
    }


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# --- the plot -------------------------------------------------------------------------------------------------------


def draw(path: Path, title: str, parts: Mapping[str, Part]) -> None:
    """Draw the parts as bars in two columns. Each bar has its value beside it, because there is no axis."""
    panels, half = list(parts.values()), -(-len(parts) // 2)
    columns = [column for column in (panels[:half], panels[half:]) if column]
    lines = max(sum(map(lines_of, column)) for column in columns)
    figure = new_figure(6.8 * len(columns), 0.6 + 0.25 * lines)
    figure.suptitle(title, fontsize=12)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        axes.set(xlim=(-0.75, 1.4), ylim=(lines, 0))
        axes.set_axis_off()
        line = 0.0
        for part in column:
            draw_part(axes, part, line)
            line += lines_of(part)
    save_figure(figure, path)


def lines_of(part: Part) -> float:
    """Height of a part in lines of text: 2.5 for the title and space; per quantity 1.5 for the heading, 1 per bar."""
    return 2.5 + sum(1.5 + len(measure.values) for measure in part.measures.values())


def draw_part(axes: Axes, part: Part, line: float) -> None:
    """Draw a part from this line downwards. The longest bar of each quantity takes the whole width."""
    axes.text(-0.75, line + 0.5, part.title, fontsize=10, va="center", fontweight="bold")
    line += 1.75
    for measure in part.measures.values():
        better = "more" if measure.unit == "tokens/s" else "less"
        compared = f"; × of {measure.compared}" if measure.compared else ""
        heading = f"{measure.heading} ({better} is better{compared})"
        axes.text(-0.75, line, heading, fontsize=9, va="center", color="#444444")
        longest = max(map(measure.median, measure.values)) or 1.0
        for below, name in enumerate(measure.values, start=1):
            length, text = measure.median(name) / longest, measure.text(name)
            axes.barh(line + below, length, height=0.72, color=COLORS[name.split()[0]])
            axes.text(-0.02, line + below, name, fontsize=8.5, ha="right", va="center")
            axes.text(length + 0.02, line + below, text, fontsize=8.5, va="center")
        line += 1.5 + len(measure.values)
