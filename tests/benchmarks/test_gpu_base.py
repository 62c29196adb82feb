"""benchmarks/gpu_base.py, the paper's base model on real text, runs a tiny model on NumPy."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autograd import references
from benchmarks import gpu_base, gpu_recipe
from train.grammar import generate
from train.schedule import Schedule
from train.settings import settings_from_dict

VOCABULARY = "500"
TOY = """
model: {preset: tiny, layers: 1, d_model: 32, d_ff: 64, heads: 2}
max_steps: 8000
batch_tokens: 600
warmup: 10
"""


SEARCH = dict(gpu_base.SEARCH)


@pytest.fixture(autouse=True)
def _made_fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run without compiled loops, which take longer to compile than a toy takes without them, and
    limit translations, which an untrained model never ends."""
    monkeypatch.setitem(gpu_base.SEARCH, "extra_length", 3)
    with references():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of NPFORMER_DATA, of generated text: 300 pairs, and 4 per test set."""
    folder = tmp_path_factory.mktemp("data")
    generated = generate(pairs=300, held_out=30, seed=0)
    parts = {
        **{path: generated.train[i::3] for i, path in enumerate(gpu_base.TRAIN)},
        **{path: generated.test[4 * i :][:4] for i, path in enumerate(gpu_base.TESTS.values())},
    }
    for path, pairs in parts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        for language, side in (("en", "source"), ("de", "target")):
            lines = "".join(f"{getattr(pair, side)}\n" for pair in pairs)
            (folder / f"{path}.{language}").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def prepared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, prepared as `make runs/gpu/base` does."""
    corpus = tmp_path_factory.mktemp("prepared") / "base"
    to_prepare = ["--data", str(data), "--corpus", str(corpus), "--vocabulary", VOCABULARY]
    gpu_base.main([*to_prepare, "--only-prepare"])
    return corpus


@pytest.fixture
def toy(prepared: Path, tmp_path: Path) -> list[str]:
    """Arguments for a run on NumPy, with a model of a few thousand parameters."""
    config = tmp_path / "toy.yaml"
    config.write_text(TOY)
    on_numpy = ["--backend", "numpy", "--precision", "float32"]
    corpus = ["--corpus", str(prepared), "--vocabulary", VOCABULARY]
    return [*corpus, "--config", str(config), *on_numpy]


