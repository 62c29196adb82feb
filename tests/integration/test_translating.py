"""translate, score and evaluate: n-best lists, streams, bad lines and long lines."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from tests.integration.command_line import COMMAND, Done, mistake, npformer, refusal, run, write
from tests.npformer.test_translator import make_translator, save

pytestmark = pytest.mark.integration

SHORT = ["--extra-length", 3, "--beam", 2]
LONG = "Two girls sing in the garden. A dog runs."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random parameters and 30 positions."""
    made = make_translator(positions="learned", max_length=30)
    return save(tmp_path_factory.mktemp("model") / "model", made.model, made.tokenizers)


def answers(done: Done) -> list[str]:
    *lines, last = done.stdout.decode().split("\n")
    assert last == ""
    return lines


def direct(model: Path, lines: list[str], **settings: Any) -> list[str]:
    chosen = {"extra_length": 3, "beam": 2, **settings}
    return [t.text for t in Translator.load(model).translate(lines, **chosen)]


# n-best lists


def test_the_n_best_translations_are_written_in_every_format(model: Path) -> None:
    lines, text = ["A dog.", "", "Yes."], b"A dog.\n\nYes.\n"
    words = ["translate", "--model", model, "--n-best", 5, "--extra-length", 3]
    expected = Translator.load(model).translate(lines, beam=5, alternatives=5, extra_length=3)
    rows = run(*words, stdin=text).decode().split("\n")
    assert len(rows) == 5 * len(lines) + 1
    for i, translation in enumerate(expected):
        texts = [t.text for t in translation.ranked]
        assert rows[5 * i : 5 * i + 5] == texts + [""] * (5 - len(texts))

    columns = [
        row.split("\t") for row in run(*words, "--format", "tsv", stdin=text).decode().split("\n")
    ]
    ranked = [(i, t) for i, best in enumerate(expected, start=1) for t in best.ranked]
    assert len(columns) == len(ranked) + 1
    for (number, rank, score, log_p, each, tokens, found), (i, t) in zip(
        columns[:-1], ranked, strict=True
    ):
        assert (int(number), found) == (i, t.text)
        assert int(rank) == [*expected[i - 1].ranked].index(t) + 1
        assert float(score) == pytest.approx(t.score, abs=1e-3)
        assert float(log_p) == pytest.approx(t.log_p, abs=1e-3)
        assert tuple(tokens.split()) == t.tokens
        assert [float(x) for x in each.split()] == pytest.approx(t.token_log_p, abs=1e-3)

    objects = run(*words, "--format", "json", stdin=text).decode().splitlines()
    for i, (line, t) in enumerate(zip(objects, expected, strict=True), start=1):
        found = json.loads(line)
        assert (found["line"], found["text"], found["tokens"]) == (i, t.text, list(t.tokens))
        assert [a["text"] for a in found["alternatives"]] == [a.text for a in t.alternatives]
        assert found["log_p"] == pytest.approx(t.log_p, rel=1e-4, abs=1e-9)


def test_more_translations_than_hypotheses_are_refused(model: Path) -> None:
    words = ["translate", "--model", model]
    assert "n_best must be 1 to the beam, 3" in mistake(*words, "--beam", 3, "--n-best", 4)
    assert "n_best must be 1 to the beam" in mistake(*words, "--n-best", 0)


def test_lengths_are_limited_as_asked(model: Path) -> None:
    flags = ["--format", "json", "--penalty", "none", "--beam", 2]
    words = ["translate", "--model", model, *flags]
    for limits, least, most in (
        (["--min-length", 9, "--max-length", 12], 9, 12),
        (["--min-ratio", 3, "--max-length", 20], 15, 20),
        (["--max-ratio", 0.8], 0, 4),
    ):
        found = json.loads(run(*words, *limits, stdin=b"A dog.\n"))
        ended = found["tokens"][-1] == "</s>"
        assert least <= len(found["tokens"]) - ended
        assert len(found["tokens"]) <= most
        assert found["score"] == pytest.approx(found["log_p"])


