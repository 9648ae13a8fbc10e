"""Tests of jojo/plotting.py: the plot is a valid PNG for a run of any length, and an error in it never stops training."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
from helpers_run import listening
from pictures import png_size

from jojo.metrics import MetricsTracker
from jojo.plotting import SMOOTH_TO, PlotManager, save_figure, smooth
from tools.regenerate_plot import plot_runs

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "module://matplotlib_inline.backend_inline"


def tracker(n_batches, evaluations=True, nan_every=0):
    """The metrics of a run of `n_batches`; every `nan_every` losses, one is NaN."""
    metrics = MetricsTracker()
    for step in range(1, n_batches + 1):
        loss = math.nan if nan_every and step % nan_every == 0 else 10 / step + 1
        metrics.add_batch({"step": step, "loss": loss, "lr": 1e-3})
        if evaluations and step % max(1, n_batches // 5) == 0:
            metrics.add_evaluation(step, {"train_loss_eval": loss, "val_loss": loss + 0.5, "bpb": loss})
    return metrics


@pytest.mark.parametrize("n_batches", [1, 2, 10, 1000])
def test_the_plot_is_a_valid_png_for_a_run_of_any_length(tmp_path, n_batches):
    path = tmp_path / "run.png"
    with listening() as said:
        PlotManager(path, "run").draw(tracker(n_batches))
    width, height = png_size(path)
    assert width > 600 and height > 400
    assert said == []
    assert [p.name for p in tmp_path.iterdir()] == ["run.png"]


@pytest.mark.parametrize("nan_every", [1, 3])
def test_nan_losses_leave_a_gap_and_cause_no_error(tmp_path, nan_every):
    with listening() as said:
        PlotManager(tmp_path / "run.png", "run").draw(tracker(120, nan_every=nan_every))
    assert png_size(tmp_path / "run.png") and said == []


def test_a_run_without_evaluations_is_drawn_too(tmp_path):
    PlotManager(tmp_path / "run.png", "run").draw(tracker(5, evaluations=False))
    assert png_size(tmp_path / "run.png")


def test_without_any_batch_nothing_is_drawn(tmp_path):
    PlotManager(tmp_path / "run.png", "run").draw(MetricsTracker())
    assert list(tmp_path.iterdir()) == []


def test_a_title_is_never_parsed_as_a_formula(tmp_path):
    with listening() as said:
        PlotManager(tmp_path / "run.png", "a$b_{ $x^ \\frac").draw(tracker(3))
    assert said == [] and png_size(tmp_path / "run.png")


def test_a_backend_of_the_environment_is_ignored_and_a_missing_cache_is_not_mentioned(tmp_path):
    script = (
        "import sys, pathlib, numpy; from jojo.text.stats import draw_lengths; "
        "draw_lengths({'train': numpy.array([1, 2, 300])}, 'x', pathlib.Path(sys.argv[1]))"
    )
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": NOTEBOOK, "MPLCONFIGDIR": "/dev/null/none"}
    command = [sys.executable, "-c", script, str(tmp_path / "x.png")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert png_size(tmp_path / "x.png")


def test_only_one_place_makes_figures():
    """So that every plot is drawn without a window system, whatever the environment says."""
    files = [
        *ROOT.glob("*.py"),
        *(p for top in ("jojo", "training", "hf", "tools") for p in (ROOT / top).rglob("*.py")),
    ]
    makers = {p.name for p in files if re.search(r"\bFigure\(|pyplot", p.read_text())}
    assert makers == {"plotting.py"}


@pytest.mark.parametrize(
    "name, drawn",
    [
        ("日本", "\\u65e5\\u672c"),
        ("a\u200cb", "a\\u200cb"),
        ("\udce9", "\\udce9"),
        ("🤖", "\\U0001f916"),
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("Größe Ωж $x^ a_b", "Größe Ωж $x^ a_b"),
    ],
)
def test_a_name_that_the_font_lacks_is_written_in_escapes_without_a_warning(tmp_path, name, drawn):
    figure = plot_runs(name, [(name, tracker(3)), ("b", tracker(3))])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        save_figure(figure, tmp_path / "x.png")
    assert warned == [] and png_size(tmp_path / "x.png")
    assert figure.axes[0].get_title() == drawn
    assert figure.legends[0].get_texts()[0].get_text().startswith(drawn + ", lowest")


def test_drawing_again_replaces_the_plot(tmp_path):
    plot = PlotManager(tmp_path / "run.png", "run")
    plot.draw(tracker(3))
    first = (tmp_path / "run.png").read_bytes()
    plot.draw(tracker(90))
    assert (tmp_path / "run.png").read_bytes() != first and png_size(tmp_path / "run.png")


def test_a_milestone_does_not_change_the_current_plot(tmp_path):
    """A figure that is saved twice is arranged twice, and then differs."""
    for name, milestones in (("a", []), ("b", [tmp_path / "b_batch3.png"])):
        PlotManager(tmp_path / f"{name}.png", "run").draw(tracker(3), *milestones)
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 1


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path):
    (tmp_path / "none").touch()
    plot = PlotManager(tmp_path / "none" / "run.png", "run")
    with listening() as said:
        for _ in range(3):
            plot.draw(tracker(2))
    assert len(said) == 1 and "Training continues" in said[0]


def test_a_missing_matplotlib_is_one_warning(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    plot = PlotManager(tmp_path / "run.png", "run")
    with listening() as said:
        for _ in range(3):
            plot.draw(tracker(2))
    assert len(said) == 1 and "matplotlib" in said[0]


def test_an_error_keeps_the_previous_plot_and_leaves_no_temporary_file(tmp_path, monkeypatch):
    plot = PlotManager(tmp_path / "run.png", "run")
    plot.draw(tracker(3))
    before = (tmp_path / "run.png").read_bytes()
    monkeypatch.setattr("utils.os.replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left")))
    with listening() as said:
        plot.draw(tracker(9))
    assert len(said) == 1 and (tmp_path / "run.png").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.png"]


def test_pyplot_is_not_needed(tmp_path, monkeypatch):
    """pyplot would connect to a window system, and fail without one."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with listening() as said:
        PlotManager(tmp_path / "run.png", "run").draw(tracker(3))
    assert said == [] and png_size(tmp_path / "run.png")


@pytest.mark.parametrize("length", [1, 2, 99, 100, 101, 250, 4096])
def test_smoothing_takes_means_of_groups_of_all_points(length):
    points = [(step, float(step)) for step in range(1, length + 1)]
    groups = smooth(points)
    assert len(groups) <= 2 * SMOOTH_TO
    size = max(1, length // SMOOTH_TO)
    assert groups[0][1] == pytest.approx(sum(v for _, v in points[:size]) / size)
    assert all(a[0] < b[0] for a, b in pairwise(groups))
    if length <= SMOOTH_TO:
        assert groups == points
