"""Table 3: its rows in other sizes, what can be separated, and the experiment itself."""

import errno
import fcntl
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from npformer import TransformerConfig
from npformer.config import PRESETS
from npformer.errors import UserError
from train.experiments.experiment import run
from train.experiments.measurements import Measurements, Tell, measurements
from train.experiments.processes import all_in_processes
from train.experiments.table3 import EXPERIMENT
from train.experiments.table3.comparison import Comparison, kendall
from train.experiments.table3.findings import Findings, Outcome
from train.experiments.table3.plan import makespan, rate_factor, steps_in, warmup
from train.experiments.table3.results import _arrow
from train.experiments.table3.rows import BASE, ROWS, chosen, scaled
from train.experiments.training import train_run
from train.loop import DivergedError

TOY = EXPERIMENT.scales["toy"]


def model(name: str, width: float, layers: int) -> TransformerConfig:
    changes = scaled(ROWS[name], width, layers)
    return TransformerConfig.preset(changes.pop("preset"), vocab_size=100, **changes)


# Rows


def test_every_row_is_a_preset_and_every_preset_a_row() -> None:
    presets = {name for name in PRESETS if name.startswith("table3/")}
    assert {row.preset for row in ROWS.values()} == presets | {"base"}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_in_the_papers_size_is_its_preset(name: str) -> None:
    assert model(name, 1.0, 6) == TransformerConfig.preset(ROWS[name].preset, vocab_size=100)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # base of d_model 128 and 3 layers
        (BASE, {"layers": 3, "d_model": 128, "d_ff": 512, "heads": 8, "d_k": 16, "d_v": 16}),
        ("A/heads=1", {"heads": 1, "d_k": 128, "d_v": 128}),
        ("A/heads=32", {"heads": 32, "d_k": 4, "d_v": 4}),
        ("B/d_k=16", {"heads": 8, "d_k": 4, "d_v": 16}),
        ("B/d_k=32", {"heads": 8, "d_k": 8, "d_v": 16}),
        ("C/layers=2", {"layers": 1, "d_model": 128}),
        ("C/layers=4", {"layers": 2}),
        ("C/layers=8", {"layers": 4}),
        ("C/d_model=256", {"d_model": 64, "d_ff": 512, "d_k": 8}),
        ("C/d_model=1024", {"d_model": 256, "d_ff": 512, "d_k": 32}),
        ("C/d_ff=1024", {"d_model": 128, "d_ff": 256}),
        ("C/d_ff=4096", {"d_model": 128, "d_ff": 1024}),
        ("D/dropout=0.2", {"d_model": 128, "dropout": 0.2}),
        ("D/smoothing=0", {"smoothing": 0.0}),
        ("E", {"positions": "learned", "d_model": 128}),
        ("big", {"d_model": 256, "d_ff": 1024, "heads": 16, "d_k": 16, "dropout": 0.3}),
    ],
)
def test_a_smaller_row_keeps_its_relation_to_base(name: str, expected: dict[str, Any]) -> None:
    found = model(name, 0.25, 3).to_dict()
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "width", "layers", "message"),
    [
        (BASE, 0.3, 6, r"row base .*--width 0.3 makes its d_model 153.6, not 512"),
        ("C/layers=2", 1.0, 2, r"row C/layers=2 .*--layers 2 makes its layers 0.6667, not 2"),
        ("A/heads=32", 1 / 32, 3, r"row A/heads=32 .*divisible by heads \(32\)"),
        ("B/d_k=16", 1 / 32, 3, r"row B/d_k=16 .*makes its d_k 0.5, not 16; .* --rows without B"),
        (BASE, 0.0, 3, "makes its d_model 0"),
    ],
)
def test_a_size_that_a_row_cannot_have_is_refused(
    name: str, width: float, layers: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        scaled(ROWS[name], width, layers)


def test_rows_are_chosen_in_the_papers_order() -> None:
    assert [row.name for row in chosen(("E", "A/heads=1", BASE))] == [BASE, "A/heads=1", "E"]
    with pytest.raises(UserError, match="has no row 'F'"):
        chosen((BASE, "F"))
    with pytest.raises(UserError, match="needs base"):
        chosen(("E",))


# What can be separated


def test_differences_are_compared_with_the_spread() -> None:
    """By hand: variances 1, 4 and 9 of three runs each; the median is 4.

    Half of the variances of three values are below 0.69 of the true one.
    """
    found = Comparison({"base": [9.0, 10.0, 11.0], "a": [18, 20, 22], "b": [9, 12, 15]})
    a = found.difference("a", "base")
    assert a.value == pytest.approx(10)
    assert a.error == pytest.approx(math.sqrt(2 * (4 / 0.69) / 3), rel=0.02)
    assert a.sign == 1
    b = found.difference("b", "base")
    assert b.error == pytest.approx(math.sqrt((9 + 4 / 0.69) / 3), rel=0.02)
    assert b.sign == 0
    assert found.deviation("b") == pytest.approx(3)
    assert found.difference("base", "a").sign == -1


def test_rows_that_do_not_vary_tell_no_spread() -> None:
    """As BLEU that is 0 without smoothing: 1.0 is not far from it because others are alike."""
    found = Comparison({"base": [0, 0], "a": [0, 0], "b": [0, 0], "c": [1.0, 1.0]})
    assert found.difference("c", "base") == (1.0, None)


def test_what_a_seed_adds_to_all_rows_separates_none_and_hides_none() -> None:
    draw = random.Random(3)
    seeds = [0.0, 5.0, -3.0]
    rows = {f"{i}": [(i == 0) + seed + draw.gauss(0, 0.1) for seed in seeds] for i in range(30)}
    found = Comparison(rows)
    assert found.deviation("1") == pytest.approx(statistics.stdev(seeds), rel=0.1)
    for i in range(2, 30):
        assert found.difference(f"{i}", "1").sign == 0
        assert found.difference("0", f"{i}").sign == 1
        assert found.difference("0", f"{i}").error == pytest.approx(0.1 * (2 / 3) ** 0.5, rel=1)
    few = Comparison({name: rows[name] for name in ("0", "1", "2")})
    assert few.difference("0", "1").sign == 0
    incomplete = Comparison({**rows, "0": rows["0"][:1]})  # other seeds have failed
    assert incomplete.difference("2", "1").sign == 0


def test_one_seed_separates_nothing() -> None:
    found = Comparison({"base": [1.0], "a": [100.0]})
    assert found.difference("a", "base") == (99.0, None)
    assert found.difference("a", "base").sign == 0
    assert found.deviation("a") is None


def test_a_row_of_one_run_has_the_usual_spread() -> None:
    """Half of the variances of two values are below 0.455 of the true one."""
    found = Comparison({"base": [1.0, 3.0], "a": [10.0]})
    error = math.sqrt(2 / 0.455 * (1 / 1 + 1 / 2))
    assert found.difference("a", "base").error == pytest.approx(error, rel=0.03)


def test_few_rows_that_are_the_same_are_separated() -> None:
    """Two runs of each of 1,000 rows: the errors are those that normal values have."""
    draw = random.Random(0)
    found = Comparison({f"{i}": [draw.gauss(0, 2) for _ in range(2)] for i in range(1_000)})
    differences = [found.difference(f"{i}", f"{i + 500}") for i in range(500)]
    assert sum(d.sign != 0 for d in differences) < 500 * 0.01
    within = sum(abs(d.value) < (d.error or 0) for d in differences)
    assert 0.6 < within / 500 < 0.95


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], (5 - 1) / 6),
        # A tie in one order: 2 pairs agree of the 3 that one tells apart, and the 2 of the other.
        ([1, 2, 3], [1, 2, 2], 2 / math.sqrt(3 * 2)),
        ([1, 1], [1, 2], None),
        ([1], [1], None),
    ],
)
def test_kendalls_tau(one: list[float], other: list[float], expected: float | None) -> None:
    assert kendall(one, other) == (None if expected is None else pytest.approx(expected))