def result_of(arguments: list[str], out: Path) -> dict[str, Any]:
    gpu_base.main([*arguments, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_run_goes_from_text_to_scores(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = result_of([*toy, "--steps", "20"], tmp_path / "base.json")
    assert json.loads(capsys.readouterr().out.split("\n")[-2]) == result
    assert (result["benchmark"], result["config"], result["steps"]) == ("gpu_base", "toy", 20)
    logged = [entry for entry in result["curve"] if "loss" in entry]
    validated = [entry for entry in result["curve"] if "valid_loss" in entry]
    assert [entry["step"] for entry in logged] == [4, 8, 12, 16, 20]
    assert [entry["step"] for entry in validated] == [4, 8, 12, 16, 20]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.3
    assert validated[-1]["valid_loss"] < validated[0]["valid_loss"]
    assert list(result["scores"]) == list(gpu_base.TESTS)
    for score in result["scores"].values():
        assert 0 <= score["bleu"] <= 100
        assert score["sentences"] == 4
        assert "case:mixed" in score["signature"]
        assert "tok:13a" in score["signature"]


def test_pre_norm_is_trained_in_as_many_steps(
    toy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "base.json"
    result = result_of([*toy, "--pre-norm", "--steps", "5"], out)
    assert json.loads(capsys.readouterr().out.split("\n")[-2]) == result
    pre = result["pre_norm"]
    assert result["steps"] == pre["steps"] == 5
    assert len(pre["curve"]) == len(result["curve"]) == 10
    assert pre["curve"] != result["curve"]
    assert (result["norm"], pre["norm"]) == ("post", "pre")
    assert set(result["ahead"]) == set(gpu_base.TESTS)
    for name, ahead in result["ahead"].items():
        difference = result["scores"][name]["bleu"] - pre["scores"][name]["bleu"]
        assert ahead == pytest.approx(difference, abs=0.006)
    assert out.with_suffix(".pre-norm.txt").is_file()
    assert out.with_suffix(".txt").is_file()


def test_translations_are_saved_beside_the_result(
    toy: list[str], data: Path, tmp_path: Path
) -> None:
    result_of([*toy, "--steps", "2"], tmp_path / "base.json")
    lines = (tmp_path / "base.txt").read_text(encoding="utf-8").split("\n")
    for name, path in gpu_base.TESTS.items():
        at = lines.index(f"# {name}")
        for language, kind, offset in (("en", "source", 2), ("de", "reference", 4)):
            first = (data / f"{path}.{language}").read_text(encoding="utf-8").split("\n")[0]
            assert lines[at + offset] == f"{kind:<13}{first}"
        assert lines[at + 3].startswith("translation  ")


def test_the_last_checkpoints_are_averaged(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    write = gpu_recipe.write_average
    monkeypatch.setattr(
        gpu_recipe,
        "write_average",
        lambda run, last, out: (counts.append(last), write(run, last, out)),
    )
    for steps in ("5", "2"):
        result_of([*toy, "--steps", steps], tmp_path / "base.json")
    assert counts == [5, 2]


def test_an_interrupted_run_leaves_its_curve(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = []

    def cut(entry: Any) -> str:
        if entry.step == 3:
            raise KeyboardInterrupt
        described.append(entry)
        return ""

    monkeypatch.setattr(gpu_recipe, "describe", cut)
    out = tmp_path / "base.json"
    with pytest.raises(KeyboardInterrupt):
        gpu_base.main([*toy, "--steps", "5", "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["steps"] == 2
    assert [entry["step"] for entry in result["curve"]] == [entry.step for entry in described]
    assert len(described) == 4
    assert {"machine", "versions"} <= set(result)


def test_a_run_that_ends_by_time_is_scored(toy: list[str], tmp_path: Path) -> None:
    result = result_of([*toy, "--minutes", "0.00001"], tmp_path / "base.json")
    assert 1 <= result["steps"] < 100
    assert len(result["scores"]) == 3


def test_a_prepared_corpus_is_reused(
    data: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (prepared / "corpus" / "manifest.json").stat()
    words = ["--data", str(data), "--corpus", str(prepared), "--only-prepare"]
    gpu_base.main([*words, "--vocabulary", VOCABULARY])
    with pytest.raises(SystemExit):
        gpu_base.main([*words, "--vocabulary", "501"])
    assert "has 500 subwords, not 501" in capsys.readouterr().err
    assert (prepared / "corpus" / "manifest.json").stat() == before


def test_a_missing_corpus_is_prepared(toy: list[str], data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "here"
    without_corpus = ["--corpus", str(elsewhere), "--data", str(data), "--vocabulary", VOCABULARY]
    result = result_of([*toy, *without_corpus, "--steps", "1"], tmp_path / "base.json")
    assert len(result["scores"]) == 3
    assert gpu_base.vocabulary_of(elsewhere) == int(VOCABULARY)


def test_a_missing_corpus_or_text_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ["--corpus", str(tmp_path / "none"), "--only-prepare"]
    with pytest.raises(SystemExit):
        gpu_base.main(nowhere)
    assert "holds no prepared corpus" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_base.main([*nowhere, "--data", str(tmp_path)])
    assert "--data has no tatoeba/train.en" in capsys.readouterr().err


def test_the_recipe_has_the_papers_settings() -> None:
    settings = settings_from_dict(yaml.safe_load((gpu_recipe.CONFIGS / "base.yaml").read_text()))
    config = settings.transformer_config(gpu_base.VOCABULARY)
    assert (config.d_model, config.d_ff, config.heads, config.layers) == (512, 2048, 8, 6)
    assert (config.norm, config.dropout, config.smoothing) == ("post", 0.1, 0.1)
    assert settings.learning_rate(512) == Schedule("paper", warmup=4000, d_model=512, steps=8000)
    assert (settings.batch_tokens, settings.accumulate, settings.max_steps) == (25_000, 1, 8000)
    assert (settings.beta1, settings.beta2, settings.epsilon) == (0.9, 0.98, 1e-9)
    assert settings.keep_checkpoints >= gpu_base.AVERAGED
    assert (SEARCH["beam"], SEARCH["length_penalty"]) == (4, 0.6)
