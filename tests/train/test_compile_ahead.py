"""The loops compiled ahead are those that training and translation run."""

import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from autograd import DropoutStream
from autograd.cpu.loops import Compiled
from npformer.batch import Batch
from npformer.beam_search import search
from npformer.transformer import Transformer
from train.adam import Adam
from train.cli.compile_ahead import _compile
from train.grammar_recipe import grammar_settings
from train.evaluation import likelihood
from train.step import train_step

asked_for = []
made = Compiled._made

def record(function, kinds):
    asked_for.append((function.__name__, kinds))
    return made(function, kinds)

Compiled._made = record
settings = grammar_settings()
config = settings.transformer_config(2_000, source_vocab_size=2_000)
_compile(config)
compiled = len(asked_for)

model = Transformer(config)
ids = np.random.default_rng(0).integers(3, 2_000, (20, 10)).tolist()
batch = Batch.of(ids, ids, begin_id=1, end_id=2)
train_step(model, Adam(model.buffer), [batch], 1e-3, DropoutStream(1, 1), settings.clip_norm)
likelihood(model, [batch])
search(model, batch.source)
print(compiled, asked_for[compiled:])
"""


def test_no_loop_is_left_to_compile() -> None:
    pytest.importorskip("numba")
    # In a separate process, which has not compiled or loaded any loop yet.
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    compiled, left = ran.stdout.split(" ", 1)
    assert int(compiled) > 10
    assert left.strip() == "[]"
