"""The live view's page in a real browser: headless Chromium. If it is not installed, this file has no tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, Browser
from live_view import ROOT, lines, serving, write

from tools import dashboard

__test__ = CHROMIUM is not None


# --- the tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests; each opens a page of its own server."""
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page of a folder with two runs. After the test it checks the console and the hosts of all requests."""
    write(tmp_path / "one.metrics.jsonl", lines(*range(1, 201)) + lines(201, val_loss=0.5, bpb=0.25))
    write(tmp_path / "two.metrics.jsonl", lines(*range(1, 101), lr=0.5))
    with serving(tmp_path) as server:
        page = Page(browser, server, tmp_path)
        page.show()
        yield page
        assert browser.problems() == []
        assert browser.hosts() == {f"127.0.0.1:{server.server_port}"}


class Page:
    """The live view of a folder in the browser."""

    def __init__(self, browser: Browser, server: dashboard.Server, folder: Path) -> None:
        self.browser, self.server, self.folder = browser, server, folder
        self.evaluate, self.wait = browser.evaluate, browser.wait

    def show(self) -> None:
        """Open the page and wait until it is up to date."""
        self.browser.open(f"http://127.0.0.1:{self.server.server_port}/")
        self.wait("document.getElementById('status').dataset.state == 'live'")

    def write(self, name: str, content: bytes, append: bool = False) -> None:
        """Change a file, and have it read."""
        write(self.folder / name, content, append)
        self.look()

    def look(self) -> None:
        """Have the server and the page read the files now, not in a second or two."""
        self.server.folder.refresh()
        self.evaluate("poll()")

    def points(self, chart: str = "loss") -> int:
        """How many points a chart has drawn."""
        return int(self.evaluate(f"document.getElementById('chart-{chart}').dataset.points"))

    def image(self, chart: str = "loss") -> str:
        """A chart's image, as a data URL."""
        return self.evaluate(f"document.querySelector('#chart-{chart} canvas').toDataURL()")

    def pixels(self, variable: str, chart: str = "loss") -> int:
        """How many pixels of a chart have one of the style sheet's colours."""
        return self.evaluate(f"""(() => {{
            const color = getComputedStyle(document.documentElement).getPropertyValue("{variable}").trim();
            const wanted = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
            const canvas = document.querySelector("#chart-{chart} canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {{ willReadFrequently: true }});
            copy.drawImage(canvas, 0, 0);
            const {{ data }} = copy.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) count += wanted.every((v, k) => data[i + k] === v) && data[i + 3] === 255;
            return count;
        }})()""")

    def click(self, selector: str) -> None:
        """Click an element as a person does."""
        box = self.evaluate(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{ block: "center" }});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.browser.mouse(kind, *box, button="left", clickCount=1)

    def place(self, across: float, down: float = 0.5, chart: str = "loss") -> tuple[float, float]:
        """A place in the plotting area of a chart, as parts of its width and height."""
        self.evaluate(f"document.querySelector('#chart-{chart}').scrollIntoView({{ block: 'center' }})")
        script = f"(b => [b.x, b.y, b.width, b.height])(document.querySelector('#chart-{chart} .u-over').getBoundingClientRect())"
        x, y, width, height = self.evaluate(script)
        return x + across * width, y + down * height

    def text(self, selector: str) -> str:
        """What can be read in an element."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def test_curves_appear_and_move_with_the_file(page: Page) -> None:
    assert page.pixels("--c0") > 100 and page.pixels("--c1") > 100 and page.pixels("--c2") == 0
    assert page.points("bpb") == 1 and page.points("mfu") == 0
    assert page.evaluate("document.querySelector('#chart-mfu .none').checkVisibility()")
    points, image = page.points(), page.image()
    write(page.folder / "two.metrics.jsonl", lines(*range(101, 401), lr=0.25), append=True)
    page.server.folder.refresh()
    page.wait("document.querySelector('#runs-body').rows[1].cells[2].innerText == '400'")  # the page asks by itself
    page.wait("view.range[1] == 400")
    assert page.points() > points and page.image() != image
    page.write("three.metrics.jsonl", lines(*range(1, 101)))
    page.wait("document.querySelector('#runs-body').rows.length == 3")
    page.wait("known.get('three').curvesKey")
    page.click("#runs-body tr:first-child input")  # this run's curve covers it
    page.wait("!known.get('one').shown")
    assert page.pixels("--c2") > 50


def test_a_run_that_is_cut_back_or_deleted_is_shown(page: Page) -> None:
    page.write("one.metrics.jsonl", lines(*range(1, 51)))
    page.wait("document.querySelector('#runs-body').rows[0].cells[2].innerText == '50'")
    page.wait("view.range[1] == 100 && charts[0].curves[0].x.length <= 100")
    (page.folder / "two.metrics.jsonl").unlink()
    page.look()
    page.wait("document.querySelector('#runs-body').rows.length == 1 && view.range[1] == 50")
    (page.folder / "one.metrics.jsonl").unlink()
    page.look()
    page.wait("document.getElementById('empty').checkVisibility()")
    assert "No runs in" in page.text("#empty") and not page.evaluate("document.querySelector('main').checkVisibility()")
    page.write("one.metrics.jsonl", lines(1, 2, 3))
    page.wait("document.querySelector('main').checkVisibility() && view.range[1] == 3")


def test_the_scale_switches_between_linear_and_log(page: Page) -> None:
    linear = page.image(), page.image("tokens_per_s")
    assert page.evaluate("charts[0].plot.scales.y.distr") == 1
    page.click("input[value=log]")
    page.wait("charts[0].plot?.scales.y.distr == 3")
    assert page.image() != linear[0] and page.image("tokens_per_s") == linear[1]
    page.browser.press("ArrowLeft")  # the switch has the focus now
    page.wait("charts[0].plot?.scales.y.distr == 1")
    assert page.evaluate("document.activeElement.value") == "linear"
    page.wait("charts[0].plot.scales.y.max > 9")
    assert page.image() == linear[0]


def test_the_x_axis_switches_between_steps_tokens_and_time(page: Page) -> None:
    for axis, end in (("tokens", 20100), ("elapsed_s", 100.5), ("step", 201)):
        page.click(f"input[value={axis}]")
        page.wait(f"view.axis == '{axis}' && view.range[1] == {end}")
        assert page.pixels("--c0") > 100


def test_hovering_shows_each_runs_value(page: Page) -> None:
    page.evaluate("document.getElementById('window').value = '1'")  # not smoothed: the values are those of the file
    page.evaluate("document.getElementById('controls').dispatchEvent(new Event('change'))")
    page.wait("known.get('one').curvesKey.includes('window=1&') && known.get('two').curvesKey.includes('window=1&')")
    page.browser.mouse("mouseMoved", *page.place(0.25))
    page.wait("document.querySelector('#chart-loss .tip').checkVisibility()")
    tip = page.text("#chart-loss .tip").split()
    step = int(tip[1])
    assert 40 < step < 60 and {"one", "two", "training", "validation"} <= {*tip}
    value = float(tip[tip.index("one") + 1])
    assert min(abs(value - 10 / near) for near in (step - 1, step, step + 1)) < 1e-3
    everywhere = "charts.every((chart) => !chart.plot || chart.plot.cursor.left > 0)"
    assert page.evaluate(everywhere)  # every chart has the crosshair
    page.browser.mouse("mouseMoved", *page.place(0.75))
    page.wait("!document.querySelector('#chart-loss .tip').innerText.includes('two')")  # run two ends before this step
    page.browser.mouse("mouseMoved", 2, 2)
    page.wait("!document.querySelector('#chart-loss .tip').checkVisibility()")


def test_values_can_be_read_with_the_keyboard_too(page: Page) -> None:
    page.evaluate("document.querySelector('#chart-loss .plot').focus()")
    page.browser.press("ArrowRight")
    page.wait("document.querySelector('#chart-loss .tip').checkVisibility()")
    before = page.text("#chart-loss .tip")
    for _ in range(3):
        page.browser.press("ArrowLeft")
    page.wait(f"document.querySelector('#chart-loss .tip').innerText != {json.dumps(before)}")
    page.browser.press("Tab")
    page.wait("!document.querySelector('#chart-loss .tip').checkVisibility()")


def test_zooming_in_asks_for_finer_curves(page: Page) -> None:
    page.write("one.metrics.jsonl", lines(*range(1, 20_001)))
    page.wait("view.range[1] == 20000")
    coarse = page.evaluate("charts[0].curves.find((c) => c.run.name == 'one' && c.style == 'faint').x.length")
    assert 0 < coarse <= 2000
    (left, y), (right, _) = page.place(0.5), page.place(0.52)
    page.browser.mouse("mouseMoved", left, y)
    page.browser.mouse("mousePressed", left, y, button="left", clickCount=1)
    for x in (left + 5, (left + right) / 2, right):
        page.browser.mouse("mouseMoved", x, y, button="left", buttons=1)
    page.browser.mouse("mouseReleased", right, y, button="left", clickCount=1)
    page.wait("view.zoom && known.get('one').curvesKey.includes('from=')")
    xs = page.evaluate("charts[0].curves.find((c) => c.run.name == 'one' && c.style == 'faint').x")
    assert 9_500 < xs[0] < xs[-1] < 11_000 and xs == [*range(int(xs[0]), int(xs[0]) + len(xs))]  # every single step
    page.click("#reset")
    page.wait("!view.zoom && view.range[1] == 20000")


def test_runs_can_be_hidden_and_shown(page: Page) -> None:
    both = page.points("lr")
    page.click("#runs-body tr:first-child input")
    page.wait(f"document.getElementById('chart-lr').dataset.points < {both}")
    assert page.pixels("--c0") == 0 and page.pixels("--c1") > 100
    assert page.text("#runs-count") == "1 of 2 shown"
    page.click("#all")
    page.wait(f"document.getElementById('chart-lr').dataset.points == {both}")
    page.evaluate("document.querySelector('#runs-body tr:last-child input').focus()")
    page.browser.press(" ")
    page.wait("!known.get('two').shown && known.get('one').shown")


def config(name: str, seed: int, **options: object) -> bytes:
    """A run's config file."""
    data = {"dataset_name": name, "tokenizer": "gpt2"}
    return json.dumps({"data": data, "system": {"seed": seed}, "training": {"max_iters": 200}, **options}).encode()