def results(*perplexities: float) -> list[dict[str, Any]]:
    return [
        {"perplexity": p, "curve": [2 * p, p], "bleu": {"13a": 1.0}, "signatures": {"13a": ""}}
        for p in perplexities
    ]


FAILED = [{"failed": "training diverged"}] * 2


def test_outcomes_compare_with_the_papers_direction() -> None:
    names = (BASE, "A/heads=1", "C/layers=2", "C/d_ff=4096", "D/dropout=0", "E", "big")
    found = Findings(
        chosen(names),
        {
            BASE: results(10.0, 10.1),
            "A/heads=1": results(12.0, 12.1),  # worse, as in the paper
            "C/layers=2": results(8.0, 8.1),  # better; in the paper it is worse
            "C/d_ff=4096": results(10.0, 10.11),
            "D/dropout=0": FAILED,
            "E": results(13.0, 13.1),  # worse; in the paper it is the same
            "big": [*results(7.0), FAILED[0]],  # better, as in the paper
        },
    )
    assert {row.name: found.outcome(row) for row in found.variations} == {
        "A/heads=1": Outcome.AGREES,
        "C/layers=2": Outcome.CONTRADICTS,
        "C/d_ff=4096": Outcome.UNSEPARATED,
        "D/dropout=0": Outcome.FAILED,
        "E": Outcome.NEW,
        "big": Outcome.AGREES,
    }


