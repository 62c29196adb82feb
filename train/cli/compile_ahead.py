"""Compiles the CPU's loops in a separate process, while this one does other things.

Compiled loops are cached on disk. The process that needs them loads those that are ready and
compiles the others itself. It needs those of the forward pass first, so this starts with others.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import signal
from typing import Any

import numpy as np

from autograd import DropoutStream, Tape, Tensor, ops
from autograd.backend import backend_of
from autograd.operation import Function
from npformer.batch import Batch
from npformer.beam_search import search
from npformer.config import TransformerConfig
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer
from train.adam import Adam
from train.step import train_step


def compile_ahead(config: TransformerConfig) -> None:
    """Start compiling the loops for training such a model, and then those for translation.

    The process ends by itself, or with this one. Without numba it is not started.
    """
    if importlib.util.find_spec("numba"):
        # Not by fork, which copies the locks of this process's threads without the threads.
        process = multiprocessing.get_context("spawn").Process(
            target=_compile, args=(config,), daemon=True
        )
        process.start()


def _compile(config: TransformerConfig) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent process
    assert config.d_k is not None
    assert config.d_v is not None
    model = Transformer(config)
    optimizer = Adam(model.buffer)
    lines = [[0] * 8] * 8  # so many tokens that loops cut them by rows; a search does not
    batch = Batch.of(lines, lines, begin_id=0, end_id=0)
    sentences, targets = batch.source.sentences, batch.target_output.tokens

    def of_width(width: int) -> Tensor:
        return Tensor(np.ones((len(targets), width), np.float32))

    _forward_and_backward(
        ops.attention,
        of_width(config.heads * (2 * config.d_k + config.d_v)),
        heads=config.heads,
        d_k=config.d_k,
        sentences=sentences,
    )
    _forward_and_backward(
        ops.projected_cross_entropy, of_width(config.d_model), model.projection, targets=targets
    )
    large = np.zeros(1 << 14, np.float32)
    backend_of(large).add_to(large, large)  # the gradients of longer batches
    train_step(model, optimizer, [batch], 0.0, DropoutStream(0, 1))  # everything else
    search(model, batch.source, SearchSettings(extra_length=1))


def _forward_and_backward(operation: Function, *arguments: Tensor, **settings: Any) -> None:
    """Run an operation and its gradient."""
    with Tape() as tape:
        result = operation(*arguments, **settings)
    first: Tensor = result[0] if isinstance(result, tuple) else result
    tape.backward(first, np.ones_like(first.value))
