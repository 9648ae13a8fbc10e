"""The report in a real browser: headless Chromium. If it is not installed, this file has no tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from helpers_run import settle, train

__test__ = CHROMIUM is not None

# Elements that reach beyond the window, or whose contents reach beyond them; the labels of the plot are beside it.
CUT_OFF = """
[...document.querySelectorAll("body *")].filter(one => {
    const {left, right} = one.getBoundingClientRect()
    const spills = getComputedStyle(one).display != "inline" && one.scrollWidth > one.clientWidth + 1
    return left < 0 || right > document.documentElement.clientWidth || (spills && !one.closest(".plot"))
}).map(one => one.outerHTML.slice(0, 200))
"""


def test_nothing_is_cut_off_at_any_width_nor_on_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(tmp_path, monkeypatch)
    name, prompt = "a-very-long-name-of-a-run" + "x" * 120, "y" * 700
    talks = ("--training.sample_interval", "2", "--training.sample_prompts", f"Once|{prompt}")
    train("--max_iters", "12", "--eval_interval", "3", *talks, "--output_checkpoint", f"models/{name}.pt")
    page = tmp_path / "models" / f"{name}.report.html"
    with Browser() as browser:
        for medium, width in (("screen", 1280), ("screen", 390), ("print", 670)):  # 670 pixels: A4 without margins
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
            )
            browser.call("Emulation.setEmulatedMedia", media=medium)
            browser.open(page.as_uri())
            assert browser.evaluate(CUT_OFF) == []
            assert browser.problems() == [] and browser.hosts() == {""}