def test_an_arrow_shows_where_bleu_differs() -> None:
    scores = {BASE: (10.0, 10.2), "A/heads=1": (8.0, 8.2), "C/layers=2": (12.0, 12.2)}
    found = Findings(
        chosen((*scores, "E")),
        {
            **{
                name: [{**r, "bleu": {"13a": s}} for r, s in zip(results(9, 9), some, strict=True)]
                for name, some in scores.items()
            },
            "E": [{**r, "bleu": {"13a": 10.3}} for r in results(9, 9)],
        },
    )
    arrows = {row.name: _arrow(found, row, "13a") for row in found.variations}
    assert arrows == {"A/heads=1": " ↓", "C/layers=2": " ↑", "E": ""}


def test_the_last_quarter_shows_whether_training_was_over() -> None:
    found = Findings(chosen((BASE,)), {BASE: results(10.0, 12.0)})
    assert found.last_quarter() == pytest.approx(-math.log(2))
    short = [{**result, "curve": [10.0]} for result in results(10.0)]
    assert Findings(chosen((BASE,)), {BASE: short}).last_quarter() is None


def test_without_base_nothing_can_be_said() -> None:
    with pytest.raises(UserError, match=r"base has failed.*training diverged.*smaller --rate"):
        Findings(chosen((BASE, "E")), {BASE: FAILED, "E": results(1.0)})


# Steps


def test_steps_fill_the_minutes() -> None:
    """Three models on two processes: 3 + 2 seconds on one, 4 on the other."""
    assert makespan([2.0, 4.0, 3.0], 2) == 5.0
    assert makespan([2.0, 4.0, 3.0], 1) == 9.0
    assert steps_in(10, 100.0, [2.0, 4.0, 3.0], 2) == int(0.75 * 500 / 5)
    with pytest.raises(UserError, match="--minutes 1 are too few"):
        steps_in(1, 50.0, [10.0], 1)


def test_the_highest_rate_is_the_papers() -> None:
    for steps in (1, 10, 1_000, 100_000):
        peak = rate_factor(steps) * warmup(steps) ** -0.5
        assert peak == pytest.approx(4000**-0.5)
    assert warmup(100_000) == 4_000


# Processes


def square(n: int, tell: Tell) -> int:
    tell(f"squaring {n}")
    return n * n


def process_id(seconds: float, tell: Tell) -> int:
    time.sleep(seconds)
    return os.getpid()


def killed(number: signal.Signals, tell: Tell) -> None:
    os.kill(os.getpid(), number)
    time.sleep(120)


def refused(tell: Tell) -> None:
    raise UserError("it cannot be")


def full_disk(tell: Tell) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.bin")


def in_two(found: Measurements, tasks: dict[str, Callable[[Tell], Any]]) -> dict[str, Any]:
    return all_in_processes(found, tasks, dict.fromkeys(tasks, 1.0), 2, "numpy")


def test_parts_are_measured_in_processes(tmp_path: Path) -> None:
    told: list[str] = []
    cleaned: list[str] = []
    tasks = {f"n = {n}": partial(square, n) for n in (2, 3)}
    with measurements(tmp_path, {}, told.append) as found:
        for _ in range(2):  # the second time nothing is measured
            values = all_in_processes(
                found, tasks, dict.fromkeys(tasks, 1.0), 2, "numpy", cleaned.append
            )
            assert values == {"n = 2": 4, "n = 3": 9}
        assert sorted(cleaned) == ["n = 2", "n = 2", "n = 3", "n = 3"]
        assert sorted(told)[1:] == ["squaring 2", "squaring 3"]
        assert re.fullmatch(r"1 of 2 done, about 0:00:\d\d left", sorted(told)[0])
        assert found.values() == values