def test_seeds_of_a_config_are_grouped_and_only_runs_of_the_same_data_are_compared(page: Page) -> None:
    for name, seed, data, loss in (("two", 1, "a", 3.0), ("three", 2, "a", 2.0), ("four", 1, "b", 1.0)):
        page.write(f"{name}.config.json", config(data, seed))
        page.write(f"{name}.metrics.jsonl", lines(*range(1, 100)) + lines(100, val_loss=loss, bpb=loss))
    page.write("five.metrics.jsonl", lines(1, val_loss=0.1, bpb=0.1))  # without a config, so nobody knows its data
    names = "[...document.querySelectorAll('#runs-body tr')].map((row) => row.querySelector('.name')?.innerText ?? 'mean').join()"
    page.wait(f"{names} == 'one,two,three,mean,four,five'")
    assert page.evaluate(
        "known.get('two').color == known.get('three').color && known.get('two').dash != known.get('three').dash"
    )
    assert "2.5000 ± 0.7071" in page.text("#runs-body tr.mean")
    assert (
        page.evaluate("[...document.querySelectorAll('#runs-body .best')].map((cell) => cell.innerText).join()")
        == "2.0000,2.0000"
    )
    assert page.evaluate("known.get('two').row.cells[1].innerText") == "stopped, 50 %"
    assert page.evaluate("known.get('two').row.cells[9].innerText") == "a"


