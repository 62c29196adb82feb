"""The model cards of a run, of its best model and of averages: true, repeatable, and the user's."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from npformer import Parts
from npformer.layers import FeedForward
from npformer.model_card import CARD, is_own
from tests.integration.command_line import npformer
from tests.train.runs import assert_same_run, refusal, settings, start, stopped_at
from tests.train.small_corpus import PAIRS
from train.average import write_average
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.datasets.catalogue import WMT14_EN_DE
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.runs.training_data import TrainingData
from train.settings import TrainSettings
from train.settings_file import read_settings
from train.trainer import Trainer

CHOSEN = settings(
    max_steps=7,
    validate_every=1,
    bleu_every=2,
    bleu_beam=2,
    best_by="chrf",
    checkpoint_every=2,
    keep_checkpoints=3,
    source_language="en",
    target_language="no",
    license="cc-by-4.0",
)


@pytest.fixture(scope="module")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, which no test modifies."""
    out = tmp_path_factory.mktemp("finished") / "run"
    start(CHOSEN, corpus, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def text_of(directory: Path) -> str:
    return (directory / CARD).read_text()


def front_matter(directory: Path) -> dict[str, Any]:
    return yaml.safe_load(text_of(directory).split("---\n")[1])


def section(directory: Path, heading: str) -> str:
    found = re.search(rf"^## {heading}\n\n(.*?)\n\n(?:## |<!--)", text_of(directory), re.S | re.M)
    return found[1] if found else ""


def test_hubs_find_what_they_look_for(finished: Path) -> None:
    assert front_matter(finished) == {
        "language": ["en", "no"],
        "license": "cc-by-4.0",
        "library_name": "npformer",
        "pipeline_tag": "translation",
        "tags": ["translation"],
        "metrics": ["bleu", "chrf"],
    }


def test_each_score_has_its_signature_its_step_and_its_search(finished: Path) -> None:
    entries = {entry["step"]: entry for entry in read_metrics(finished) if "valid_loss" in entry}
    best = max((e for e in entries.values() if "chrf" in e), key=lambda entry: entry["chrf"])
    said = section(finished, "Scores")
    assert re.findall(r"set of 6 pairs, after step (\d+):", said) == ["6", "7"]
    for directory, entry in ((finished, entries[6]), (finished / "best", best)):
        said = section(directory, "Scores")
        assert f"step {entry['step']}:" in said
        assert f"loss {entry['valid_loss']:.3f} " in said
        assert f"BLEU {entry['bleu']:.2f}, sacreBLEU's signature `{entry['signature']}`" in said
        assert f"chrF {entry['chrf']:.2f}, sacreBLEU's signature `nrefs:1|" in said
        assert "beam 2 and length penalty 0.6" in said
    assert f"loss {entries[7]['valid_loss']:.3f} " in section(finished, "Scores")
    assert "trained for 7 steps" in text_of(finished)
    assert f"trained for {best['step']} steps; of its run's models it has the best chrF" in text_of(
        finished / "best"
    )


def test_the_card_shows_how_to_use_the_model(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = tmp_path / "model"
    write_average(finished, 2, model)
    lines = [source for source, _ in PAIRS[:3]]
    (model / "source.txt").write_text("".join(f"{line}\n" for line in lines))
    (model / "reference.txt").write_text("".join(f"{target}\n" for _, target in PAIRS[:3]))
    monkeypatch.chdir(model)
    shell, python = re.findall(r"```\w+\n(.*?)```", section(model, "Use"), re.S)
    words = shell.split()
    assert words[0] == "npformer"
    assert words[-4:] == ["<", "source.txt", ">", "translation.txt"]
    done = npformer(*words[1:-4], stdin=Path("source.txt").read_bytes())
    assert done.status == 0
    assert done.stdout.count(b"\n") == 3
    exec(python, {})
    assert capsys.readouterr().out.encode() == done.stdout
    [evaluation] = re.findall(r"```\w+\n(.*?)```", section(model, "Scores"), re.S)
    assert npformer(*evaluation.split()[1:]).stdout.splitlines()[-1].startswith(b"BLEU = ")


def test_nothing_of_the_machine_is_said(finished: Path) -> None:
    for directory in (finished, finished / "best"):
        text = text_of(directory)
        assert str(finished.parent) not in text
        assert str(Run(finished).identity.id) not in text
        assert "second" not in text
        assert "numpy" not in text


def test_a_mean_has_the_runs_data_and_settings_but_not_its_scores(
    finished: Path, tmp_path: Path
) -> None:
    write_average(finished, 3, tmp_path / "model")
    mean = tmp_path / "model"
    for heading in ("Data", "Training", "Model", "Licence", "Use"):
        assert section(mean, heading) == section(finished, heading) != ""
    assert "the mean of 3 checkpoints of a run, after steps 4, 6, 7." in text_of(mean)
    assert "npformer evaluate" in section(mean, "Scores")
    assert not re.search(r"BLEU \d|chrF|loss", section(mean, "Scores"))
    expected = front_matter(finished)
    del expected["metrics"]
    assert front_matter(mean) == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.state.unlink(),
        lambda run: run.state.write_bytes(b"{}"),
        lambda run: shutil.rmtree(run.state.parent),
    ],
)
def test_a_mean_is_taken_where_the_state_is_lost(run: Path, change: Callable[[Run], None]) -> None:
    change(Run(run))
    write_average(run, 2, run.parent / "model")
    text = text_of(run.parent / "model")
    assert "checkpoints of a run, after steps 6, 7." in text
    assert "## Training" not in text


