"""What tools/benchmark.py found: medians and ratios, as a table, as JSON and as a picture; and facts of the machine."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import estimate
from plotting import LR_COLOR, TRAIN_COLOR, VAL_COLOR, save_figure
from utils import __version__, byte_count, replace_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS = "Jojo"
COLORS = {OURS: TRAIN_COLOR, "transformers": VAL_COLOR, "plain": LR_COLOR}  # by the first word of a contestant's name
BANDWIDTH_BYTES = 512 << 20  # read at once to measure the memory: more than a processor's cache holds


# --- results --------------------------------------------------------------------------------------------------------


@dataclass
class Measure:
    """One quantity: what each contestant reached in each round.

    title: what the table's column and the picture call it.
    unit: tokens/s, bytes, s, ms or %.
    values: by contestant, in the order of the table.
    """

    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contestant: str, value: float) -> None:
        """Take in a round."""
        self.values.setdefault(contestant, []).append(value)

    @property
    def peer(self) -> str | None:
        """The contestant that ratios are to: the first that is not Jojo."""
        return next((name for name in self.values if not name.startswith(OURS)), None)

    def median(self, contestant: str) -> float:
        return median(self.values[contestant])

    def ratio(self, contestant: str) -> float | None:
        """The contestant's median in those of the first peer; None where there is no peer."""
        return self.median(contestant) / self.median(self.peer) if self.peer else None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        results = {
            name: {"median": self.median(name), "ratio": self.ratio(name), "rounds": values}
            for name, values in self.values.items()
        }
        return {"title": self.title, "unit": self.unit, "ratio_to": self.peer, "results": results}


@dataclass
class Part:
    """A part of the benchmark: what it measured, and at what."""

    title: str
    settings: dict[str, Any]
    measures: dict[str, Measure]
    notes: list[str] = field(default_factory=list)  # what else is worth knowing

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        measures = {name: measure.to_dict() for name, measure in self.measures.items()}
        return {"title": self.title, "settings": self.settings, "measures": measures, "notes": self.notes}


def shown(value: float, unit: str) -> str:
    """A value with its unit, to about three digits."""
    if unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}" + ("" if unit == "tokens/s" else f" {unit}")


def times(ratio: float | None) -> str:
    """A ratio, to two decimals or two digits; nothing where there is none."""
    return "" if ratio is None else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def table(part: Part) -> str:
    """A part for people: a row for each contestant, and for each quantity its median and ratio."""
    contestants = dict.fromkeys(name for measure in part.measures.values() for name in measure.values)
    rows = [["", *(cell for measure in part.measures.values() for cell in (heading(measure), "ratio"))]]
    for name in contestants:
        cells = []
        for measure in part.measures.values():
            known = name in measure.values
            ratio = measure.ratio(name) if known else None
            cells += [shown(measure.median(name), measure.unit) if known else "", times(ratio)]
        rows.append([name, *cells])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]
    peers = dict.fromkeys(filter(None, (measure.peer for measure in part.measures.values())))
    lines += [f"(medians; ratio: to {', '.join(peers)})"] if peers else ["(medians)"]
    return "\n".join([part.title, *(f"  {line}" for line in lines), *(f"  {note}" for note in part.notes)])


def heading(measure: Measure) -> str:
    """A column's, with the unit where the values do not show it."""
    return f"{measure.title}, tokens/s" if measure.unit == "tokens/s" else measure.title


def write_json(path: Path, arguments: Sequence[str], machine: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """Everything: how it was measured, on what, and every round."""
    values = {
        "jojo": __version__,
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "arguments": list(arguments),
        "machine": dict(machine),
        "parts": {name: part.to_dict() for name, part in parts.items()},
    }
    replace_text(path, json.dumps(values, indent=2) + "\n")


# --- the machine ----------------------------------------------------------------------------------------------------


def machine_names() -> dict[str, Any]:
    """What this machine is, and what runs on it."""
    import torch

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def machine_facts() -> dict[str, Any]:
    """The same, and what it can do at best."""
    return machine_names() | {
        "transformers": transformers_version(),
        "float32_flops": estimate.measure_cpu_peak_flops("float32"),
        "bfloat16_flops": estimate.measure_cpu_peak_flops("bfloat16"),
        "read_bytes_per_s": read_bandwidth(BANDWIDTH_BYTES),
    }


def describe_machine(facts: Mapping[str, Any]) -> str:
    """The facts for people."""
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {threads(facts)}, {facts['system']}; Python {facts['python']}, "
        f"torch {facts['torch']}, transformers {facts['transformers'] or 'not installed'}\n"
        f"matrix products {facts['float32_flops'] / 1e9:,.0f} GFLOP/s in float32 and {facts['bfloat16_flops'] / 1e9:,.0f} "
        f"in bfloat16, memory read at {byte_count(facts['read_bytes_per_s'])}/s"
    )


