"""What two ranks do on emulated GPUs, which NCCL connects. test_ranks_on_gpus.py looks at it.

python -m tests.without_gpu.cupy.run tests.train.ranks_on_gpus PART CORPUS OUT, on the ranks of a
launcher. PART is sums, runs or left.
"""

from __future__ import annotations

import os
import pickle
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from autograd import DropoutStream, Parameter, Tape, Tensor, to_host
from npformer import Transformer, TransformerConfig, UserError
from tests.train.ranks_alike import after_step, random_batches, stopped_after
from tests.train.runs import settings
from train.adam import Adam
from train.corpora.batches import Place
from train.corpora.corpus import Corpus
from train.ranks.exchange import BucketedExchange
from train.ranks.ranks import ALONE, Ranks
from train.ranks.shares import steps
from train.ranks.world import world
from train.runs.run import Run
from train.settings import ModelSettings
from train.step import train_step
from train.trainer import Trainer

STEPS, BUCKET = 3, 4096  # bytes, of the 100 KB and more that the gradients have
STOPPED, LAST = 2, 4
RUN = settings(
    model=ModelSettings(preset="tiny", layers=1, d_model=32, d_ff=64, heads=2),
    backend="cupy",
    max_steps=LAST,
    accumulate=2,
    clip_norm=1.0,
    ema=0.9,
    validate_every=LAST,
    checkpoint_every=LAST,
)


def new_model() -> Transformer:
    config = TransformerConfig(51, layers=1, d_model=32, d_ff=64, heads=2, smoothing=0.1)
    return Transformer(config, seed=1)


def trained(precision: str, ranks: Ranks, transport: Any = None) -> dict[str, np.ndarray]:
    """A few steps, which the transport, if there is one, sums.

    Of each step: its numbers (loss, nll, norm), the gradients and the parameters after it."""
    model = new_model().to("cupy", precision)
    buffer = model.buffer
    optimizer = Adam(buffer)
    exchange = BucketedExchange(buffer, transport, BUCKET) if transport else None
    numbers, gradients, parameters = [], [], []
    coming = steps(random_batches(80), Place(), 1, ranks.rank, ranks.size)
    for step, (batches, part, _) in enumerate(islice(coming, STEPS), start=1):
        result = train_step(
            model,
            optimizer,
            [model.prepared(batch) for batch in batches],
            0.003,
            DropoutStream(1, step),
            0.5,
            part=part,
            exchange=exchange,
        )
        ranks.await_sums()
        numbers.append(to_host(result.numbers) / [result.target_tokens, result.target_tokens, 1])
        gradients.append(to_host(buffer.grads))
        parameters.append(to_host(buffer.values))
    found = {"numbers": numbers, "gradients": gradients, "parameters": parameters}
    return {name: np.stack(rows) for name, rows in found.items()}


def overlapped(ranks: Any) -> dict[str, Any]:
    """The backward pass of the first rank, while the other has not begun with its own."""
    model, transport = new_model().to("cupy"), ranks._between_gpus()
    exchange = BucketedExchange(model.buffer, transport, BUCKET)
    batch = model.prepared(next(steps(random_batches(80), Place())).batches[0])
    sent = []

    def completed(parameter: Parameter) -> None:
        exchange.completed(parameter)
        sent.append(exchange._sent)

    def recorded() -> tuple[Tape, Tensor, Any]:
        with Tape() as tape:
            loss, nll = model.losses(batch, None)
        return tape, loss, nll

    tape, loss, _ = recorded()
    tape.backward(loss)  # loads kernels and takes memory, for which a card may wait for all streams
    if ranks.rank == 1:
        ranks.all("the first has ended its backward pass")
    tape, loss, nll = recorded()
    exchange.begin(nll.reshape(1).copy())
    tape.backward(loss, completed=completed)
    is_pending = not transport._stream.done
    if ranks.rank == 0:
        ranks.all("the first has ended its backward pass")
    exchange.finish()
    ranks.await_sums()
    return {"sent": sent, "pending": is_pending, "gradients": to_host(model.buffer.grads)}


def mistaken(ranks: Any) -> str:
    """What a rank is told when a sum fails, here since its arrays have different sizes."""
    transport = ranks._between_gpus()
    array = new_model().to("cupy").buffer.values[: 100 + ranks.rank]
    try:
        transport.start_sum(array).wait()
        ranks.await_sums()
    except UserError as error:
        return str(error)
    return ""


def sums(ranks: Any) -> dict[Any, Any]:
    """All that needs no run. It works on two ranks that share a card, too."""
    import cupy

    ranks.choose_device("cupy")
    found: dict[Any, Any] = {"device": cupy.cuda.Device().id}
    alone = "float32" if ranks.is_first else "bf16"
    found["alone", alone] = trained(alone, ALONE)
    for precision in ("float32", "bf16"):
        found[precision] = trained(precision, ranks, ranks._between_gpus())
    found["overlapped"] = overlapped(ranks)
    return found


def runs(ranks: Any, corpus: Corpus, out: Path) -> dict[Any, Any]:
    """A run that is resumed, and in the end what is said of a failure."""
    if ranks.is_first:
        Trainer.start(RUN, corpus, Run(out / "alone")).train()
    stopped_after(Trainer.start(RUN, corpus, Run(out / "run"), ranks=ranks), STOPPED)
    Trainer.resume(RUN, corpus, Run(out / "run"), ranks=ranks).train()
    return {"mistaken": mistaken(ranks)}


def left(ranks: Any, corpus: Corpus, out: Path) -> None:
    """Train until the second rank goes in a step, as if killed, but so that no launcher minds."""

    def leave() -> None:
        if ranks.rank == 1:
            os._exit(0)

    after_step(Trainer.start(RUN, corpus, Run(out / "left"), ranks=ranks), 2, leave).train()


def main(part: str, corpus_directory: str, out: str) -> None:
    from autograd.cuda import gpu

    gpu._cublaslt = lambda: None  # otherwise emulated products would be timed, which takes long
    ranks, corpus, folder = world(), Corpus.open(Path(corpus_directory)), Path(out)
    if part == "left":
        left(ranks, corpus, folder)
    found = sums(ranks)
    if part == "runs":
        found |= runs(ranks, corpus, folder)
    results = ranks.all(found)
    if ranks.is_first:
        (folder / "found.pickle").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