def test_a_full_disk_is_told_as_it_is_without_processes(tmp_path: Path) -> None:
    """An error of the system with its file, and no traceback of a process."""
    with measurements(tmp_path, {}, lambda line: None) as found:
        with pytest.raises(OSError, match="No space left") as caught:
            in_two(found, {"a": full_disk, "b": partial(square, 2)})
        assert caught.value.filename == "model.bin"


def test_what_was_done_before_a_process_was_killed_is_kept(tmp_path: Path) -> None:
    with measurements(tmp_path, {}, lambda line: None) as found:
        assert in_two(found, {"a": partial(process_id, 0.0)})["a"] != os.getpid()
        for number in (signal.SIGKILL, signal.SIGTERM):
            with pytest.raises(UserError, match=rf"the process of b was killed \({number.name}\)"):
                in_two(found, {"b": partial(killed, number), "c": partial(process_id, 60.0)})
        with pytest.raises(UserError, match="it cannot be"):
            in_two(found, {"b": refused, "c": partial(process_id, 60.0)})
        assert found.kept("a")
        assert found.kept("c") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it needs fork")
def test_processes_end_with_the_one_that_has_started_them(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            tasks = {name: partial(says_that_it_runs, tmp_path / name) for name in ("a", "b")}
            with measurements(tmp_path / "out", {}, lambda line: None) as found:
                in_two(found, tasks)
        finally:
            os._exit(1)
    locks = [tmp_path / "a", tmp_path / "b"]
    until(lambda: all(path.is_file() and is_locked(path) for path in locks))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not any(map(is_locked, locks)))


def says_that_it_runs(path: Path, tell: Tell) -> None:
    """By a lock, which the system lets go when the process ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(120)


def is_locked(path: Path) -> bool:
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# The experiment


def measured(out: Path, **changes: Any) -> tuple[str, dict[str, Any]]:
    text = run(EXPERIMENT, replace(TOY, **changes), out, lambda line: None, ["npformer"])
    return text, json.loads((out / "table3.json").read_text(encoding="utf-8"))


def cells(text: str, row: str) -> list[str]:
    """Of a row of the page's table of all rows."""
    [line, *_] = re.findall(rf"^\| {re.escape(row)} \|.*$", text, re.MULTILINE)
    return [cell.strip() for cell in line.strip("|").split("|")]


Toy = tuple[Path, str, dict[str, Any]]
"""Where the experiment was measured, its page, and its JSON."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    out = tmp_path_factory.mktemp("table3") / "out"
    return out, *measured(out)


@pytest.fixture(scope="module")
def corpus(toy: Toy) -> Path:
    return toy[0] / "work" / "corpus" / "corpus"


def test_the_page_has_every_row_beside_the_paper(toy: Toy) -> None:
    out, text, result = toy
    parts = result["measured"]
    seeds = [parts[f"C/layers=2, seed {seed}"] for seed in (1, 2)]
    assert seeds[0]["perplexity"] != seeds[1]["perplexity"]
    mean = math.sqrt(math.prod(s["perplexity"] for s in seeds))
    row = cells(text, "C/layers=2")
    assert row[1:4] == ["N = 2", f"{seeds[0]['parameters'] / 1e6:.2f} M", "6.11"]
    assert row[4].startswith(f"{mean:.2f} ± ")
    assert row[5] == "+24.2 %"
    assert row[8] == "23.7"
    assert "smooth:none" in seeds[0]["signatures"]["paper"]
    assert "| steps | 100,000 (big 300,000) | 4 (all rows) |" in text
    assert "| N, d_model, d_ff of base | 6, 512, 2048 | 3, 32, 128 |" in text
    assert (out / "table3.svg").stat().st_size > 1000
    assert not any((out / "work" / "runs").iterdir())  # models are not kept


def test_one_seed_says_that_nothing_can_be_separated(tmp_path: Path, corpus: Path) -> None:
    changes = {"seeds": 1, "rows": (BASE, "E"), "steps": 1, "tokenize": ("13a",)}
    text, _ = measured(tmp_path / "out", data=corpus, **changes)
    assert "With one seed no row can be separated from base." in text
    assert cells(text, "E")[7] == "no"


def test_minutes_set_the_steps(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most as many as --steps; a multiple of 4, for a validation after each quarter."""
    from train.experiments.table3 import trained, variations

    monkeypatch.setattr(trained, "_SECONDS", 0.05)
    changes: dict[str, Any] = {
        "data": corpus,
        "seeds": 1,
        "rows": (BASE,),
        "tokenize": ("13a",),
        "minutes": 5.0,
    }
    text, result = measured(tmp_path / "at-most", steps=1, **changes)
    assert result["measured"]["seconds a step, base"] > 0
    assert "1 (all rows)" in text
    monkeypatch.setattr(variations, "steps_in", lambda minutes, spent, seconds, jobs: 6)
    told: list[str] = []
    settings = replace(TOY, steps=1_000, **changes)
    text = run(EXPERIMENT, settings, tmp_path / "minutes", told.append, ["npformer"])
    assert "4 (all rows)" in text
    assert "--minutes 5 leave time for 4 of 1,000 steps" in told
    # On a machine with more processors, the models that are left have as many steps.
    monkeypatch.setattr(variations, "steps_in", lambda minutes, spent, seconds, jobs: 12)
    (tmp_path / "minutes" / "parts" / "base-seed-1.json").unlink()
    text = run(EXPERIMENT, settings, tmp_path / "minutes", told.append, ["npformer"])
    assert "4 (all rows)" in text


