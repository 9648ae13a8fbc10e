"""The report of a run, models/<run>.report.html: one page to read, print or send. It needs no other file and no network.

It is made of the run's metrics and config, so a run without checkpoints has one too. report.html is the frame with the
styles. Everything that comes from outside is escaped, and the page's Content-Security-Policy allows no request and no script.
"""

from __future__ import annotations

import html
import math
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from evaluation.builtin import QUESTIONS
from evaluation.intervals import Z, wilson
from jojo.config_file import config_text
from jojo.facts import Row, how_trained, hyperparameters, last_evaluation
from jojo.metrics import MetricsTracker, Point
from jojo.networks import formulas
from jojo.plotting import choose_losses, finite
from recipes.recipe import how_to_prepare
from training.known_runs import KNOWN_RUNS, TALES, KnownRun
from training.resume import Mode
from training.run import Run
from training.summary import describe_model, describe_size, passes, resume_command, start_command
from utils import byte_count, duration, log, one_line, parse_json, printable, replace_text, short_count

MOST_SAMPLES, MOST_PROMPTS, MOST_CHARACTERS = 6, 3, 1000  # batches with samples, samples of a batch, length of one
ALIKE_TOKENS, ALIKE_PARAMETERS = 1.5, 2.0  # factors up to which two runs are of the same length and size
NORMAL = 1.2  # factor up to which two results are alike

WHAT_BPB_IS = (
    "Bits per byte says how many bits the model needs, on average, for each byte of text that it was not trained on. Lower is "
    "better. Use it to compare models on the same text, also models with different vocabularies."
)
WHAT_THE_INTERVAL_IS = (
    "The 95 % interval comes from the differences between the rows of text that were evaluated: with other text of the same "
    "kind the value would probably lie in it. It does not cover what another seed would change (tools/compare.py does)."
)
HIGHER = "Usual reasons: a learning rate that does not fit (try half and double), or a change that does not help."


def write_report(run: Run, metrics: MetricsTracker, batches_done: int, metadata: Mapping[str, Any]) -> None:
    """Write the report, if a batch is done. If that fails, it warns, and the run goes on to its end as without it.

    `metadata`: of the checkpoint, which says what machine and which versions trained the model.
    """
    if not batches_done:
        return
    try:
        replace_text(run.files.report, report(run, metrics, batches_done, metadata))
    except Exception as error:  # the disk is full, for example
        log.warning("No report: %s: %s", type(error).__name__, error)


def report(run: Run, metrics: MetricsTracker, batches_done: int, metadata: Mapping[str, Any]) -> str:
    """The page."""
    rows = marked_rows(run.files.metrics)
    evaluation, _ = last_evaluation(batches_done, metrics)
    state = {"batch_counter": batches_done, "metadata": metadata}
    training = how_trained(run.config.to_dict(), state, metrics, run.data.train.manifest.source["label"])
    sections = [
        ("How it learned", curve(metrics)),
        ("Is this loss normal?", is_it_normal(run, metrics, batches_done)),
        ("What it wrote", samples(rows, dict(finite(metrics.val_loss_eval)))),
        ("Evaluation", table(evaluation + tasks(rows)) + how_to_evaluate(run)),
        ("Model and data", table(model_and_data(run, batches_done))),
        ("Training", table(training + machine(run, metrics, metadata, rows))),
        ("Settings", table(hyperparameters(run.config.to_dict()))),
        ("How to do it again", how_to_repeat(run, metadata)),
    ]
    body = "".join(f"<section><h2>{title}</h2>\n{content}</section>\n" for title, content in sections if content)
    frame = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return frame.substitute(
        title=text(run.files.run), lead=lead(run, batches_done), figures=figures(run, metrics, rows), body=body
    )


def text(value: object) -> str:
    """A value as text of the page. Control characters are written out."""
    return html.escape(printable(str(value)))


def paragraph(sentences: str) -> str:
    """Sentences as a paragraph."""
    return f"<p>{text(sentences)}</p>\n"


def table(rows: Sequence[Row]) -> str:
    """Rows of name and value."""
    cells = (f"<tr><th>{text(name)}</th><td>{text(one_line(value, 300))}</td></tr>\n" for name, value in rows if value)
    return f"<table>\n{''.join(cells)}</table>\n" if rows else ""


def command(line: str) -> str:
    """A line to type."""
    return f"<pre>{code(line)}</pre>\n"