def test_a_search_stops_as_asked(tmp_path: Path) -> None:
    made = make_translator(output_bias=True)
    bias = made.model.parameters()["output_bias"]
    likelier = bias.numpy().copy()
    likelier[made.tokenizers.target.end_id] += 5  # so that hypotheses end at different lengths
    bias.assign(likelier)
    model = save(tmp_path / "model", made.model, made.tokenizers)
    lines = ["A dog.", "Yes.", LONG, "girls"]
    source = write(tmp_path / "source", lines)
    found = {}
    for stop in "bound", "beam":
        flags = ["--model", model, "--source", source, "--beam", 3, "--stop", stop]
        flags += ["--penalty", "power", "--length-penalty", 1]
        found[stop] = answers(npformer("translate", *flags))
        settings: dict[str, Any] = {"beam": 3, "penalty": "power", "length_penalty": 1}
        expected = Translator.load(model).translate(lines, **settings, stop=stop)
        assert found[stop] == [t.text for t in expected]
        output = tmp_path / f"{stop}.txt"
        run("evaluate", *flags, "--reference", source, "--output", output)
        assert output.read_text(encoding="utf-8").split("\n")[:-1] == found[stop]
    assert found["beam"] != found["bound"]


def test_translations_are_drawn_and_begin_as_asked(model: Path, tmp_path: Path) -> None:
    lines, text = ["A dog.", "", "Yes."], b"A dog.\n\nYes.\n"
    prefixes = ["Yes. Two", "", "girls"]
    file = write(tmp_path / "prefixes", prefixes)
    words = ["translate", "--model", model, *SHORT]
    found = npformer(*words, "--prefixes", file, "--no-repeat-ngram", 2, stdin=text)
    assert answers(found) == direct(model, lines, prefixes=prefixes, no_repeat_ngram=2)
    assert all(map(str.startswith, answers(found), prefixes))
    flags = ["--sampling", "--n-best", 6, "--seed", 3, "--top-k", 50, "--top-p", 0.9]
    drawn = answers(npformer(*words, *flags, stdin=text))
    chosen: dict[str, Any] = {"alternatives": 6, "seed": 3, "top_k": 50, "top_p": 0.9}
    expected = Translator.load(model).translate(lines, sampling=True, extra_length=3, **chosen)
    assert drawn[:6] == [t.text for t in expected[0].ranked]
    assert drawn[6:12] == [""] * 6
    write(file, prefixes[:2])
    message = mistake(*words, "--prefixes", file, stdin=text)
    assert "has 2 lines, and more are translated" in message
    write(file, [*prefixes, ""])
    done = npformer(*words, "--prefixes", file, stdin=text)
    assert answers(done)[:3] == direct(model, lines, prefixes=prefixes)
    assert "has more than the 3 lines that were translated" in refusal(done)
    write(file, ["Yes.", "", LONG])
    message = mistake(*words, "--prefixes", file, stdin=text)
    assert "prefix of line 3 has 30 tokens, and the model has learned 30 positions" in message


def test_alignments_are_the_last_column(model: Path) -> None:
    words = ["translate", "--model", model, *SHORT, "--n-best", 2, "--alignment"]
    text = b"A dog runs.\n\n"
    best, blank = Translator.load(model).translate(
        ["A dog runs.", ""], extra_length=3, beam=2, alternatives=2, alignment=2
    )
    pairs = [" ".join(f"{s}-{t}" for s, t in ranked.alignment) for ranked in best.ranked]
    assert pairs[0].startswith(("0-0", "1-0", "2-0"))
    rows = run(*words, 2, stdin=text).decode().split("\n")
    assert [row.split("\t") for row in rows[:2]] == [
        [ranked.text, pair] for ranked, pair in zip(best.ranked, pairs, strict=True)
    ]
    assert rows[2:] == ["\t", "\t", ""]
    rows = run(*words, 2, "--format", "tsv", stdin=text).decode().split("\n")
    assert [row.split("\t")[-1] for row in rows[:3]] == [*pairs, ""]
    found = json.loads(run(*words, 2, "--format", "json", stdin=text).splitlines()[0])
    assert [found["alignment"], found["alternatives"][0]["alignment"]] == pairs
    assert blank.alignment == ()
    for wrong in ("0", "3", "x", "9" * 5000):
        assert "must be 1 to 2, auto or mean" in mistake(*words, wrong, stdin=text)


def test_several_models_translate_and_score_together(model: Path, tmp_path: Path) -> None:
    made = make_translator(positions="learned", max_length=30, layers=1)
    other = save(tmp_path / "other", made.model, made.tokenizers)
    both = ["--ensemble", other, "--ensemble_weights", 1, 2]
    found = run("translate", "--model", model, *both, *SHORT, stdin=b"A dog.\nYes.\n")
    expected = Translator.ensemble([model, other], [1, 2]).translate(
        ["A dog.", "Yes."], extra_length=3, beam=2
    )
    assert found.decode().split("\n")[:-1] == [t.text for t in expected]
    source = write(tmp_path / "source", ["A dog.", "Yes."])
    scores = run("score", "--model", model, *both, "--source", source, "--target", source)
    assert scores.count(b"\n") == 2
    assert "3 models need as many weights" in mistake(
        *["translate", "--model", model, "--ensemble", other, other, "--ensemble_weights", 1, 2]
    )


