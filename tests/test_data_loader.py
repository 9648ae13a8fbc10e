"""Tests of the data loader: every token is a target once per epoch, and any batch is found without reading others."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers_data import ROOT, examples, files_in, logged, made_up_cache, new_folder, warnings_in, write_lines
from hypothesis import example, given, settings
from hypothesis import strategies as st

import recipes.story
from config import Config
from data_loader import IGNORED, PackedLoader
from jojo.text.packing import mix_key, permute, permuted_range
from jojo.text.stats import statistics
from jojo.text.token_cache import TokenCache
from jojo.text.tokenizer import get_tokenizer
from training.dataset import open_dataset
from utils import UserError

EOT = 65535  # no made-up cache contains this id
GPT2 = get_tokenizer("gpt2")
LENGTHS = [3, 1, 9, 2, 30, 4, 4, 17, 5, 8]

document_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)
small = st.integers(1, 5)


def loader_of(cache: TokenCache, **options: Any) -> PackedLoader:
    settings = {"block_size": 8, "batch_size": 2, "accumulation": 2, "seed": 5, "eot_id": EOT} | options
    return PackedLoader(cache, settings.pop("block_size"), settings.pop("batch_size"), **settings)


def read_epoch(loader: PackedLoader, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of an epoch, (batches, A, B, T)."""
    batches = [loader.batch(epoch, index) for index in range(loader.batches_per_epoch)]
    return np.stack([b.inputs for b in batches]), np.stack([b.targets for b in batches])


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return made_up_cache(tmp_path, LENGTHS)


# --- order --------------------------------------------------------------------------------------------------------


@examples(150)
@given(st.integers(1, 3000), st.integers(-(2**70), 2**70))
@example(1, 0)
@example(2, 0)
@example(4, 1)
@example(5, 2)
def test_permute_is_a_bijection(n: int, key: int) -> None:
    assert sorted(permute(np.arange(n), n, key).tolist()) == list(range(n))


@examples(50)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.data())
def test_permute_of_some_positions_equals_permute_of_all_positions(n: int, key: int, data: Any) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=5)), np.int64)
    everything = permute(np.arange(n), n, key)
    assert permute(positions, n, key).tolist() == everything[positions].tolist()
    assert permute(positions.reshape(1, -1), n, key).shape == (1, len(positions))
    assert permute(np.arange(n), n, key).dtype == np.int64


WORD = 2**64 - 1


def plain_mix(x: int) -> int:
    """SplitMix64's finalizer in Python's integers (Steele, Lea & Flood 2014)."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


def plain_key(*parts: int) -> int:
    key = 0
    for part in parts:
        key = plain_mix(key + part + 0x9E3779B97F4A7C15 & WORD)
    return key


def plain_permute(position: int, n: int, key: int) -> int:
    half = ((n - 1 or 1).bit_length() + 1) // 2
    while True:
        left, right = position >> half, position % 2**half
        for turn in range(6):
            left, right = right, left ^ plain_mix(right + plain_key(key, turn) & WORD) % 2**half
        position = (left << half) + right
        if position < n:
            return position


@examples(60)
@given(st.one_of(st.integers(1, 100), st.integers(1, 2**50)), st.integers(-(2**70), 2**70), st.data())
def test_permute_equals_the_same_formula_in_python_integers(n: int, key: int, data: Any) -> None:
    """A resumed run continues in this order, so it must not depend on numpy's version or the machine."""
    position = data.draw(st.integers(0, n - 1))
    assert permute(np.array([position]), n, key).tolist() == [plain_permute(position, n, key)]
    assert mix_key(key, n) == plain_key(key, n)


@given(st.integers(1, 30_000), st.integers(0, 2**64 - 1), st.data())
@settings(max_examples=30, deadline=None)
def test_a_permuted_range_equals_permute(n: int, key: int, data: Any) -> None:
    """Also a range within one of the pieces that are kept, over several of them, and an empty one."""
    first = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(first, n))
    assert np.array_equal(permuted_range(first, stop, n, key), permute(np.arange(first, stop), n, key))


