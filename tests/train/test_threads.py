"""Training and translating in several threads at once gives the same results as alone."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from autograd import DropoutStream
from npformer import Batch, Packed, Transformer, TransformerConfig
from npformer.beam_search import search
from npformer.search_settings import SearchSettings
from train.adam import Adam
from train.step import train_step

CONFIG = TransformerConfig(
    vocab_size=300, layers=2, d_model=64, d_ff=128, heads=4, dropout=0.1, attention_dropout=0.1
)


def sentences(seed: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 300, rng.integers(1, 20)).tolist() for _ in range(count)]


def trained(seed: int) -> bytes:
    """The parameters after some steps, bit for bit."""
    model = Transformer(CONFIG, seed=seed)
    optimizer = Adam(model.buffer)
    batch = Batch.of(sentences(seed, 40), sentences(seed + 1, 40), begin_id=1, end_id=2)
    for step in range(8):
        train_step(model, optimizer, [batch], 1e-3, DropoutStream(seed, step))
    return np.asarray(model.buffer.values).tobytes()


def translated(seed: int) -> list[Any]:
    """The translations of random sentences by a random model."""
    model = Transformer(CONFIG, seed=seed)
    source = Packed.of([[*s, 2] for s in sentences(seed, 12)])
    return [search(model, source, SearchSettings(beam, extra_length=8)) for beam in (1, 4)]


def test_four_threads_train_and_translate_as_one_does() -> None:
    jobs: list[tuple[Callable[[int], Any], int]] = [
        (trained, 0),
        (translated, 1),
        (trained, 2),
        (translated, 3),
    ]
    alone = [job(seed) for job, seed in jobs]
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        job, seed = jobs[number]
        found[number] = [job(seed) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        assert found[number] == [expected] * 3
