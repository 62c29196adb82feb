"""Training on other backends: the same run, portable checkpoints, refusals."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autograd import backend
from npformer import UserError
from npformer.checkpoint import load_arrays
from tests.train.runs import refusal, settings
from tests.without_gpu.strict_arrays import StrictArray
from train.corpora.corpus import Corpus
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.trainer import Trainer


def losses(directory: Path) -> list[float]:
    return [e.get("loss", e.get("valid_loss")) for e in read_metrics(directory)]


def test_a_run_on_another_backend_is_the_same_and_resumes_on_either(
    corpus: Corpus, tmp_path: Path
) -> None:
    Trainer.start(settings(), corpus, Run(tmp_path / "numpy")).train()
    elsewhere = Trainer.start(
        settings(backend="strict", max_steps=4), corpus, Run(tmp_path / "run")
    )
    elsewhere.train()
    assert isinstance(elsewhere.model.buffer.values, StrictArray)
    assert isinstance(elsewhere.optimizer.first, StrictArray)
    back = Trainer.resume(settings(), corpus, Run(tmp_path / "run"))
    back.train()
    assert isinstance(back.model.buffer.values, np.ndarray)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(tmp_path / "numpy"), rtol=1e-4)


def test_a_run_in_bfloat16_saves_float32(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(backend="strict", precision="bf16", max_steps=2, validate_every=2)
    Trainer.start(chosen, corpus, Run(tmp_path / "run")).train()
    arrays, _ = load_arrays(tmp_path / "run" / "model.safetensors")
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}
    rounded = arrays["embedding"].astype(backend.bfloat16()).astype(np.float32)
    assert (rounded != arrays["embedding"]).any()
    assert Trainer.resume(settings(max_steps=3), corpus, Run(tmp_path / "run")).train().step == 3


def test_a_batch_that_does_not_fit_names_the_setting_to_change(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(settings(), corpus, Run(tmp_path / "run"))

    def exhausted(*arguments: Any) -> None:
        raise MemoryError("Out of memory allocating 9 bytes")

    monkeypatch.setattr("train.loop.train_step", exhausted)
    message = refusal(trainer.train)
    assert message.startswith("out of memory at step 1 (")
    assert "lower batch_tokens, which is 150, and raise accumulate" in message
    assert "allocating 9 bytes" in message
    monkeypatch.undo()
    assert Trainer.resume(settings(max_steps=1), corpus, Run(tmp_path / "run")).train().step == 1


def test_a_model_that_does_not_fit_says_how_large_it_is(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*arguments: Any) -> None:
        raise MemoryError("Out of memory")

    monkeypatch.setattr("train.adam.Adam", exhausted)
    message = refusal(lambda: Trainer.start(settings(), corpus, Run(tmp_path / "run")))
    assert "parameters and its optimizer do not fit into memory" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_of_gpus_is_refused_on_numpy(precision: str) -> None:
    with pytest.raises(UserError, match=f"precision {precision} needs a GPU"):
        dataclasses.replace(settings(), precision=precision)
