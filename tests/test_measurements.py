"""Every figure in README and docs/benchmarks.md was measured: each has its record."""

import json
import re
from typing import Any

import pytest

from benchmarks import table
from benchmarks.report import RESULTS
from tests.pages import ROOT, blocks, prose_of, tables_of, text_of

both = pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])


@pytest.mark.parametrize("name", table.DOCUMENTS)
def test_the_tables_say_what_was_measured(name: str) -> None:
    for table_of in table.DOCUMENTS[name]:
        lines = table_of()
        assert len(lines) > 2
        assert "\n".join(lines) in text_of(name), (
            f"paste what `python -m benchmarks.table {name}` prints"
        )


@both
def test_a_page_has_no_other_tables(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table.main([name])
    assert tables_of(text_of(name)) == tables_of(capsys.readouterr().out)


def test_every_result_of_a_speed_is_in_a_table() -> None:
    """A file that no table takes would be a figure that nobody sees."""
    printed = "\n".join("\n".join(t()) for tables in table.DOCUMENTS.values() for t in tables)
    for backend in ("numpy", "cupy"):
        for results in table.load(backend).values():
            for result in results:
                for ratio in result.get("speedup", {}).values():
                    assert f"| {ratio:.2f} (" in printed, result


def test_each_setting_of_a_peer_has_a_name() -> None:
    text_to_text = pytest.importorskip("benchmarks.text_to_text")
    for division in text_to_text.DIVISIONS:
        for batch in text_to_text.BATCHES:
            name = table._NAMES[f"ctranslate2-float32-{division}-of-{batch}"]
            assert f" of {batch}" in name


def test_the_readme_compares_with_the_fastest_peer() -> None:
    """In six rows, each with a figure of docs/benchmarks.md."""
    rows = table.highlights()[2:]
    assert len(rows) == 6
    for row, (about, name, _) in zip(rows, table._HIGHLIGHTS, strict=True):
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        shown = row.strip("| ").split(" | ")
        assert shown[0] == about
        if peers := result.get("peers"):
            fastest = min(peers, key=lambda peer: peers[peer]["ms"])
            assert shown[3].startswith(f"{result['speedup'][fastest]:.2f} (")
            assert f"| {shown[3]} |" in text_of("docs/benchmarks.md")


def test_what_is_published_is_said_alike() -> None:
    [published] = re.findall(r"\d\d\.\d\d BLEU", table._PUBLISHED)
    for name in ("docs/multi30k.md", "docs/benchmarks.md"):
        assert f"{published} is published" in text_of(name)


def whole_numbers_of(result: Any) -> set[str]:
    """All whole numbers of a result, as a page writes them."""
    if isinstance(result, dict):
        return set().union(*map(whole_numbers_of, result.values()))
    return {f"{result:,}"} if isinstance(result, int) else set()


def is_recorded(number: str) -> bool:
    """Whether a number stands in a table, in a result, in a run's record or in a benchmark.

    It is written as in prose: a decimal, or in thousands, or with a unit of time.
    """
    results = [json.loads(p.read_text(encoding="utf-8")) for p in RESULTS.glob("*/*.json")]
    if any(number in whole_numbers_of(result) for result in results):
        return True
    records = [line for tables in table.DOCUMENTS.values() for t in tables for line in t()]
    records += map(text_of, ("docs/multi30k.md", "docs/gpu.md", "docs/figures/demo.txt"))
    records += [p.read_text(encoding="utf-8") for p in (ROOT / "benchmarks").glob("*.py")]
    written = re.escape(number.replace(" seconds", " s")).replace(",", "[,_]")
    return any(re.search(rf"(?<![\d.,]){written}(?!\d)", record) for record in records)


@both
def test_every_number_of_the_prose_is_recorded(name: str) -> None:
    numbers = r"\d+(?:[.,]\d+)+|\d+ h \d+ min|\d+ m?s\b|\d+ seconds"
    for number in re.findall(numbers, prose_of(text_of(name))):
        assert is_recorded(number), number


@pytest.mark.parametrize("number", ["41.31", "1,993", "4 h 11 min", "51 s", "7.77", "216,864"])
def test_a_number_that_nobody_measured_is_noticed(number: str) -> None:
    assert not is_recorded(number)


@both
def test_what_a_run_has_printed_is_in_its_record(name: str) -> None:
    records = (text_of("docs/figures/demo.txt") + text_of("docs/multi30k.md")).split("\n")
    lines = [line for block in blocks("", text_of(name)) for line in block.split("\n")]
    assert any(line.startswith("BLEU = ") for line in lines)
    assert [line for line in lines if line not in ("", "...", *records)] == []


def test_pre_norm_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    score = {"bleu": 30.0, "signature": "a|b"}
    common = {
        "config": "base",
        "seed": 1,
        "steps": 9,
        "training_s": 5.0,
        "scores": {"a set": score},
    }
    result = {"benchmark": "gpu_base", "norm": "post", **common}
    result["pre_norm"] = {**result, "norm": "pre", "scores": {"a set": {**score, "bleu": 29.5}}}
    interrupted = {key: value for key, value in result.items() if key != "scores"}
    del interrupted["pre_norm"]
    monkeypatch.setattr(table, "load", lambda backend: {"h100": [result, interrupted]})
    rows = table.learned()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [
        "base, seed 1",
        "base, seed 1, pre-norm",
    ]
    assert ["30.00" in rows[0], "29.50" in rows[1]] == [True, True]
