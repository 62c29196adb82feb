"""The batcher translates what waits together, fairly, and gives each job what is its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import SearchSettings
from npformer.long_lines import DividedLines
from npformer.service.batcher import Batcher, Batching
from npformer.service.errors import RefusedError
from npformer.service.jobs import Call, Texts, UntranslatableTextError
from npformer.service.metrics import Metrics
from tests.service.fakes import Echo, Moody, said
from tests.service.running import until

BEAM = SearchSettings(beam=2)
GREEDY = SearchSettings(beam=1)


@contextmanager
def batching(engine: Echo, queue: int = 10_000, **changes: float) -> Iterator[Batcher]:
    batcher = Batcher(engine, Metrics(), queue, Batching(**{"gather_seconds": 0, **changes}))
    try:
        yield batcher
    finally:
        engine.gate.set()
        batcher.close()


def texts(*sentences: list[int], settings: SearchSettings = BEAM) -> Texts:
    divided = DividedLines()
    for number, ids in enumerate(sentences, start=1):
        divided.add(number, [(ids, "")])
    return Texts(divided, settings)


def found(job: Texts) -> list[str]:
    return [translation.text for translation in job.result.result(60)]


@contextmanager
def while_busy(engine: Echo, batcher: Batcher) -> Iterator[None]:
    """What is submitted here waits for a batch that is translated meanwhile."""
    engine.close_gate()
    batcher.submit(texts([999]))
    assert engine.entered.wait(60)
    yield
    engine.batches.clear()
    engine.settings.clear()
    engine.gate.set()


def test_what_waits_is_translated_together() -> None:
    engine = Echo()
    jobs = [texts([i], [i, i]) for i in range(10)]
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            for job in jobs:
                batcher.submit(job)
            assert batcher.waiting == 20
        assert [found(job) for job in jobs] == [[f"{i}", f"{i} {i}"] for i in range(10)]
        assert batcher.waiting == 0
    assert len(engine.batches) == 1
    assert len(engine.batches[0]) == 20


def test_other_settings_make_another_batch() -> None:
    engine = Echo()
    jobs = [texts([i], settings=BEAM if i % 2 else GREEDY) for i in range(10)]
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            for job in jobs:
                batcher.submit(job)
        assert [found(job) for job in jobs] == [[f"{i}"] for i in range(10)]
    assert engine.settings == [GREEDY, BEAM]


def test_a_large_job_does_not_hold_up_a_small_one() -> None:
    engine = Echo()
    large, small = texts(*([[i] for i in range(1000)])), texts([7, 7])
    with batching(engine, rows=20) as batcher:
        with while_busy(engine, batcher):
            batcher.submit(large)
            batcher.submit(small)
        assert found(small) == ["7 7"]
        assert [7, 7] in engine.batches[0]
        assert found(large) == [str(i) for i in range(1000)]
    assert max(map(len, engine.batches)) == 10
    assert len(engine.batches) == 101


def test_large_jobs_share_the_places_of_a_batch() -> None:
    engine = Echo()
    jobs = [texts(*([[i] for _ in range(30)])) for i in range(3)]
    with batching(engine, rows=24) as batcher:
        with while_busy(engine, batcher):
            for job in jobs:
                batcher.submit(job)
        for job in jobs:
            found(job)
    for batch in engine.batches[:5]:
        assert {i: sum(ids == [i] for ids in batch) for i in range(3)} == {0: 4, 1: 4, 2: 4}


def test_a_large_job_of_other_settings_holds_up_a_small_one_for_two_batches_at_most() -> None:
    engine = Echo()
    large, small = texts(*([[i] for i in range(100)])), texts([7, 7], settings=GREEDY)
    with batching(engine, rows=20) as batcher:
        with while_busy(engine, batcher):
            batcher.submit(large)
            batcher.submit(small)
        found(small)
        assert [[7, 7]] in engine.batches[:2]
        found(large)


def test_a_batch_has_no_more_tokens_than_it_may() -> None:
    engine = Echo()
    jobs = [texts([i] * (i + 1)) for i in range(40)]
    with batching(engine, tokens=2 * 50) as batcher:
        with while_busy(engine, batcher):
            for job in jobs:
                batcher.submit(job)
        assert [found(job) for job in jobs] == [[said([i] * (i + 1))] for i in range(40)]
    for batch in engine.batches:
        assert len(batch) == 1 or len(batch) * (max(map(len, batch)) + 1) <= 50
    assert len(engine.batches) < 40


def test_nobody_translates_what_nobody_wants() -> None:
    engine = Echo()
    gone, stays = texts([1], [2]), texts([3])
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            batcher.submit(gone)
            batcher.submit(stays)
            gone.drop()
        assert found(stays) == ["3"]
    assert engine.batches == [[[3]]]


def test_a_failure_concerns_its_batch_alone(caplog: pytest.LogCaptureFixture) -> None:
    engine = Moody()
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            first, second = texts([1], [666]), texts([2])
            batcher.submit(first)
            batcher.submit(second)
        for job in (first, second):
            with pytest.raises(MemoryError):
                job.result.result(60)
        third = texts([3])
        batcher.submit(third)
        assert found(third) == ["3"]
    assert "a batch has failed" in caplog.text


def test_a_sentence_without_a_translation_concerns_its_job_alone() -> None:
    engine = Moody()
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            first, second = texts([1], [13], [5]), texts([2])
            batcher.submit(first)
            batcher.submit(second)
        with pytest.raises(UntranslatableTextError):
            first.result.result(60)
        assert found(second) == ["2"]


def test_a_full_queue_refuses_more_but_never_the_first() -> None:
    engine = Echo()
    with batching(engine, queue=3) as batcher:
        with while_busy(engine, batcher):
            large = texts(*([[i] for i in range(10)]))
            batcher.submit(large)
            with pytest.raises(RefusedError, match="10 sentences wait already, of 3") as refused:
                batcher.submit(texts([1]))
            assert (refused.value.status, refused.value.retry_after) == (503, 5)
        found(large)
        batcher.submit(again := texts([1]))
        assert found(again) == ["1"]


def test_no_text_and_a_blank_one_need_no_model() -> None:
    assert texts().result.result(0) == []
    divided = DividedLines()
    divided.add(1, [])
    [blank] = Texts(divided, BEAM).result.result(0)
    assert blank.text == ""


def test_a_call_takes_its_turn() -> None:
    engine = Echo()
    with batching(engine) as batcher:
        with while_busy(engine, batcher):
            calls = [Call(lambda: threading.current_thread().name), Call(lambda: 1 / 0)]
            job = texts([1])
            for each in (*calls, job):
                batcher.submit(each)
        assert calls[0].result.result(60) == "npformer-model"
        with pytest.raises(ZeroDivisionError):
            calls[1].result.result(60)
        assert found(job) == ["1"]


def test_those_that_were_answered_together_are_waited_for() -> None:
    """64 clients that ask again at once are translated in one batch again, and not as they come."""
    engine = Echo()
    with (
        batching(engine, gather_seconds=2, gather_share=1e9) as batcher,
        ThreadPoolExecutor(64) as pool,
    ):

        def client(number: int) -> None:
            for turn in range(5):
                job = texts([number, turn])
                batcher.submit(job)
                assert found(job) == [f"{number} {turn}"]

        with while_busy(engine, batcher):
            clients = [pool.submit(client, number) for number in range(64)]
            until(lambda: batcher.waiting == 64)
        for each in clients:
            each.result(60)
    assert [len(batch) for batch in engine.batches] == [64] * 5


def test_nobody_waits_for_those_that_do_not_ask_again() -> None:
    engine = Echo()
    with batching(engine, gather_seconds=0.2, gather_share=1e9) as batcher:
        for number in range(3):
            batcher.submit(job := texts([number]))
            assert found(job) == [f"{number}"]


def test_the_end_fails_what_waits() -> None:
    engine = Echo()
    batcher = Batcher(engine, Metrics(), 100)
    with while_busy(engine, batcher):
        batcher.submit(waits := texts([1]))
        closing = threading.Thread(target=batcher.close)
        closing.start()
    closing.join()
    with pytest.raises(RefusedError, match="stop"):
        batcher.submit(texts([2]))
    if isinstance(error := waits.result.exception(60), RefusedError):
        assert error.status == 503
    else:
        assert found(waits) == ["1"]
    assert not batcher.is_alive


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 8), min_size=1, max_size=12),
            st.sampled_from([BEAM, GREEDY]),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(2, 40),
    st.integers(10, 200),
)
@settings(max_examples=50)
def test_no_reply_is_lost_or_swapped(
    jobs: list[tuple[list[int], SearchSettings, bool]], rows: int, tokens: int
) -> None:
    """Whatever the jobs, the batches and who leaves: each gets its own, in order, and once."""
    engine = Echo()
    made = [
        (texts(*[[n, i] + [0] * length for i, length in enumerate(lengths)], settings=own), leaves)
        for n, (lengths, own, leaves) in enumerate(jobs)
    ]
    with batching(engine, rows=rows, tokens=tokens) as batcher:
        with while_busy(engine, batcher):
            for job, leaves in made:
                batcher.submit(job)
                if leaves:
                    job.drop()
        for n, (job, leaves) in enumerate(made):
            if not leaves:
                expected = [said([n, i] + [0] * length) for i, length in enumerate(jobs[n][0])]
                assert found(job) == expected
    translated = [tuple(ids) for batch in engine.batches for ids in batch]
    assert len(translated) == len(set(translated))