def test_a_row_that_diverges_is_reported(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.experiments.table3 import trained

    train = train_run

    def diverges(directory: Path, *rest: Any) -> Any:
        if directory.name.startswith("E-"):
            raise DivergedError("training diverged, with 10 steps skipped in a row; resume it")
        return train(directory, *rest)

    monkeypatch.setattr(trained, "train_run", diverges)
    changes = {"seeds": 1, "rows": (BASE, "E"), "steps": 1, "tokenize": ("13a",)}
    text, result = measured(tmp_path / "out", data=corpus, **changes)
    assert cells(text, "E")[7] == "failed"
    assert "| E | 1 model | training diverged, with 10 steps skipped in a row |" in text
    assert "Failed: E." in text
    assert result["measured"]["E, seed 1"] == {
        "failed": "training diverged, with 10 steps skipped in a row"
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"steps": 0}, "give --steps, or --minutes"),
        ({"steps": -1}, "--steps must not be negative"),
        ({"minutes": -1.0}, "--minutes must not be negative"),
        ({"minutes": math.nan}, "--minutes must be a finite number; it is nan"),
        ({"tokenize": ("moses",)}, "has no tokenizer moses"),
        ({"tokenize": ()}, "--tokenize needs"),
        ({"width": 0.3}, "row base has no such size"),
        ({"backend": "torch"}, "backend must be one of numpy, cupy"),
        ({"precision": "bf16"}, "precision bf16 needs a GPU"),
        ({"data": Path("nowhere")}, "nowhere"),
        ({"rows": ("E",)}, "needs base"),
    ],
)
def test_mistakes_are_told_before_the_work(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        measured(tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "parts").exists()


def test_parts_that_are_there_are_not_trained_again(
    toy: Toy,
) -> None:
    out, text, result = toy
    again, _ = measured(out)
    assert again == text
    (out / "parts" / "base-seed-2.json").unlink()
    _, other = measured(out)
    assert other["measured"] == result["measured"]


def test_another_corpus_in_the_same_folder_is_refused(
    tmp_path: Path, corpus: Path, toy: Toy
) -> None:
    from train.grammar_recipe import grammar_corpus

    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    changes = {"seeds": 1, "rows": (BASE,), "steps": 1, "tokenize": ("13a",), "data": data}
    measured(tmp_path / "out", **changes)
    shutil.rmtree(data)
    grammar_corpus(toy[0] / "work" / "corpus" / "text", data, vocab_size=400)
    with pytest.raises(UserError, match="out was begun with other data; give another --out"):
        measured(tmp_path / "out", **changes)


def test_a_process_that_is_killed_within_its_training_is_resumed(
    tmp_path: Path, toy: Toy, corpus: Path
) -> None:
    """And rows that are trained at the same time are those that are trained one by one."""
    settings = replace(TOY, jobs=2, rows=(BASE, "C/layers=2"), seeds=1, data=corpus)
    out = tmp_path / "out"

    def kill(line: str) -> None:
        if line.startswith("base-seed-1: step 2"):
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(UserError, match=r"was killed \(SIGKILL\)"):
        run(EXPERIMENT, settings, out, kill, ["npformer"])
    run(EXPERIMENT, settings, out, lambda line: None, ["npformer"])
    result = json.loads((out / "table3.json").read_text(encoding="utf-8"))
    assert len(result["measured"]) == 2
    assert result["measured"].items() <= toy[2]["measured"].items()