def test_a_score_is_the_same_in_every_format_where_tokens_are_suppressed(tmp_path: Path) -> None:
    made = make_translator(suppressed_ids=(5, 6, 7))
    model = save(tmp_path / "model", made.model, made.tokenizers)
    text = write(tmp_path / "text", ["Yes."])
    words = ["score", "--model", model, "--source", text, "--target", text]
    log_p, perplexity = map(float, run(*words).split())
    found = json.loads(run(*words, "--format", "json"))
    assert log_p == pytest.approx(found["log_p"], abs=1e-3)
    assert perplexity == pytest.approx(math.exp(-log_p / len(found["tokens"])), rel=1e-3)
    assert made.score(["Yes."], ["Yes."])[0].log_p == pytest.approx(log_p, abs=1e-3)


def test_given_pairs_are_written_in_every_format(model: Path, tmp_path: Path) -> None:
    sources, targets = ["A dog.", LONG, "Yes."], ["Ein Hund.", "Ja.", "Ja."]
    source, target = write(tmp_path / "source", sources), write(tmp_path / "target", targets)
    words = ["score", "--model", model, "--source", source, "--target", target]
    words += ["--long-lines", "skip", "--penalty", "power", "--length-penalty", 1]
    expected = Translator.load(model).score(
        sources[::2], targets[::2], penalty="power", length_penalty=1, alignment="auto"
    )
    first, second, third, end = (
        run(*words, "--format", "json", "--alignment", "auto").decode().split("\n")
    )
    assert second == end == ""
    for line, number, t in ((first, 1, expected[0]), (third, 3, expected[1])):
        found = json.loads(line)
        assert (found["line"], found["text"], found["tokens"]) == (number, t.text, [*t.tokens])
        assert found["score"] == pytest.approx(t.score, rel=1e-5)
        assert found["alignment"] == " ".join(f"{s}-{w}" for s, w in t.alignment)
    row = run(*words, "--format", "tsv").decode().split("\n")[2]
    assert row.split("\t")[:3] == ["3", "1", f"{expected[1].score:.4f}"]
    assert "choose --format tsv or json" in mistake(*words, "--alignment", "auto")


def test_a_token_that_is_never_chosen_has_no_number_in_json(tmp_path: Path) -> None:
    made = make_translator(suppressed_ids=tuple(range(3, 300)))
    model = save(tmp_path / "model", made.model, made.tokenizers)
    file = write(tmp_path / "text", ["A dog."])
    words = ["score", "--model", model, "--source", file, "--target", file]
    found = json.loads(run(*words, "--format", "json"), parse_constant=pytest.fail)
    assert found["score"] is found["log_p"] is None
    assert None in found["token_log_p"]
    assert run(*words, "--format", "tsv").decode().split("\t")[2:4] == ["-inf", "-inf"]


# Streams


