"""The command line as a user calls it: from text files to a score."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from npformer import Translator
from npformer.checkpoint import load_arrays
from tests.integration.command_line import TINY, mistake, npformer, prepare_words, run, write
from tests.real_text import multi30k, needs_real_text
from train.corpora.corpus import Corpus
from train.runs.metrics import read_metrics

pytestmark = pytest.mark.integration


class TestFromTextToScore:
    def test_training_lowers_the_perplexity(self, trained: Path) -> None:
        logged = [entry["perplexity"] for entry in read_metrics(trained) if "perplexity" in entry]
        assert logged[-1] < logged[0] / 2

    def test_translation_writes_one_line_for_every_line(self, trained: Path) -> None:
        lines = ["a dog runs .", "", "   ", "\x85 odd \u2028 separators \x0b", "🙂 \t\x00", "ein"]
        text = "\n".join(lines).encode()
        translated = run("translate", "--model", trained, "--beam", 2, stdin=text)
        answers = translated.decode().split("\n")
        assert len(answers) == len(lines) + 1
        assert answers[-1] == ""
        assert answers[1] == answers[2] == ""
        direct = Translator.load(trained).translate(lines, beam=2)
        assert [t.text for t in direct] == answers[:-1]

    def test_no_input_gives_no_output(self, trained: Path) -> None:
        assert run("translate", "--model", trained) == b""

    def test_evaluate_ends_with_bleu_and_its_signature(self, folder: Path, trained: Path) -> None:
        words = ["--model", trained, "--source", folder / "test.en"]
        words += ["--reference", folder / "test.de", "--beam", 1]
        output = run("evaluate", *words, "--tokenize", "none", "--lowercase").decode()
        last = output.rstrip("\n").split("\n")[-1]
        assert last.startswith("BLEU = ")
        assert "tok:none" in last
        assert "case:lc" in last
        assert "tok:13a" in run("evaluate", *words).decode()
        assert "perplexity = " in output
        assert "chrF2 = " in output

    def test_evaluate_uses_the_metrics_that_are_asked_for(
        self, folder: Path, trained: Path
    ) -> None:
        words = ["evaluate", "--model", trained, "--source", folder / "test.en", "--beam", 1]
        words += ["--reference", folder / "test.de"]
        rows = run(*words, "--metrics", "bleu", "ter", "--tokenize", "zh").decode().split("\n")
        assert [row.split(" ")[0] for row in rows] == ["perplexity", "TER", "BLEU", ""]
        assert "tok:zh" in rows[2]
        assert "chrF2" in run(*words, "--metrics", "chrf").decode()

    def test_evaluate_gives_the_papers_bleu(self, folder: Path, trained: Path) -> None:
        words = ["evaluate", "--model", trained, "--source", folder / "test.en", "--beam", 1]
        words += ["--reference", folder / "test.de", "--metrics", "bleu", "--tokenize", "paper"]
        last = run(*words).decode().rstrip("\n").split("\n")[-1]
        assert re.fullmatch(r"BLEU = [\d.]+  .*\|tok:paper-de-sacremoses.*\|smooth:none\|.*", last)

    @pytest.mark.parametrize(
        ("tokenizer", "problem"),
        [("ja-mecab", "pip install 'sacrebleu[ja]'"), ("flores200", "download it to")],
    )
    def test_a_missing_bleu_tokenizer_is_reported_before_the_work(
        self, folder: Path, trained: Path, tokenizer: str, problem: str
    ) -> None:
        if importlib.util.find_spec("MeCab") and tokenizer == "ja-mecab":
            pytest.skip("MeCab is installed")
        words = ["--source", folder / "test.en", "--reference", folder / "test.de"]
        words = ["evaluate", "--model", trained, *words]
        assert problem in mistake(*words, "--tokenize", tokenizer)
        words = ["train", "--data", folder / "corpus", "--out", folder / "never", *TINY]
        words += ["--bleu-every", 5, "--bleu-tokenize", tokenizer]
        assert problem in mistake(*words)
        assert not (folder / "never").exists()

    def test_evaluate_saves_the_translations(self, folder: Path, trained: Path) -> None:
        words = ["--model", trained, "--source", folder / "test.en", "--beam", 1]
        output = folder / "translations.de"
        run("evaluate", *words, "--reference", folder / "test.de", "--output", output)
        source = (folder / "test.en").read_bytes()
        assert output.read_bytes() == run("translate", *words[:2], "--beam", 1, stdin=source)

    def test_the_average_is_a_model_directory(self, folder: Path, trained: Path) -> None:
        run("average", trained, "--last", 3, "--out", folder / "averaged")
        run("translate", "--model", folder / "averaged", stdin=b"a dog .\n")
        message = mistake("average", trained, "--last", 50, "--out", folder / "none")
        assert "holds 4 checkpoints" in message

    def test_score_writes_one_line_for_every_pair(self, folder: Path, trained: Path) -> None:
        words = ["--source", folder / "test.en", "--target", folder / "test.de"]
        rows = run("score", "--model", trained, *words).decode().rstrip("\n").split("\n")
        assert len(rows) == 30
        assert all(float(row.split("\t")[0]) < 0 for row in rows)

    def test_a_resumed_run_gives_the_model_of_an_uninterrupted_one(
        self, folder: Path, trained: Path
    ) -> None:
        out = folder / "resumed"
        words = ["train", "--data", folder / "corpus", "--out", out]
        run(*words, *TINY, "--max-steps", 17)
        run(*words, "--resume", "--max-steps", 40)
        whole, parts = read_metrics(trained), read_metrics(out)
        losses = [[(e["step"], e["loss"]) for e in m if "loss" in e] for m in (whole, parts)]
        assert losses[0] == losses[1]
        models = [load_arrays(model / "model.safetensors")[0] for model in (trained, out)]
        np.testing.assert_equal(models[0], models[1])

    def test_a_model_with_separate_vocabularies_trains_and_translates(self, folder: Path) -> None:
        corpus, out = folder / "separate", folder / "separate-run"
        run(*prepare_words(folder), "--vocab-size", 500, "--separate", "--out", corpus)
        run("train", "--data", corpus, "--out", out, *TINY, "--max-steps", 10)
        assert json.loads((out / "config.json").read_text())["model"]["share_embeddings"] == (
            "target"
        )
        assert (out / "source.spm").exists()
        run("translate", "--model", out, stdin=b"a dog .\n")

    def test_curves_and_attention_are_drawn(self, folder: Path, trained: Path) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        for words in ((), ("--attention", "a dog runs .")):
            picture = folder / f"picture{len(words)}.png"
            run("plot", trained, *words, "--out", picture)
            assert picture.read_bytes().startswith(b"\x89PNG")

    def test_status_tells_what_a_run_has_come_to(self, trained: Path) -> None:
        said = run("status", trained).decode()
        assert f"{trained}: no process is training it" in said
        assert "left" not in said
        assert "perplexity" in said

    def test_the_best_model_is_shown_kept_and_usable(self, folder: Path) -> None:
        out = folder / "best-run"
        done = npformer(
            *("train", "--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 20),
            *("--best-by=loss", "--samples=1", "--ema=0.9"),
        )
        assert done.status == 0, done.stderr
        assert f"{out / 'best'} has the best model, with loss" in done.stderr
        [sample] = map(json.loads, (out / "translations.jsonl").read_text().splitlines())
        assert f"  {sample['source']}\n  → {sample['translation']}\n" in done.stderr
        assert run("translate", "--model", out / "best", stdin=b"a dog .\n").count(b"\n") == 1

    def test_long_flags_may_have_hyphens_or_underscores(self, trained: Path) -> None:
        words = ["translate", "--model", trained, "--beam", 2]
        answers = {
            run(*words, *flags, stdin=b"a dog-house .\n")
            for flags in (
                ("--length-penalty", 3, "--extra-length", 2),
                ("--length_penalty", 3, "--extra_length", 2),
                ("--length-penalty=3", "--extra_length=2"),
            )
        }
        assert len(answers) == 1

    @needs_real_text
    def test_no_line_of_real_text_is_dropped_or_changed(self, folder: Path) -> None:
        corpus = Corpus.open(folder / "corpus")
        assert len(corpus.train) == 300
        for side, language in (("source", "en"), ("target", "de")):
            tokenizer = getattr(corpus.tokenizers, side)
            ids = [getattr(corpus.train, side)(i).tolist() for i in range(300)]
            lines = multi30k("train", language, 0, 300)
            assert [tokenizer.decode(sentence) for sentence in ids] == lines


class TestMistakesWithARun:
    def test_a_run_is_not_overwritten(self, folder: Path, trained: Path) -> None:
        message = mistake("train", "--data", folder / "corpus", "--out", trained)
        assert "--resume" in message

    def test_a_run_is_not_resumed_with_another_number_of_heads(
        self, folder: Path, trained: Path
    ) -> None:
        before = (trained / "config.json").read_bytes()
        words = ["--data", folder / "corpus", "--out", trained, "--resume", "--model.heads", 8]
        message = mistake("train", *words)
        assert "heads = 4" in message
        assert "8" in message
        assert (trained / "config.json").read_bytes() == before

    def test_an_unknown_setting_is_named(self, folder: Path) -> None:
        words = ["train", "--data", folder / "corpus", "--out", folder / "never"]
        config = write(folder / "wrong.yaml", ["warm_up: 3"])
        assert "warm_up" in mistake(*words, "--config", config)
        assert "model.heads" in mistake(*words, "--model.heads", "many")
        assert "divisible" in mistake(*words, "--model.heads", 7)
        assert not (folder / "never").exists()

    def test_limits_of_the_search_are_checked(self, trained: Path) -> None:
        words = ["translate", "--model", trained]
        message = mistake(*words, "--beam", 100_000, stdin=b"a dog .\n")
        assert "beam must be 1 to 1,000, got 100,000" in message
        message = mistake(*words, "--extra-length", 10_000_000, stdin=b"a dog .\n")
        assert "extra_length must be 1 to 10,000, got 10,000,000" in message

    def test_a_damaged_model_is_refused(self, folder: Path, trained: Path) -> None:
        broken = folder / "broken"
        broken.mkdir()
        for name in ("config.json", "tokenizer.spm"):
            (broken / name).write_bytes((trained / name).read_bytes())
        whole = (trained / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        assert "cut short" in mistake("translate", "--model", broken, stdin=b"a\n")
        (broken / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert "altered" in mistake("translate", "--model", broken, stdin=b"a\n")

    @pytest.mark.parametrize("command", ["prepare", "train", "average", "demo"])
    def test_an_existing_file_is_refused_as_output_directory(
        self, folder: Path, trained: Path, command: str
    ) -> None:
        words = {
            "prepare": [*prepare_words(folder), "--vocab-size", 600],
            "train": ["train", "--data", folder / "corpus", *TINY, "--max-steps", 1],
            "average": ["average", trained, "--last", 2],
            "demo": ["demo"],
        }[command]
        file = write(folder / f"{command}.txt", ["mine"])
        message = mistake(*words, "--out", file)
        assert file.name in message
        assert file.read_text() == "mine\n"


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_a_file_in_the_place_of_a_directory_is_named(
    folder: Path, trained: Path, tmp_path: Path, below: str
) -> None:
    """Or above the place, whatever the directory is for."""
    mine = write(tmp_path / "mine", ["precious"])
    out = mine / below
    for words in (
        [*prepare_words(folder), "--vocab-size", 600, "--out", out],
        ["train", "--data", folder / "corpus", "--out", out],
        ["average", trained, "--last", 1, "--out", out],
        ["fetch", "multi30k", "--out", out],
        ["demo", "--out", out],
    ):
        assert f"{mine} is a file; give a directory for " in mistake(*words)
    assert mine.read_text() == "precious\n"
    assert os.listdir(tmp_path) == ["mine"]