def test_permute_works_for_sizes_far_larger_than_memory() -> None:
    for n in (2**31 + 1, 2**40, 10**15):
        places = permute(np.arange(n - 1000, n), n, 3)
        assert len(set(places.tolist())) == 1000 and places.min() >= 0 and places.max() < n


def test_permute_gives_each_key_its_own_order_and_can_give_every_order() -> None:
    assert len({tuple(permute(np.arange(50), 50, key)) for key in range(200)}) == 200
    assert len({tuple(permute(np.arange(4), 4, key)) for key in range(2000)}) == 24


def test_permute_spreads_positions_evenly() -> None:
    """Over many keys, each position goes to every place about equally often, and neighbours are separated."""
    n, keys = 10, 4000
    places = np.stack([permute(np.arange(n), n, key) for key in range(keys)])
    counts = np.stack([np.bincount(places[:, position], minlength=n) for position in range(n)])
    assert (abs(counts - keys / n) < 5 * (keys / n) ** 0.5).all()
    together = (abs(np.diff(places, axis=1)) == 1).mean()
    assert abs(together - 2 / n) < 0.02


def test_a_key_depends_on_every_part_and_on_their_order() -> None:
    parts = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1), (0, 0, 0), (-1,), (2**64,), (2**40, 1), (2**40 + 1, 1)]
    keys = [mix_key(*p) for p in parts]
    keys.remove(mix_key(2**64))  # the same as 0: keys are 64 bits
    assert len(set(keys)) == len(parts) - 1
    assert all(0 <= key < 2**64 for key in keys)


# --- an epoch -----------------------------------------------------------------------------------------------------


def naive_stream(lengths: list[int], inputs: np.ndarray, targets: np.ndarray) -> list[int]:
    """The epoch's stream of tokens: each token is followed by the target that has it as its input.

    This works only on made-up caches, in which every token is a different number.
    """
    context_of = {int(y): int(x) for x, y in zip(inputs.flat, targets.flat, strict=True) if y != IGNORED}
    assert len(context_of) == sum(lengths)
    next_after = {x: y for y, x in context_of.items()}
    assert len(next_after) == len(context_of), "two targets have the same context"
    stream = [EOT]
    while stream[-1] in next_after:
        stream.append(next_after[stream[-1]])
    return stream