def test_the_table_sorts(page: Page) -> None:
    names = "[...document.querySelectorAll('#runs-body .name')].map((e) => e.innerText).join()"
    assert page.evaluate(names) == "one,two"
    page.click("#runs-head th:nth-child(3) button")
    page.wait(f"{names} == 'two,one'")
    page.click("#runs-head th:nth-child(3) button")
    page.wait(f"{names} == 'one,two'")
    assert page.evaluate("document.querySelector('#runs-head th:nth-child(3)').ariaSort") == "descending"


def test_texts_from_files_are_shown_as_texts(page: Page) -> None:
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    texts = [{"prompt": f"{markup} once", "text": f"{markup} upon"}]
    page.write(f"{markup.replace('/', '')}.metrics.jsonl", lines(1, 2, samples=texts))
    for name, value in ((markup.replace("/", ""), markup), ("one", "plain")):
        page.write(f"{name}.config.json", json.dumps({"model": {markup: value}}).encode())
    page.wait("document.querySelector('#config-table thead') != null")
    page.wait("document.querySelector('#samples-body p') != null")
    assert page.text("#samples-body p") == f"{markup} once{markup} upon"
    assert f"model.{markup}" in page.text("#config-table") and markup in page.text("#config-table td:last-child")
    assert "<img" in page.text("#runs-body")
    assert page.evaluate("document.querySelectorAll('main img, main b').length") == 0