def test_each_line_of_a_pipe_is_answered_when_it_comes(model: Path) -> None:
    lines = ["A dog.", "", "Yes.", "Two girls."]
    with subprocess.Popen(
        [*COMMAND, "translate", "--model", model, *map(str, SHORT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = []
        for line in lines:
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            found.append(process.stdout.readline().decode().removesuffix("\n"))
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == 0
    assert found == direct(model, lines)


# Bad lines


def test_what_comes_before_a_bad_line_is_written(model: Path) -> None:
    text = b"A dog.\nYes.\nsch\xf6n\nNo.\n"
    done = npformer("translate", "--model", model, *SHORT, stdin=text)
    message = refusal(done)
    assert "standard input, line 3: byte 4 of the line (0xf6) is not UTF-8" in message
    assert answers(done) == direct(model, ["A dog.", "Yes."])


@pytest.mark.parametrize("how", ["replace", "skip"])
def test_a_bad_line_is_replaced_or_skipped_in_its_place(
    model: Path, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text").write_bytes(b"A dog.\nsch\xf6n\nA\x00b\nNo.\n")
    source = ["--source", tmp_path / "text"]
    done = npformer("translate", "--model", model, *SHORT, *source, "--bad-lines", how)
    assert done.status == 0
    lines = ["A dog.", "sch\ufffdn" if how == "replace" else "", "A\x00b", "No."]
    assert answers(done) == direct(model, lines)
    assert "line 2: byte 4 of the line (0xf6) is not UTF-8; it is" in caplog.text


def test_a_line_of_many_megabytes_is_skipped_when_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("train.corpora.text._LONGEST", 100)
    text = b"A dog.\n" + b"x" * 1234 + b"\nYes.\n" + b"y" * 100
    words = ["translate", "--model", model, *SHORT]
    done = npformer(*words, stdin=text)
    assert "line 2, has more than" in refusal(done)
    assert answers(done) == direct(model, ["A dog."])
    done = npformer(*words, "--bad-lines", "skip", stdin=text)
    assert answers(done) == direct(model, ["A dog.", "", "Yes.", ""])
    assert caplog.text.count("it is skipped") == 2


# Long lines


@pytest.mark.parametrize("how", ["split", "cut", "skip", "refuse"])
def test_a_long_line_is_treated_as_asked_and_told(
    model: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["A dog.", "Yes.", LONG, "No."]
    text = "\n".join(lines).encode()
    flags = [] if how == "split" else ["--long-lines", how]
    done = npformer("translate", "--model", model, *SHORT, *flags, stdin=text)
    assert (
        "line 3 has 30 tokens, more than the 29 that are translated together"
        in done.stderr + caplog.text
    )
    if how == "refuse":
        refusal(done)
        assert answers(done) == direct(model, lines[:2])
        return
    assert done.status == 0
    assert answers(done) == direct(model, lines, long_lines=how)
    if how == "split":
        assert answers(done)[2] == " ".join(
            direct(model, ["Two girls sing in the garden.", "A dog runs."])
        )


def test_pairs_with_a_long_line_are_scored_as_asked(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write(tmp_path / "source", ["A dog.", LONG, "Yes."])
    target = write(tmp_path / "target", ["Ein Hund.", "Ja.", "Ja."])
    words = ["score", "--model", model, "--source", source, "--target", target]
    done = npformer(*words)
    assert "line 2 has 30 tokens, more than the 29" in refusal(done)
    assert len(answers(done)) == 1
    for how in ("skip", "cut"):
        done = npformer(*words, "--long-lines", how)
        assert done.status == 0
        assert "line 2 has 30 tokens" in caplog.text
        caplog.clear()
        rows = answers(done)
        assert len(rows) == 3
        assert bool(rows[1]) == (how == "cut")
    words = ["evaluate", "--model", model, "--source", source, "--reference", target, *SHORT]
    done = npformer(*words)
    assert done.status == 0
    assert "it is not scored" in caplog.text
    assert "it is translated in 2 parts" in caplog.text
    assert done.stdout.count(b"\n") == 3
    assert "line 2 has 30 tokens" in mistake(*words, "--long-lines", "refuse")


def test_evaluate_searches_as_translate_does(model: Path, tmp_path: Path) -> None:
    lines, prefixes = ["A dog.", "Two girls sing."], ["Yes.", ""]
    source, asked = write(tmp_path / "source", lines), write(tmp_path / "prefixes", prefixes)
    out = tmp_path / "out"
    words = ["evaluate", "--model", model, "--source", source, "--reference", source]
    words += ["--output", out, "--extra-length", 3]
    for flags, chosen in (
        (["--beam", 4, "--groups", 2], {"beam": 4, "groups": 2}),
        (["--sampling", "--seed", 5, "--top-k", 9], {"sampling": True, "seed": 5, "top_k": 9}),
        (["--prefixes", asked, "--beam", 2], {"prefixes": prefixes, "beam": 2}),
        (["--longest", 5, "--beam", 2], {"longest": 5, "beam": 2}),
    ):
        run(*words, *flags)
        assert out.read_text().splitlines() == direct(model, lines, **chosen)
    write(asked, prefixes[:1])
    assert "each needs its prefix" in mistake(*words, "--prefixes", asked)


def test_a_token_that_is_never_chosen_has_no_probability_in_json(tmp_path: Path) -> None:
    made = make_translator()
    [first, *_] = made.tokenizers.target.encode("dog")
    some = make_translator(suppressed_ids=(first,))
    model = save(tmp_path / "model", some.model, some.tokenizers)
    text = write(tmp_path / "text", ["dog"])
    words = ["score", "--model", model, "--source", text, "--target", text, "--format", "json"]
    found = json.loads(run(*words), parse_constant=pytest.fail)
    assert (found["score"], found["log_p"], found["token_log_p"][0]) == (None, None, None)