@examples(120)
@given(document_lengths, st.integers(1, 12), small, small, st.integers(0, 2**40), st.integers(0, 5))
@example([1], 12, 5, 5, 0, 0)
@example([8, 8], 8, 2, 1, 0, 0)
@example([7], 8, 1, 1, 0, 0)
def test_every_token_is_a_target_exactly_once_and_rows_are_cut_from_one_stream(
    lengths: list[int], block_size: int, batch_size: int, accumulation: int, seed: int, epoch: int
) -> None:
    with new_folder() as folder:
        cache = made_up_cache(folder, lengths)
        loader = loader_of(cache, block_size=block_size, batch_size=batch_size, accumulation=accumulation, seed=seed)
        inputs, targets = read_epoch(loader, epoch)
        n_targets = [loader.batch(epoch, index).n_targets for index in range(loader.batches_per_epoch)]
    n_tokens = sum(lengths)
    rows = -(-n_tokens // block_size)
    batches = -(-rows // (batch_size * accumulation))
    assert inputs.shape == targets.shape == (batches, accumulation, batch_size, block_size)
    assert inputs.dtype == targets.dtype == np.int64
    assert sorted(targets[targets != IGNORED].tolist()) == list(range(n_tokens))
    assert n_targets == (targets != IGNORED).sum(axis=(1, 2, 3)).tolist()

    stream = naive_stream(lengths, inputs, targets)
    starts = np.cumsum([0, *lengths[:-1]]).tolist()
    documents = {start: list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)}
    order = [token for token in stream[1:] if token in documents]
    assert stream == [EOT, *itertools.chain.from_iterable(documents[first] for first in order)]

    expected = []
    for begin in range(0, n_tokens, block_size):
        y = stream[1:][begin : begin + block_size]
        expected.append((stream[begin : begin + len(y)], y))
    read = []
    for x, y in zip(inputs.reshape(-1, block_size).tolist(), targets.reshape(-1, block_size).tolist(), strict=True):
        count = block_size - y.count(IGNORED)
        assert y[count:] == [IGNORED] * (block_size - count)
        if count:
            read.append((x[:count], y[:count]))
    assert sorted(read) == sorted(expected)


def test_inputs_are_targets_shifted_by_one(cache: TokenCache) -> None:
    inputs, targets = read_epoch(loader_of(cache), 0)
    for x, y in zip(inputs.reshape(-1, 8), targets.reshape(-1, 8), strict=True):
        known = y[:-1] != IGNORED
        both = known & (y[1:] != IGNORED)
        assert (x[1:][both] == y[:-1][both]).all()
    assert (inputs == EOT).sum() - (targets == IGNORED).sum() == 1  # the stream begins with <|endoftext|>, once


def test_inputs_are_valid_ids_even_where_the_target_is_ignored(cache: TokenCache) -> None:
    inputs, targets = read_epoch(loader_of(cache, batch_size=4, accumulation=4), 0)
    assert (targets == IGNORED).any()
    assert (inputs >= 0).all()


def test_the_last_batch_is_filled_with_ignored_rows_and_not_with_rows_of_the_next_epoch(cache: TokenCache) -> None:
    loader = loader_of(cache, batch_size=3, accumulation=1)
    assert cache.n_tokens == 83 and loader.n_rows == 11 and loader.batches_per_epoch == 4
    last = loader.batch(0, 3)
    ignored_rows = (last.targets == IGNORED).all(axis=-1).sum()
    assert ignored_rows == 1 and last.targets.shape == (1, 3, 8)
    read = [loader.batch(0, index).targets for index in range(4)]
    assert sorted(t for part in read for t in part[part != IGNORED].tolist()) == list(range(83))


def test_data_smaller_than_a_row_is_one_batch(tmp_path: Path) -> None:
    loader = loader_of(made_up_cache(tmp_path, [2, 1]), block_size=100, batch_size=4)
    batch = loader.batch(0, 0)
    assert loader.batches_per_epoch == 1 and batch.n_targets == 3
    assert sorted(batch.targets[batch.targets != IGNORED].tolist()) == [0, 1, 2]


def test_a_document_longer_than_a_row_continues_in_other_rows(tmp_path: Path) -> None:
    inputs, targets = read_epoch(loader_of(made_up_cache(tmp_path, [60_000]), block_size=1000, batch_size=7), 3)
    assert naive_stream([60_000], inputs, targets) == [EOT, *range(60_000)]


# --- order of epochs ----------------------------------------------------------------------------------------------


def test_every_epoch_and_every_seed_has_its_own_order_of_documents(cache: TokenCache) -> None:
    orders = set()
    for seed, epoch in itertools.product((0, 1, 2**63), range(4)):
        loader = loader_of(cache, seed=seed)
        inputs, targets = read_epoch(loader, epoch)
        orders.add(tuple(naive_stream(LENGTHS, inputs, targets)))
    assert len(orders) == 12


def test_rows_are_shuffled_again_in_each_epoch(tmp_path: Path) -> None:
    loader = loader_of(made_up_cache(tmp_path, [800]))  # one document: only the rows can move
    first, second = (read_epoch(loader, epoch)[1] for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first, axis=None), np.sort(second, axis=None))
    assert (np.diff(first.reshape(-1, 8)[:, 0]) < 0).any()


def digest(loader: PackedLoader) -> str:
    sha256 = hashlib.sha256()
    for epoch in (0, 1, 7):
        for part in read_epoch(loader, epoch):
            sha256.update(part.astype("<i8").tobytes())
    return sha256.hexdigest()


def test_the_same_seed_gives_the_same_order_in_a_new_process(cache: TokenCache) -> None:
    program = (
        "import sys\n"
        "sys.path[:0] = ['tests', 'tests/helpers']\n"
        "from pathlib import Path\n"
        "from test_data_loader import TokenCache, digest, loader_of\n"
        "print(digest(loader_of(TokenCache(Path(sys.argv[1])))))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(cache.path)]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    assert answer == digest(loader_of(cache))
    assert answer != digest(loader_of(cache, seed=6))


@examples(40)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=8))
def test_a_batch_does_not_depend_on_the_batches_read_before(visits: list[tuple[int, int]]) -> None:
    with new_folder() as folder:
        cache = made_up_cache(folder, LENGTHS)
        travelled = loader_of(cache)
        for epoch, index in visits:
            fresh, seen = loader_of(cache).batch(epoch, index), travelled.batch(epoch, index)
            assert np.array_equal(fresh.inputs, seen.inputs) and np.array_equal(fresh.targets, seen.targets)
            assert fresh.n_targets == seen.n_targets