def test_earlier_samples_can_be_read(page: Page) -> None:
    for step in (1, 2, 3):
        page.write("three.metrics.jsonl", lines(step, samples=[{"prompt": "A", "text": f" text {step}"}]), append=True)
    page.wait("document.querySelector('#samples-body').innerText.trim() == 'A text 3'")
    page.evaluate("document.getElementById('samples-range').focus()")
    page.browser.press("ArrowLeft")
    page.wait("document.querySelector('#samples-body').innerText.trim() == 'A text 2'")
    page.write("three.metrics.jsonl", lines(4, samples=[{"prompt": "A", "text": " text 4"}]), append=True)
    page.wait("document.getElementById('samples-range').max == 3")
    assert page.text("#samples-body").strip() == "A text 2"  # the sample in view stays


def test_fifty_runs_are_drawn(page: Page) -> None:
    for number in range(48):
        write(page.folder / f"sweep-{number:02}.metrics.jsonl", lines(*range(1, 120)))
    page.look()
    page.wait("document.querySelector('#runs-body').rows.length == 50 && runs.every((run) => run.curvesKey)")
    page.wait("charts[0].curves.length > 50")
    page.browser.mouse("mouseMoved", *page.place(0.25))
    page.wait("document.querySelector('#chart-loss .tip .more')?.innerText == 'and 38 more'")


def test_a_run_of_one_batch_is_drawn(page: Page) -> None:
    (page.folder / "two.metrics.jsonl").unlink()
    page.write("one.metrics.jsonl", lines(1))
    page.wait("view.range[1] == 2")
    assert page.pixels("--c0") > 10


def test_dark_colors_if_the_system_is_dark(page: Page) -> None:
    light = page.image()
    page.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.wait("view.theme == 'dark'")
    assert page.image() != light and page.pixels("--c0") > 100
    page.browser.call("Emulation.setEmulatedMedia", features=[])


@contextlib.contextmanager
def started(folder: Path, port: int) -> Iterator[str]:
    """Start the command as a process; yields the page's address."""
    command = [sys.executable, str(ROOT / "tools" / "dashboard.py"), str(folder), "--port", str(port)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process.stdout.readline().split()[0]
        process.terminate()


def test_a_lost_server_is_reported_and_found_again(browser: Browser, tmp_path: Path) -> None:
    write(tmp_path / "one.metrics.jsonl", lines(*range(1, 51)))
    with started(tmp_path, port=0) as url:
        browser.open(url)
        browser.wait("document.getElementById('status').dataset.state == 'live' && view.range[1] == 50")
    browser.wait("document.getElementById('status').dataset.state == 'lost'")
    assert browser.evaluate("charts[0].card.dataset.points") == "50"  # the curves stay
    write(tmp_path / "one.metrics.jsonl", lines(*range(1, 81)))
    with started(tmp_path, port=urlsplit(url).port or 0):
        browser.wait("document.getElementById('status').dataset.state == 'live' && view.range[1] == 80")
        browser.open("about:blank")
