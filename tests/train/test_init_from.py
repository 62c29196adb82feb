"""A run that starts from a model takes its parameters, and nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from npformer.checkpoint import load_arrays, parameter_arrays, save_arrays
from tests.train.runs import SETTINGS, assert_same_run, refusal, settings, start, stopped_at
from tests.train.small_corpus import make_corpus
from train.assembly import configuration
from train.cli.settings_words import with_settings_of_files
from train.corpora.corpus import Corpus
from train.runs.init_from import model_settings
from train.runs.run import Run
from train.settings import settings_from_dict
from train.settings_file import read_settings
from train.trainer import Trainer


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, whose directory is a model directory."""
    out = tmp_path_factory.mktemp("model") / "run"
    start(SETTINGS, corpus, out)
    return out


def test_only_the_parameters_of_the_model_are_used(
    corpus: Corpus, model: Path, tmp_path: Path
) -> None:
    chosen = settings(init_from=str(model), seed=8)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "tuned"))
    expected, _ = load_arrays(model / "model.safetensors")
    for name, values in parameter_arrays(trainer.model).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    assert (trainer.position.step, trainer.position.epoch, trainer.optimizer.steps) == (0, 0, 0)
    assert not any(array.any() for array in trainer.optimizer.state().values())
    assert read_settings(trainer.run.settings)["init_from"] == str(model)


def test_a_fine_tuned_run_resumes_without_its_initial_model(
    corpus: Corpus, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model"
    start(settings(max_steps=1), corpus, copy)
    chosen = settings(init_from=str(copy))
    start(chosen, corpus, tmp_path / "whole")
    stopped_at(4, chosen, corpus, tmp_path / "parts")
    copy.rename(tmp_path / "gone")
    Trainer.resume(chosen, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    message = refusal(lambda: Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")))
    assert "init_from is " in message
    assert "and cannot become None" in message


def test_other_tokenizers_are_refused(corpus: Corpus, model: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path, vocab_size=301)
    chosen = settings(init_from=str(model))
    message = refusal(lambda: Trainer.start(chosen, other, Run(tmp_path / "run")))
    assert "has tokenizers that differ from those of the model" in message
    assert f"prepare the corpus with --tokenizer {model}" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", [{"d_ff": 16}, {"norm": "pre"}, {"layers": 2}])
def test_other_sizes_are_refused(
    corpus: Corpus, model: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    chosen = settings(init_from=str(model), model=dataclasses.replace(SETTINGS.model, **change))
    message = refusal(lambda: Trainer.start(chosen, corpus, Run(tmp_path / "run")))
    [(name, value)] = change.items()
    assert f"the model {model} has {name} = " in message
    assert f"cannot have {value!r}" in message
    assert not (tmp_path / "run").exists()


def test_dropout_and_smoothing_may_differ(corpus: Corpus, model: Path, tmp_path: Path) -> None:
    changed = dataclasses.replace(SETTINGS.model, dropout=0.0, smoothing=0.2)
    chosen = settings(init_from=str(model), model=changed)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    assert (trainer.model.config.dropout, trainer.model.config.smoothing) == (0.0, 0.2)


@pytest.mark.parametrize("damage", ["flipped", "not finite", "none"])
def test_a_damaged_model_is_refused(
    corpus: Corpus, model: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "model"
    start(settings(max_steps=1), corpus, copy)
    path = copy / "model.safetensors"
    if damage == "flipped":
        content = bytearray(path.read_bytes())
        content[-9] ^= 4
        path.write_bytes(content)
    elif damage == "not finite":
        arrays, about = load_arrays(path)
        arrays["embedding"][3, 2] = np.nan
        save_arrays(path, arrays, about)
    else:
        path.unlink()
    chosen = settings(init_from=str(copy))
    assert str(path) in refusal(lambda: Trainer.start(chosen, corpus, Run(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_model_may_be_given_by_another_path_to_it(
    corpus: Corpus, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    stopped_at(4, settings(init_from=model.name), corpus, tmp_path / "run")
    (tmp_path / "link").symlink_to(model)
    for path in (f"./{model.name}/", str(model), str(tmp_path / "link")):
        told: list[str] = []
        chosen = settings(init_from=path)
        Trainer.resume(chosen, corpus, Run(tmp_path / "run"), tell=told.append).run.unlock()
        assert not any("init_from" in line for line in told)
    other = settings(init_from=str(tmp_path / "run"))
    message = refusal(lambda: Trainer.resume(other, corpus, Run(tmp_path / "run")))
    assert "init_from is " in message


def test_a_tuned_model_still_takes_the_longest_sentences_of_the_first(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Though the corpus that it is tuned on may have shorter ones only."""
    longer = dataclasses.replace(SETTINGS.model, longest=99)
    start(settings(max_steps=1, model=longer), corpus, tmp_path / "first")
    assert corpus.longest_source < 99
    tuned = settings_from_dict({"model": model_settings(tmp_path / "first")})
    assert configuration(tuned, corpus).longest == 99


def test_a_preset_beside_the_model_leaves_how_long_its_sentences_were(
    corpus: Corpus, tmp_path: Path
) -> None:
    longer = dataclasses.replace(SETTINGS.model, longest=99)
    start(settings(model=longer), corpus, tmp_path / "first")
    words = ["--init_from", str(tmp_path / "first"), "--model.preset", "tiny"]
    assert with_settings_of_files(words) == ["--model.longest=99", *words]