def test_max_batches_keeps_the_first_batches_of_each_epoch(cache: TokenCache) -> None:
    full = loader_of(cache)
    short, long = loader_of(cache, max_batches=2), loader_of(cache, max_batches=1000)
    assert (short.batches_per_epoch, long.batches_per_epoch, full.batches_per_epoch) == (2, 3, 3)
    assert np.array_equal(short.batch(1, 1).targets, full.batch(1, 1).targets)


# --- ranks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_read_what_one_process_reads(cache: TokenCache, world_size: int) -> None:
    alone = loader_of(cache, accumulation=4)
    ranks = [loader_of(cache, accumulation=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    for epoch, index in itertools.product((0, 1), range(alone.batches_per_epoch)):
        whole = alone.batch(epoch, index)
        parts = [loader.batch(epoch, index) for loader in ranks]
        assert all(part.inputs.shape == (4 // world_size, 2, 8) for part in parts)
        assert {part.n_targets for part in parts} == {whole.n_targets}
        for micro_batch in range(4):
            part = parts[micro_batch % world_size]
            assert np.array_equal(part.targets[micro_batch // world_size], whole.targets[micro_batch])
            assert np.array_equal(part.inputs[micro_batch // world_size], whole.inputs[micro_batch])


# --- cost ---------------------------------------------------------------------------------------------------------


class CountingCache(TokenCache):
    """A cache that counts its reads. Its token k is a simple function of k."""

    reads = 0

    def gather(self, documents: np.ndarray, begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
        self.reads += len(documents)
        starts = self.index()[documents].astype(np.int64) + begins
        return np.concatenate([np.arange(s, s + n) for s, n in zip(starts, counts, strict=True)]) * 40503 % 50000


def test_batch_ten_million_needs_no_more_reads_than_the_first(tmp_path: Path) -> None:
    cache = made_up_cache(tmp_path, [1000] * 20_001, CountingCache)
    loader = loader_of(cache, block_size=2, batch_size=1, accumulation=1)
    assert loader.batches_per_epoch == 10_000_500
    loader.layout(3)
    for index in (0, 10_000_000):
        cache.reads = 0
        batch = loader.batch(3, index)
        assert 1 <= cache.reads <= 3  # the documents that the row and its context touch
        (document,) = loader.documents(3, index)
        inside = np.arange(1000 * document, 1000 * document + 1000) * 40503 % 50000
        place = int(np.flatnonzero(inside == batch.targets[0, 0, 0])[0])
        assert inside[place : place + 2].tolist() == batch.targets[0, 0].tolist()
    again = loader_of(cache, block_size=2, batch_size=1, accumulation=1).batch(3, 10_000_000)
    assert np.array_equal(again.inputs, batch.inputs)


def test_an_epoch_takes_at_most_20_bytes_of_memory_per_document(tmp_path: Path) -> None:
    def peak_of(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        loader = loader_of(made_up_cache(folder, np.full(count, 2)))
        tracemalloc.start()
        try:
            for epoch in (0, 1):
                loader.batch(epoch, 0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak_of(200_000), peak_of(800_000)
    assert large - small <= 12 * 600_000  # the other 8 are pages of the index while the order is computed


# --- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [5, None])
@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_flipped_bit_is_noticed_before_a_wrong_batch_is_read(tmp_path: Path, suffix: str, seed: int | None) -> None:
    cache = made_up_cache(tmp_path, LENGTHS)
    right = read_epoch(loader_of(cache, seed=seed), 0)[1]
    path = cache.path.with_suffix(suffix)
    intact = path.read_bytes()
    noticed = 0
    for place in range(len(intact)):
        path.write_bytes(intact[:place] + bytes([intact[place] ^ 1 << place % 8]) + intact[place + 1 :])
        loader = loader_of(TokenCache(cache.path), seed=seed)
        try:
            for index, expected in enumerate(right):
                assert np.array_equal(loader.batch(0, index).targets, expected), f"byte {place}"
        except UserError as error:
            assert "damaged" in str(error)
            noticed += 1
    assert noticed == len(intact) or (suffix, seed) == (".idx", None)  # without a seed no offsets are read


# --- evaluation and messages --------------------------------------------------------------------------------------


def test_without_a_seed_documents_keep_their_order(cache: TokenCache) -> None:
    loader = loader_of(cache, seed=None)
    inputs, targets = read_epoch(loader, 0)
    assert naive_stream(LENGTHS, inputs, targets) == [EOT, *range(sum(LENGTHS))]
    again, _ = read_epoch(loader_of(cache, seed=None), 0)
    assert np.array_equal(inputs, again)


@pytest.mark.parametrize("seed", [5, None])
def test_documents_lists_the_documents_of_a_batch(cache: TokenCache, seed: int | None) -> None:
    loader = loader_of(cache, seed=seed)
    document_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    for epoch, index in itertools.product((0, 1), range(loader.batches_per_epoch)):
        targets = loader.batch(epoch, index).targets
        assert loader.documents(epoch, index) == sorted(set(document_of[targets[targets != IGNORED]].tolist()))


# --- data sets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config with an empty data folder and a built-in sample of 80 stories."""
    monkeypatch.setattr(recipes.story, "STORIES", 80)
    config = Config()
    config.data.data_dir = str(tmp_path / "data")
    return config


def data_set(config: Config, name: str, train: list[Any] | None, val: list[Any] | None) -> None:
    for split, records in (("train", train), ("val", val)):
        if records is not None:
            write_lines(Path(config.data.data_dir) / f"{name}-{split}.jsonl", records)


def opened(config: Config, tmp_path: Path) -> tuple[TokenCache, TokenCache]:
    return open_dataset(config, GPT2, tmp_path / "cache")


def texts_of(cache: TokenCache) -> list[str]:
    offsets = cache.offsets(0, cache.n_documents + 1).tolist()
    return [GPT2.decode(cache.tokens(a, b).tolist()) for a, b in itertools.pairwise(offsets)]


def test_a_prepared_data_set_is_opened_by_its_name(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [{"text": "a"}, {"text": "b"}], [{"text": "c"}])
    config.data.dataset_name = "tales"
    with logged() as records:
        train, val = opened(config, tmp_path)
    assert (texts_of(train), texts_of(val)) == (["a", "b"], ["c"])
    assert (train.manifest.split, val.manifest.split) == ("train", "val")
    assert not warnings_in(records)


def test_an_unknown_data_set_is_refused_with_the_names_of_existing_ones(config: Config, tmp_path: Path) -> None:
    config.data.dataset_name = "tails"
    with pytest.raises(UserError, match=r"tails-train\.jsonl' does not exist .*holds: no data set.*prepare\.py"):
        opened(config, tmp_path)
    for name in ("tales", "poems-old"):
        data_set(config, name, [{"text": "a"}], [{"text": "b"}])
    with pytest.raises(UserError, match=r"tails-train\.jsonl' does not exist .*poems-old, tales") as error:
        opened(config, tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_validation_split_is_refused_with_its_file_name(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [{"text": "a"}], None)
    config.data.dataset_name = "tales"
    with pytest.raises(UserError, match=r"tales-val\.jsonl' does not exist .*prepare\.py") as error:
        opened(config, tmp_path)
    assert "\n" not in str(error.value)


def test_without_story_files_the_built_in_sample_is_used_and_announced_once(config: Config, tmp_path: Path) -> None:
    with logged() as records:
        train, val = opened(config, tmp_path)
    assert (train.n_documents, val.n_documents) == (78, 2)
    assert not set(texts_of(train)) & set(texts_of(val))
    (line,) = [
        r.getMessage() for r in records if "built-in sample" in r.getMessage() and "Tokenizing" not in r.getMessage()
    ]
    assert line == "Using the built-in sample of 80 short stories."
    assert not Path(config.data.data_dir).exists()  # the sample is only in the cache
    assert all(name.startswith("story_sample-") for name in files_in(tmp_path / "cache"))
    assert not list((ROOT / "data").glob("story_sample*"))


def test_the_sample_is_not_tokenized_twice(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = opened(config, tmp_path)
    monkeypatch.setattr(recipes.story, "sample_lines", None)
    again, _ = opened(config, tmp_path)
    assert again.path == first.path


def test_a_sample_of_another_size_is_tokenized_separately(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(config, tmp_path)
    monkeypatch.setattr(recipes.story, "STORIES", 120)
    monkeypatch.setattr(recipes.story, "SAMPLE_SHA256", "another")
    assert opened(config, tmp_path)[0].n_documents == 117


def test_story_files_take_precedence_over_a_sample_that_is_already_cached(config: Config, tmp_path: Path) -> None:
    opened(config, tmp_path)
    data_set(config, "story", [{"text": "real"}], [{"text": "also real"}])
    with logged() as records:
        train, val = opened(config, tmp_path)
    assert (texts_of(train), texts_of(val)) == (["real"], ["also real"])
    assert not any("built-in" in r.getMessage() for r in records)


@pytest.mark.parametrize("there", ["train", "val"])
def test_a_single_story_split_is_never_mixed_with_the_sample(config: Config, tmp_path: Path, there: str) -> None:
    data_set(config, "story", *([[{"text": "real"}], None] if there == "train" else [None, [{"text": "real"}]]))
    try:
        train, val = opened(config, tmp_path)
    except UserError:
        return
    assert train.manifest.name == val.manifest.name


def test_only_the_data_set_story_falls_back_to_the_sample(config: Config, tmp_path: Path) -> None:
    config.data.dataset_name = "story2"
    with pytest.raises(UserError, match="story2"):
        opened(config, tmp_path)


CHATML = {"text": "<|im_start|>user\nHello<|im_end|>\n"}


def test_lookalikes_of_control_tokens_give_one_warning_that_names_parse_special(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [CHATML, CHATML, {"text": "plain"}], [CHATML])
    config.data.dataset_name = "tales"
    for _ in range(2):  # the second time from the cache
        with logged() as records:
            train, _ = opened(config, tmp_path)
        (warning,) = warnings_in(records)
        assert "in 3 documents" in warning and "--data.parse_special true" in warning and "\n" not in warning
        assert all(i < 50256 for i in train.tokens(0, train.n_tokens).tolist()[:-1] if i != 50256)


def test_parse_special_reads_control_tokens_without_a_warning(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [CHATML], [CHATML])
    config.data.dataset_name, config.data.parse_special = "tales", True
    with logged() as records:
        train, val = opened(config, tmp_path)
    assert train.tokens(0, train.n_tokens).tolist() == [50257, 7220, 198, 15496, 50258, 198, 50256]
    assert val.manifest.rendering == {"parse_special": True}
    assert not warnings_in(records)


def test_parse_special_is_not_recommended_if_it_would_change_nothing(config: Config, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "What is <|im_start|>?"}]}
    data_set(config, "tales", [chat], [{"text": "plain"}])
    config.data.dataset_name = "tales"
    with logged() as records:
        opened(config, tmp_path)
    assert not any("parse_special" in message for message in warnings_in(records))


def test_max_bad_lines_in_the_config_is_the_limit(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [{"text": "a"}, b"oops", b"no"], [{"text": "b"}])
    config.data.dataset_name, config.data.max_bad_lines = "tales", 1
    with pytest.raises(UserError, match="more than 1 unreadable"):
        opened(config, tmp_path)
    config.data.max_bad_lines = 2
    assert opened(config, tmp_path)[0].n_documents == 1


def test_statistics_show_documents_tokens_and_bytes_per_token(config: Config, tmp_path: Path) -> None:
    data_set(config, "tales", [{"text": "Hello world"}, {"text": ""}, {"text": "Hello"}], [{"text": "b"}])
    config.data.dataset_name = "tales"
    shown = " ".join(statistics(opened(config, tmp_path)[0]).split())
    assert shown == (
        "documents 2 tokens 5, 2 of them control tokens bytes per token 5.33 longest document 3 tokens empty documents 1, skipped"
    )
