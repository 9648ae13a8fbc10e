"""Jobs in the decoding thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers_model import tiny_config, unigram_model
from helpers_serving import N_VOCAB, TOKENIZER, tiny_model

from generation import Sampling, generate
from serving.engine import Busy, Engine, Job
from serving.text import Piece


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(tiny_model(), TOKENIZER, n_rows=3, n_waiting=8)
    yield made
    made.close()


class Reader:
    """Collects the pieces of a job."""

    def __init__(
        self, prompt: list[int], max_tokens: int = 20, sampling: Sampling | None = None, **options: Any
    ) -> None:
        self.pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        given = {"seed": 1, "stop_ids": (), "stops": ()} | options
        self.job = Job(prompt, max_tokens, sampling or Sampling(), tell=self.pieces.put, **given)

    def result(self) -> Piece:
        """All pieces as one."""
        whole = Piece()
        while whole.finish is None:
            whole.add(self.pieces.get(timeout=20))
        return whole

    def ids(self) -> list[int]:
        return [token.id for token in self.result().tokens]


def by_generate(engine: Engine, prompt: list[int], n: int, sampling: Sampling, seed: int) -> list[int | None]:
    generator = torch.Generator().manual_seed(seed)
    return [token for (token,) in generate(engine.model, prompt, max_tokens=n, sampling=sampling, generator=generator)]


SAMPLINGS = [
    Sampling(), Sampling(temperature=0), Sampling(temperature=1.5, top_k=0), Sampling(top_p=0.8),
    Sampling(top_k=0, top_p=0.7), Sampling(repetition_penalty=1.7), Sampling(),
]  # fmt: skip


def test_jobs_with_their_own_sampling_and_seed_write_what_generate_writes(engine: Engine) -> None:
    readers = [Reader([5, 6, number], 40, sampling, seed=number) for number, sampling in enumerate(SAMPLINGS)]
    for reader in readers[:3], readers[3:]:
        engine.submit([one.job for one in reader])
    for number, (reader, sampling) in enumerate(zip(readers, SAMPLINGS, strict=True)):
        assert reader.ids() == by_generate(engine, [5, 6, number], 40, sampling, number), sampling


def test_a_job_ends_at_a_stop_token_which_it_does_not_tell(engine: Engine) -> None:
    written = by_generate(engine, [7], 20, Sampling(), 1)
    reader = Reader([7], stop_ids={written[5]})
    engine.submit([reader.job])
    result = reader.result()
    assert [token.id for token in result.tokens] == written[: written.index(written[5])]
    assert result.finish == "stop"


def test_a_stop_string_ends_the_decoding(engine: Engine) -> None:
    text = TOKENIZER.decode(t for t in by_generate(engine, [7], 20, Sampling(), 1) if t is not None)
    stop = text[9:11]
    reader = Reader([7], stops=[stop])
    engine.submit([reader.job])
    result = reader.result()
    assert (result.text, result.finish) == (text[: text.index(stop)], "stop")
    assert len(result.tokens) < 20


def test_penalties_lower_the_logits_of_written_tokens_only() -> None:
    """All logits are 0 but three: with a presence penalty, the likeliest is written once, then the next."""
    model = unigram_model(tiny_config(vocab_size=TOKENIZER.padded_vocab_size), {10: 3.0, 11: 2.5, 12: 1.1}, N_VOCAB)
    engine = Engine(model, TOKENIZER, 2, 4)
    greedy = Sampling(temperature=0)
    presence = Reader([10], 6, greedy, presence_penalty=2.0)
    frequency = Reader([10], 6, greedy, frequency_penalty=1.0)
    engine.submit([presence.job, frequency.job])
    assert presence.ids() == [10, 11, 12, 10, 10, 10]  # 3, 2.5, 1.1, then 3 - 2 for ever
    assert frequency.ids() == [10, 11, 10, 11, 12, 10]  # 3, 2.5, 2, 1.5, 1.1, then 3 - 2
    engine.close()


def test_log_probabilities_are_the_models_own(engine: Engine) -> None:
    reader = Reader([7, 8], 5, Sampling(temperature=2.0, top_k=3), n_top=4, presence_penalty=1.0)
    engine.submit([reader.job])
    window = [7, 8]
    for token in reader.result().tokens:
        logprobs = engine.model(torch.tensor([window]))[0, -1, :N_VOCAB].log_softmax(-1)
        values, ids = logprobs.topk(4)
        assert token.logprob == pytest.approx(logprobs[token.id].item(), abs=1e-5)
        assert [i for i, _ in token.top] == ids.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-5)
        window.append(token.id)


def test_a_cancelled_job_ends_and_gives_its_row_to_one_that_waits() -> None:
    engine = Engine(tiny_model(), TOKENIZER, n_rows=1, n_waiting=2)
    endless, second, third = Reader([1], 10**9), Reader([2], 5), Reader([3], 5)
    engine.submit([endless.job])
    endless.pieces.get(timeout=20)
    engine.submit([second.job, third.job])
    with pytest.raises(Busy):
        engine.submit([Reader([4]).job])
    engine.cancel([second.job])  # while it waits
    engine.cancel([endless.job])
    assert endless.result().finish == "stop"
    assert third.result().finish == "length"
    assert second.pieces.empty()
    engine.close()


def test_a_deadline_ends_a_job(engine: Engine) -> None:
    reader = Reader([1], 10**9, deadline=0.0)
    engine.submit([reader.job])
    result = reader.result()
    assert (result.finish, len(result.tokens)) == ("length", 1)


def test_logits_that_are_not_numbers_end_jobs_with_a_sentence_and_the_engine_goes_on(engine: Engine) -> None:
    weight = engine.model.transformer.ln_f.weight
    good = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    broken = Reader([1])
    engine.submit([broken.job])
    result = broken.result()
    assert result.finish == "error" and "not finite numbers" in result.error
    with torch.no_grad():
        weight.copy_(good)
    healthy = Reader([1], 5)
    engine.submit([healthy.job])
    assert healthy.ids() == by_generate(engine, [1], 5, Sampling(), 1)


def test_a_text_whose_logits_are_not_numbers_ends_alone_and_leaves_nothing_behind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keys and values may be NaN, in the row that another text takes."""
    step = engine._decoder.step

    def broken_row() -> torch.Tensor:
        logits = step()
        if len(logits) == 2 and len(engine._decoder.windows[0]) == 4:
            engine._decoder.cache.values[:, 0] = torch.nan
            logits[0, 5] = torch.nan
        return logits

    monkeypatch.setattr(engine._decoder, "step", broken_row)
    readers = [Reader([7], 30), Reader([8], 30)]
    engine.submit([reader.job for reader in readers])
    assert readers[0].result().error
    assert readers[1].ids() == by_generate(engine, [8], 30, Sampling(), 1)
    monkeypatch.undo()
    after = [Reader([number], 20, seed=number) for number in range(3)]
    engine.submit([reader.job for reader in after])
    for number, reader in enumerate(after):
        assert reader.ids() == by_generate(engine, [number], 20, Sampling(), number)


def test_an_unexpected_error_ends_the_jobs_and_the_engine_goes_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine._decoder, "step", lambda: 1 / 0)
        broken = Reader([1])
        engine.submit([broken.job])
        assert broken.result().error == "The model could not decode; the server's log says why."
    healthy = Reader([1], 3)
    engine.submit([healthy.job])
    assert healthy.result().finish == "length"


def test_calls_run_in_the_engines_thread_and_tell_their_errors(engine: Engine) -> None:
    assert engine.call(threading.get_ident).result(20) not in (threading.get_ident(), None)
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0).result(20)


def test_closing_ends_what_runs_and_what_waits() -> None:
    engine = Engine(tiny_model(), TOKENIZER, n_rows=1, n_waiting=4)
    readers = [Reader([number], 10**9) for number in range(3)]
    engine.submit([reader.job for reader in readers])
    readers[0].pieces.get(timeout=20)
    engine.close()
    assert {reader.result().error for reader in readers} == {"The server is shutting down."}
    with pytest.raises(Busy):
        engine.submit([readers[0].job])
    with pytest.raises(Busy):
        engine.call(int)