def code(line: str) -> str:
    """A command that is broken only between words, not after the dashes of a flag."""
    return f"<code>{' '.join(f'<span>{text(word)}</span>' for word in line.split(' '))}</code>"


def marked_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file with samples or an evaluation, and the last row."""
    rows, line = {}, b"{}"
    with open(path, "rb") as file:
        for line in file:
            if b'"samples"' in line or b'"bpb_se"' in line:  # parsing every row could take seconds
                row = parse_json(line)
                rows[row["step"]] = row
    last = parse_json(line)
    return list((rows | {last.get("step"): last}).values())


# --- the top ----------------------------------------------------------------------------------------------------------


def lead(run: Run, batches_done: int) -> str:
    """What was trained on what, and whether it is finished."""
    size, total = short_count(formulas(run.config.model).n_parameters), run.plan.total_batches
    what = f"A language model of {size} parameters, trained on {run.data.train.manifest.source['label']}: "
    read = passes(batches_done, run.plan)
    if batches_done == total:
        return paragraph(f"{what}{total:,} batches, {read}.")
    unfinished = f"{what}{batches_done:,} of {total:,} batches, {read}."
    way = command(resume_command(run)) if run.config.training.save_checkpoints else ""
    return (
        f'{paragraph(unfinished)}<p class="note">This run is unfinished.{" To continue it:" if way else ""}</p>\n{way}'
    )


def figures(run: Run, metrics: MetricsTracker, rows: Iterable[Mapping[str, Any]]) -> str:
    """The most important numbers, and what they are."""
    explained, shown = "", []
    if bpb := finite(metrics.bpb):
        step, value = bpb[-1]
        error = next((row.get("bpb_se") for row in rows if row.get("step") == step), None)
        margin = f" ± {Z * error:.4f} (95 %)" if error is not None else ""
        shown.append((f"{value:.4f}", f"bits per byte{margin}"))
        explained = paragraph(WHAT_BPB_IS + (f" {WHAT_THE_INTERVAL_IS}" if margin else ""))
    if losses := finite(metrics.val_loss_eval):
        shown.append((f"{losses[-1][1]:.4f}", "validation loss, nats per token"))
    shown += [(short_count(metrics.tokens), "tokens predicted"), (duration(metrics.elapsed_s), "training time")]
    tiles = "".join(f"<div><strong>{text(value)}</strong> {text(name)}</div>\n" for value, name in shown)
    return f'<div class="figures">\n{tiles}</div>\n{explained}'


# --- the curve --------------------------------------------------------------------------------------------------------


def curve(metrics: MetricsTracker) -> str:
    """The losses against batches: lines as SVG that fills the width, labels as text that keeps its size."""
    losses = choose_losses(metrics)
    series = [("batch", losses.batches), ("train", losses.train), ("val", losses.val)]
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    last = max(step for step, _ in points)
    heights = ticks(min(value for _, value in points), max(value for _, value in points))
    low, high = heights[0], heights[-1]

    def x(step: float) -> str:
        return f"{100 * step / last:.2f}"

    def y(value: float) -> str:
        return f"{100 * (high - value) / (high - low):.2f}"

    def line(kind: str, points: Sequence[Point]) -> str:
        places = [f"{x(step)},{y(value)}" for step, value in points]
        dots = "".join(f"M{place}h0" for place in places) if len(places) <= 50 else ""
        return f'<polyline class="{kind}" points="{" ".join(places)}"/><path class="{kind} dots" d="{dots}"/>\n'

    grid = "".join(f'<path class="grid" d="M0,{y(value)}H100"/>' for value in heights)
    labels = "".join(f'<span class="y" style="top:{y(value)}%">{value:g}</span>' for value in heights)
    steps = [step for step in ticks(0, last) if step <= last and step % 1 == 0]
    labels += "".join(f'<span class="x" style="left:{x(step)}%">{step:,.0f}</span>' for step in steps)
    names = {"train": "training loss", "val": "validation loss"}
    legend = "".join(
        f'<span class="name"><span class="{kind} key"></span>{names[kind]}, lowest {value:.4f} at batch {step:,}</span>'
        for kind, line in series[1:] if line for step, value in [min(line, key=lambda point: point[1])]
    )  # fmt: skip
    drawn = "".join(line(kind, points) for kind, points in series if points)
    svg = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Loss">{grid}{drawn}</svg>'
    smoothed = ", training loss smoothed" if "smoothed" in losses.x_label else ""
    caption = f"{legend}<br>Nats per token (up) against batches (right){smoothed}."
    return f'<figure><div class="plot">{svg}{labels}</div><figcaption>{caption}</figcaption></figure>\n'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers at equal distances, of which the first is at most `low` and the last at least `high`."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span <= unit * factor * most)
    first = math.floor(low / step)
    return [step * n for n in range(first, max(math.ceil(high / step), first + 1) + 1)]


# --- is it normal? ----------------------------------------------------------------------------------------------------


def is_it_normal(run: Run, metrics: MetricsTracker, batches_done: int) -> str:
    """Where the last evaluation lies among known runs: on the same text, or else only for an idea."""
    evaluations, val = finite(metrics.bpb), run.data.val.manifest
    if not evaluations:
        return paragraph("This run has no evaluation yet, so nobody can say.")
    own = KnownRun(
        text="this run", val_sha256=str(val.source.get("sha256")), parameters=formulas(run.config.model).n_parameters,
        tokens=batches_done * run.config.tokens_per_batch, bpb=evaluations[-1][1], flags="",
    )  # fmt: skip
    same = [known for known in KNOWN_RUNS if known.val_sha256 == own.val_sha256]
    finished = batches_done == run.plan.total_batches
    says = verdict(own, same) if finished or not same else (
        "This run is unfinished. The loss falls faster when the learning rate falls, so wait for the end to compare."
    )  # fmt: skip
    return paragraph(says) + known_table(
        own, same or [known for known in KNOWN_RUNS if known.text == TALES], guess(run)
    )


def guess(run: Run) -> float:
    """Bits per byte of a model that gives every token the same probability."""
    val = run.data.val.manifest
    return math.log2(run.data.tokenizer.n_vocab) * (val.n_tokens - val.n_control_tokens) / max(1, val.n_text_bytes)


def factor(a: float, b: float) -> float:
    """How many times the larger number is the smaller one."""
    return max(a, b) / min(a, b)


def verdict(own: KnownRun, same: Sequence[KnownRun]) -> str:
    """Whether a finished run's result is normal. `same`: known runs on the same validation text."""
    if not same:
        return (
            "Nobody can say from this number alone: no known run has this validation text, and bits per byte compare only on "
            "the same text. Compare it with a run of your own that differs in one setting (tools/compare.py). Only to give an "
            "idea, these are runs on another text:"
        )
    alike = [
        (factor(own.tokens, known.tokens) * factor(own.parameters, known.parameters), known)
        for known in same
        if factor(own.tokens, known.tokens) <= ALIKE_TOKENS
        and factor(own.parameters, known.parameters) <= ALIKE_PARAMETERS
    ]
    if not alike:
        return "Known runs on this text had another size or another length. The table shows where this run lies:"
    known = min(alike)[1]
    beside = f"a known run of about this size and length, which reached {known.bpb:g} bits per byte"
    if own.bpb > NORMAL * known.bpb:
        return f"It is higher than that of {beside}. {HIGHER}"
    if own.bpb < known.bpb / NORMAL:
        return f"It is lower, so better, than that of {beside}."
    return f"Yes: it is near that of {beside}."