def threads(facts: Mapping[str, Any]) -> str:
    """How many threads compute, in words."""
    return f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def transformers_version() -> str | None:
    """None: it is not installed."""
    from importlib.util import find_spec

    try:
        return version("transformers") if find_spec("transformers") else None
    except PackageNotFoundError:
        return None


def read_bandwidth(size_bytes: int, times: int = 5) -> float:
    """Bytes per second at which all threads together read memory, at best."""
    import torch

    numbers = torch.zeros(size_bytes // 4)
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return size_bytes / best


# --- the picture ----------------------------------------------------------------------------------------------------


def draw(path: Path, title: str, parts: Mapping[str, Part]) -> None:
    """A panel for each part, in two columns; each panel has a group of bars for each of its quantities."""
    from matplotlib.figure import Figure  # no pyplot: no window system, no state left behind
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels, half = list(parts.values()), -(-len(parts) // 2)
    columns = [column for column in (panels[:half], panels[half:]) if column]
    rows = max(sum(map(panel_rows, column)) for column in columns)
    figure = Figure((6.4 * len(columns), 0.6 + 0.25 * rows), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    figure.suptitle(title, fontsize=12, parse_math=False)
    for place, column in zip(figure.subfigures(1, len(columns), squeeze=False)[0], columns, strict=True):
        draw_column(place, column, rows)
    save_figure(figure, path)


def panel_rows(part: Part) -> float:
    """Lines that a panel takes: for each quantity a heading, a bar a contestant and half a line of air; and its title."""
    return 1.5 + sum(1.5 + len(measure.values) for measure in part.measures.values())


def draw_column(place: Any, parts: Sequence[Part], rows: float) -> None:
    """Panels under one another; a line is as high in every column."""
    heights = [panel_rows(part) for part in parts]
    heights[-1] += rows - sum(heights)
    axes = place.subplots(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
    for panel, part, height in zip(axes, parts, heights, strict=True):
        draw_panel(panel, part, height)


def draw_panel(axes: Axes, part: Part, height: float) -> None:
    """A part: groups of bars, the longest of each group as long as the panel allows, with values instead of a scale."""
    axes.set_title(part.title, fontsize=10, loc="left", fontweight="bold", parse_math=False)
    axes.set(xlim=(-0.75, 1.4), ylim=(height - 1.5, -0.5))
    axes.set_axis_off()
    line = 0.0
    for measure in part.measures.values():
        better = "more" if measure.unit == "tokens/s" else "less"
        compared = f"; × of {measure.peer}" if measure.peer else ""
        text = f"{heading(measure)} ({better} is better{compared})"
        axes.text(-0.75, line, text, fontsize=9, va="center", color="#444444", parse_math=False)
        draw_bars(axes, measure, line + 1)
        line += 1.5 + len(measure.values)


def draw_bars(axes: Axes, measure: Measure, line: float) -> None:
    """A bar for each contestant, from this line down, with its name before and its value behind."""
    longest = max(measure.median(name) for name in measure.values) or 1.0
    for name in measure.values:
        value, ratio = measure.median(name), measure.ratio(name)
        length, color = value / longest, COLORS[name.partition(" ")[0]]
        compared = f"   {times(ratio)}×" if ratio and name != measure.peer else ""
        axes.barh(line, length, height=0.72, color=color)
        axes.text(-0.02, line, name, fontsize=8.5, ha="right", va="center", parse_math=False)
        axes.text(
            length + 0.02, line, shown(value, measure.unit) + compared, fontsize=8.5, va="center", parse_math=False
        )
        line += 1