def test_a_run_that_was_stopped_ends_with_the_same_cards(
    corpus: Corpus, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    stopped_at(5, CHOSEN, corpus, out)
    Trainer.resume(CHOSEN, corpus, Run(out)).train()
    assert_same_run(out, finished)
    assert text_of(out) == text_of(finished)


def test_resuming_writes_the_cards_that_are_lost(corpus: Corpus, run: Path, finished: Path) -> None:
    (run / CARD).replace(run / "best" / CARD)  # one is missing, and one of another model
    Trainer.resume(CHOSEN, corpus, Run(run)).run.unlock()
    assert text_of(run) == text_of(finished)
    assert text_of(run / "best") == text_of(finished / "best")


def test_what_the_user_has_written_is_left_alone_and_told_once(
    corpus: Corpus, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = text_of(run).replace("## Use", "## How we use it")
    (run / CARD).write_text(mine)
    longer = dataclasses.replace(CHOSEN, max_steps=12)
    Trainer.resume(longer, corpus, Run(run)).train()
    assert text_of(run) == mine
    [record] = [r.getMessage() for r in caplog.records if CARD in r.getMessage()]
    assert f"{run / CARD} is not as npformer wrote it, and is left alone" in record
    assert is_own(run / "best" / CARD)


def test_the_best_models_card_stays_when_its_score_is_forgotten(corpus: Corpus, run: Path) -> None:
    before = text_of(run / "best")
    changed = dataclasses.replace(CHOSEN, bleu_beam=1, best_by="bleu")
    Trainer.resume(changed, corpus, Run(run)).run.unlock()
    assert text_of(run / "best") == before


def test_no_score_is_claimed_before_the_first_validation(corpus: Corpus, tmp_path: Path) -> None:
    Trainer.start(CHOSEN, corpus, Run(tmp_path / "run"))
    assert "trained for 0 steps" in text_of(tmp_path / "run")
    assert section(tmp_path / "run", "Scores") == ""


def test_fine_tuning_is_said(corpus: Corpus, finished: Path, tmp_path: Path) -> None:
    chosen = dataclasses.replace(CHOSEN, init_from=str(finished), max_steps=1, best_by="none")
    start(chosen, corpus, tmp_path / "run")
    assert "1 step from the parameters of another model on." in text_of(tmp_path / "run")
    assert str(finished) not in text_of(tmp_path / "run")


class OwnFeedForward(FeedForward):
    """One that no model directory holds."""


def test_classes_of_its_own_are_named_and_have_to_be_passed(corpus: Corpus, tmp_path: Path) -> None:
    parts, chosen = Parts(feed_forward=OwnFeedForward), settings(max_steps=1, validate_every=9)
    Trainer.start(chosen, corpus, Run(tmp_path / "run"), parts).train()
    write_average(tmp_path / "run", 1, tmp_path / "model", parts)
    for directory in (tmp_path / "run", tmp_path / "model"):
        said = section(directory, "Use")
        assert "`feed_forward` is `OwnFeedForward`" in said
        assert "parts = Parts(feed_forward=OwnFeedForward)" in said
        assert "npformer translate" not in said


def test_unfinished_cards_are_removed_on_resuming(corpus: Corpus, run: Path) -> None:
    for directory in (run, run / "best"):
        (directory / ".README.md.0123abcd.tmp").write_text("half")
    Trainer.resume(CHOSEN, corpus, Run(run)).run.unlock()
    assert not list(run.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["source_language", "target_language"])
@pytest.mark.parametrize(
    "code", ["", "English", "EN", "en_US", "en\nlicense: mit", "en: de", '"', "en|de", "дe", "e"]
)
def test_what_is_no_code_of_a_language_is_refused(name: str, code: str) -> None:
    message = refusal(lambda: TrainSettings(**{name: code}))
    assert message.startswith(f"{name} must be the code of a language, such as en or pt-BR; it is")


@pytest.mark.parametrize(
    "code", ["", "MIT", "my licence", "mit\n", "mit: x", "'mit", "-", "x" * 65]
)
def test_what_is_no_identifier_of_a_licence_is_refused(code: str) -> None:
    message = refusal(lambda: TrainSettings(license=code))
    assert message.startswith("license must be an identifier of a licence in lower case, such as")


def test_norwegian_is_a_language_in_a_file_of_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("target_language: no\nsource_language: pt-BR\n")
    assert read_settings(path) == {"target_language": "no", "source_language": "pt-BR"}


def test_data_is_described_by_its_dataset_and_its_filters(tmp_path: Path) -> None:
    paths = []
    for split, pairs in (
        ("train|`a`\n", [*PAIRS, ("", "leer")]),
        ("valid", [*PAIRS[::7], ("", "")]),
    ):
        for side, language in ((1, "de"), (0, "en")):
            path = tmp_path / f"{split}.{language}"
            path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
            paths.append(path)
    plain = prepare(*paths, tmp_path / "plain", vocab_size=300)
    facts = plain.manifest["files"]["train"]
    origins = {
        facts[side][0]["sha256"]: {"dataset": WMT14_EN_DE.name, "language": language}
        for side, language in (("source", "de"), ("target", "en"))
    }
    corpus = prepare(*paths, tmp_path / "corpus", vocab_size=300, origins=origins)
    assert corpus.fingerprint == plain.fingerprint
    start(settings(max_steps=1), corpus, tmp_path / "run")
    found = front_matter(tmp_path / "run")
    assert found["language"] == ["de", "en"]
    assert found["datasets"] == ["wmt/wmt14"]
    assert "license" not in found
    said = section(tmp_path / "run", "Data")
    assert "trained on 36 pairs of sentences, and validated on 7." in said
    assert "Texts of training: `` train|`a`\ufffd.de ``, `` train|`a`\ufffd.en ``." in said
    assert f"- {WMT14_EN_DE.about}: {WMT14_EN_DE.terms}." in said
    assert "left out: 1 empty on a side." in said
    assert text_of(tmp_path / "run").splitlines()[0] == "---"
    assert "# Transformer for translation, de to en\n" in text_of(tmp_path / "run")

    start(settings(max_steps=1), plain, tmp_path / "unknown")
    assert not {"language", "datasets"} & front_matter(tmp_path / "unknown").keys()
    assert "# Transformer for translation\n" in text_of(tmp_path / "unknown")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("pairs"),
        lambda values: values.update(pairs="many"),
        lambda values: values.update(texts="a.en"),
        lambda values: values.update(texts=[1]),
        lambda values: values.update(source=None),
        lambda values: values.update(source="en\nlicense: mit"),
        lambda values: values.update(more=1),
    ],
)
def test_a_damaged_description_of_the_data_is_refused(
    corpus: Corpus, change: Callable[[dict[str, Any]], object]
) -> None:
    values = TrainingData.of(corpus).to_dict()
    assert TrainingData.from_dict(values, Path("state")) == TrainingData.of(corpus)
    change(values)
    assert "state is damaged" in refusal(lambda: TrainingData.from_dict(values, Path("state")))