def known_table(own: KnownRun, known: Sequence[KnownRun], guessed: float) -> str:
    """Known runs and this one, in the order of their tokens. `guessed`: bits per byte before training."""
    head = "<tr><th>text</th><th>parameters</th><th>tokens</th><th>bits per byte</th></tr>\n"
    lines = [f"<tr><td>this text, before training</td><td></td><td>0</td><td>about {guessed:.1f}</td></tr>\n"]
    for run in sorted([own, *known], key=lambda run: run.tokens):
        bpb = f"{run.bpb:.4f}" if run is own else f"{run.bpb:g}"
        values = (text(run.text), short_count(run.parameters), short_count(run.tokens), bpb)
        cells = "".join(f"<td>{value}</td>" for value in values)
        lines.append(f'<tr class="{"own" if run is own else ""}">{cells}</tr>\n')
        if run.flags:
            lines.append(f'<tr class="how"><td colspan="4">{code(f"python train.py {run.flags}")}</td></tr>\n')
    return f'<table class="known">\n{head}{"".join(lines)}</table>\n'


def tasks(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The share of right answers in each of `training.evaluate_tasks` at the last evaluation."""
    scores: Mapping[str, float] = next((row["tasks"] for row in reversed(rows) if row.get("tasks")), {})
    shares = {f"task {name}, share of right answers": wilson(share, QUESTIONS) for name, share in scores.items()}
    return [(name, f"{one.value:.3f} (95 %: {one.low:.3f} to {one.high:.3f})") for name, one in shares.items()]


def how_to_evaluate(run: Run) -> str:
    """The command that measures more than the evaluations of training do."""
    if not run.config.training.save_checkpoints:
        return ""
    line = shlex.join(["python", "evaluate.py", str(run.files.last)])
    return paragraph("Evaluations during training read a part of the text. To measure all of it, and more:") + command(
        line
    )


# --- the rest ---------------------------------------------------------------------------------------------------------


def samples(rows: Iterable[Mapping[str, Any]], losses: Mapping[int, float]) -> str:
    """What the model wrote at a few batches, the first and the last among them. `losses`: validation losses by batch."""
    found = [row for row in rows if row.get("samples")]
    parts = min(MOST_SAMPLES, len(found)) - 1
    chosen = [found[round(part * (len(found) - 1) / max(1, parts))] for part in range(parts + 1)]
    shown = []
    for row in chosen:
        loss = f", validation loss {losses[row['step']]:.4f}" if row["step"] in losses else ""
        shown.append(f"<h3>After batch {row['step']:,}{loss}</h3>\n")
        for sample in row["samples"][:MOST_PROMPTS]:
            written = sample["text"][:MOST_CHARACTERS] + "..." * (len(sample["text"]) > MOST_CHARACTERS)
            shown.append(f"<blockquote><b>{text(sample['prompt'])}</b>{text(written)}</blockquote>\n")
    return "".join(shown)


def model_and_data(run: Run, batches_done: int) -> list[Row]:
    """The shape of the model, where it began, and what it read."""
    start, data = run.start, run.data
    began = start.mode.value.format(path=start.checkpoint and start.checkpoint.path, batch=start.batches_done)
    return [
        ("model", describe_model(run.config.model).replace("\n", "; ")),
        ("resumed from" if start.mode is Mode.RESUME else "starts from", began),
        ("text", describe_size(data)),
        ("read", passes(batches_done, run.plan)),
        ("tokenizer", f"{data.tokenizer.name}, {data.tokenizer.n_vocab:,} tokens"),
        *((f"fingerprint, {split}", data.fingerprints[split]) for split in ("train", "val")),
    ]


def machine(
    run: Run, metrics: MetricsTracker, metadata: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """What the machine did."""
    threads, peak = metadata["machine"].get("threads"), rows[-1].get("peak_memory_bytes")
    speed = (
        f"{metrics.tokens / metrics.elapsed_s:,.0f} tokens per second, with evaluations" if metrics.elapsed_s else ""
    )
    return [
        ("Python", platform.python_version()),
        ("threads", str(threads or "")),
        ("ranks", "" if run.ranks.is_single else str(run.ranks.world_size)),
        ("speed", speed),
        ("peak memory", byte_count(peak) if peak else ""),
    ]


def how_to_repeat(run: Run, metadata: Mapping[str, Any]) -> str:
    """Code, data, command and config."""
    version, pytorch, commit = (metadata.get(key) for key in ("trainer_version", "pytorch_version", "git_commit"))
    prints, built_in = run.data.fingerprints, run.data.train.manifest.name == "story_sample"
    prepare = "" if built_in else how_to_prepare(run.config.data.dataset_name)
    resumed = run.start.mode is Mode.RESUME
    typed = "" if resumed else start_command(run.ranks, run.arguments)
    same = "A run with them that is never stopped is the same" if resumed else "This gives the same run"
    from_file = (
        start_command(run.ranks, ["--config", "run.json"]) if run.start.mode in (Mode.FRESH, Mode.RESUME) else ""
    )
    steps = [
        (f"The program is Jojo {version}, with PyTorch {pytorch}.", f"git checkout {commit}" if commit else ""),
        (f"The text is {'built in' if built_in else 'a data set of your own or of a recipe'}. Its fingerprints must be "
         f"{prints['train']} (training) and {prints['val']} (validation).", prepare),
        ("This run was resumed, so it was trained by several commands." if resumed else "This was typed:", typed),
        ("Every option has the value below." + f" Save them as run.json. {same}:" * bool(from_file), from_file),
    ]  # fmt: skip
    items = "".join(f"<li>{paragraph(says)}{command(line) if line else ''}</li>\n" for says, line in steps)
    exact = "With the same kind of processor and as many threads, the result is the same to the last bit; else almost."
    return f'<ol>\n{items}</ol>\n{paragraph(exact)}<pre class="config">{text(config_text(run.config))}</pre>\n'
