"""Tests of data.pack "whole": no token is lost or repeated, and documents are cut only if they must be."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers_data import examples, made_up_cache, new_folder
from hypothesis import example, given
from hypothesis import strategies as st

from data_loader import IGNORED, PackedLoader
from jojo.text.chat_targets import AssistantTargets
from jojo.text.packing import WholeRows, cut_at_turns, fill_rows
from jojo.text.token_cache import TokenCache

TURN, ASSISTANT = 7, 9
ROLES = AssistantTargets(TURN, 8, (ASSISTANT,))
EOT = 65535


@examples(200)
@given(st.integers(1, 30).flatmap(lambda size: st.tuples(st.just(size), st.lists(st.integers(1, size), max_size=60))))
@example((1, [1]))
@example((5, []))
def test_rows_hold_every_part_once_and_are_well_filled(case: tuple[int, list[int]]) -> None:
    size, lengths = case
    order, firsts = fill_rows(np.array(lengths, np.int64), size)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert firsts[0] == 0 and firsts[-1] == len(lengths)
    filled = [sum(lengths[i] for i in order[a:b]) for a, b in itertools.pairwise(firsts)]
    assert all(0 < row <= size for row in filled)
    assert sum(2 * row <= size for row in filled) <= 1  # the documents of two half-empty rows would fit into one


def test_parts_of_one_length_are_in_random_order() -> None:
    order, _ = fill_rows(np.full(1000, 5), 10)
    assert (np.diff(order) == 1).mean() < 0.1


@pytest.mark.parametrize(
    ("ids", "parts"),
    [
        ([TURN, 1, 2, TURN, 3, 4], [(0, 3), (3, 3)]),
        ([TURN, 1, TURN, 2, TURN, 3, TURN, 4], [(0, 4), (4, 4)]),
        ([TURN, 1, 2, 3, 4, 5, 6, TURN, 8], [(0, 4), (4, 3), (7, 2)]),  # the first turn is longer than a row
        ([1, 2, 3, 4, 5, 6], [(0, 4), (4, 2)]),
        ([TURN, 1, 2, 3, TURN], [(0, 4), (4, 1)]),
        ([TURN, 1, 2, 3], [(0, 4)]),
        ([TURN, 1, TURN, ASSISTANT, TURN, 2, TURN, ASSISTANT], [(0, 4), (4, 4)]),
        ([TURN, 1, TURN, 2, TURN, ASSISTANT], [(0, 2), (2, 4)]),  # not before the answer, though that would fit too
        ([TURN, 1, 2, TURN, ASSISTANT, 3], [(0, 3), (3, 3)]),  # before the answer: there is no other turn
    ],
)
def test_long_conversations_are_cut_before_a_turn(ids: list[int], parts: list[tuple[int, int]]) -> None:
    assert cut_at_turns(np.array(ids), 4, ROLES) == parts


@examples(60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 3))
def test_an_epoch_holds_every_token_once_and_no_document_crosses_a_row(
    lengths: list[int], block_size: int, batch_size: int
) -> None:
    with new_folder() as folder:
        check_whole_rows(made_up_cache(folder, lengths), lengths, block_size, batch_size)


def check_whole_rows(cache: TokenCache, lengths: list[int], block_size: int, batch_size: int) -> None:
    """Check every row of two epochs."""
    rows = WholeRows(cache, block_size, None)
    assert rows.n_cut == sum(length > block_size for length in lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    all_rows = []
    for epoch in (0, 1):
        loader = PackedLoader(cache, block_size, batch_size, eot_id=EOT, seed=4, whole=rows)
        seen = []
        for index in range(loader.batches_per_epoch):
            batch = loader.batch(epoch, index)
            assert batch.n_targets == (batch.targets != IGNORED).sum()
            seen += [row[row != IGNORED].tolist() for row in batch.targets.reshape(-1, block_size)]
            assert (batch.inputs[..., 0] == EOT).all()
        assert sorted(t for row in seen for t in row) == sorted(cache.tokens(0, cache.n_tokens).tolist())
        for document, length in enumerate(lengths):
            ids = cache.tokens(int(offsets[document]), int(offsets[document + 1])).tolist()
            if length <= block_size:
                assert any(ids == row[i : i + length] for row in seen for i in range(len(row)))
        all_rows.append([row for row in seen if row])
    assert sorted(all_rows[0]) == sorted(all_rows[1])


def test_rows_are_small_and_name_their_documents(tmp_path: Path) -> None:
    cache = made_up_cache(tmp_path, [3, 9, 2])
    rows = WholeRows(cache, 4, None)
    assert rows._parts_by_row.dtype == np.uint32 and rows._parts_by_row.shape[1] == 3  # 12 bytes a part
    loader = PackedLoader(cache, 4, 2, eot_id=EOT, whole=rows)
    named = {d for index in range(loader.batches_per_epoch) for d in loader.documents(0, index)}
    assert named == {0, 1, 2}
