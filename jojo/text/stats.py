"""Statistics of a prepared data set: lengths, copies, the most common documents, and a plot of the lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jojo.text.cache_builder import Source
from jojo.text.dataset_files import DatasetFiles
from jojo.text.documents import line_texts
from jojo.text.token_cache import TokenCache
from utils import log, one_line


def describe(sources: Sequence[Source], caches: Sequence[TokenCache], files: DatasetFiles) -> None:
    """Print the lengths and the copies of a set's documents, and plot the lengths."""
    lengths = [np.diff(cache.index().astype(np.int64)) for cache in caches]
    for source, length in zip(sources, lengths, strict=True):
        shown = ", ".join(f"{share} % {np.percentile(length, share):,.0f}" for share in (5, 25, 50, 75, 95))
        log.info("%s: tokens per document: %s, longest %s", source.label, shown, f"{length.max():,}")
    report_copies(sources)
    plot = files.folder / f"{files.name}-lengths.png"
    plot.parent.mkdir(parents=True, exist_ok=True)
    draw_lengths(dict(zip((source.split for source in sources), lengths, strict=True)), files.name, plot)
    log.info("Wrote %s", plot)


def report_copies(sources: Sequence[Source]) -> None:
    """Count exact copies, within a split and across, and show the documents that occur most often."""
    texts_of = (filter(None, map(line_texts, source.lines())) for source in sources)
    digests = [np.fromiter(map(digest, texts), np.uint64) for texts in texts_of]
    both = len(np.intersect1d(digests[0], digests[1]))
    values, counts = np.unique(np.concatenate(digests), return_counts=True)
    log.info(
        "%s of %s documents are copies of another; %s occur in both splits.",
        f"{int(counts.sum()) - len(values):,}", f"{int(counts.sum()):,}", f"{both:,}",
    )  # fmt: skip
    often = np.argsort(-counts, kind="stable")[:5]
    wanted = {int(values[i]): int(counts[i]) for i in often if counts[i] > 1}
    for source in sources:
        for texts in map(line_texts, source.lines() if wanted else ()):
            if texts and (count := wanted.pop(digest(texts), 0)):
                log.info("  %s times: %s", f"{count:,}", one_line(" / ".join(texts), 90))


def digest(texts: list[str]) -> int:
    """A 64-bit hash of a document's text."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).digest()[:8], "big")


def draw_lengths(lengths: dict[str, np.ndarray], title: str, path: Path) -> None:
    """Save a histogram of document lengths, with an outline for each split."""
    from jojo.plotting import new_figure, save_figure

    figure = new_figure(8, 4.5)
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes = figure.add_subplot(xscale="log", title=title, xlabel="tokens per document", ylabel="share of documents")
    everything = np.concatenate(list(lengths.values()))
    edges = np.unique(np.geomspace(everything.min(), everything.max() + 1, 40).round()).tolist()
    for (split, length), color in zip(lengths.items(), ("tab:blue", "tab:orange"), strict=False):
        label = f"{split}: {len(length):,} documents, median {np.median(length):,.0f}"
        share = np.full(len(length), 1 / len(length))
        axes.hist(length, edges, weights=share, histtype="step", linewidth=1.8, color=color, label=label)
    width = edges[-1] / edges[0]
    round_numbers = LogLocator(subs=[1, 2, 5] if width < 1000 else [1])
    axes.xaxis.set_major_locator(round_numbers if width > 5 else MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def statistics(cache: TokenCache) -> str:
    """The counts of a cache, as a table to print."""
    manifest = cache.manifest
    text_tokens = manifest.n_tokens - manifest.n_control_tokens
    rows = [
        ("documents", f"{manifest.n_documents:,}"),
        ("tokens", f"{manifest.n_tokens:,}, {manifest.n_control_tokens:,} of them control tokens"),
        ("bytes per token", f"{manifest.n_text_bytes / max(1, text_tokens):.2f}"),
        ("longest document", f"{manifest.longest_document:,} tokens"),
    ]
    if manifest.empty_documents:
        rows.append(("empty documents", f"{manifest.empty_documents:,}, skipped"))
    return "\n".join(f"  {name:<17} {value}" for name, value in rows)
