"""docs/scaling.md says what was measured and projected, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.report import RESULTS
from benchmarks.scaling_tables import TABLES
from tests.pages import prose_of, text_of

PAGE = "docs/scaling.md"
# The paper's times, NCCL's time to begin, and 512 times 25,000 tokens in millions.
SAID = {"0.4", "1.0", "8.4", "12.8", "4.5"}


def test_the_page_has_every_table() -> None:
    shown = re.findall(r"^<!-- table: (\w+) -->$", text_of(PAGE), re.MULTILINE)
    assert sorted(shown) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_rows_of_as_many_cells(name: str) -> None:
    lines = TABLES[name]()
    assert len(lines) > 3
    assert len({line.count("|") for line in lines}) == 1


def test_every_result_is_in_a_table() -> None:
    results = [json.loads(p.read_text(encoding="utf-8")) for p in RESULTS.glob("*/*.json")]
    shared = [result for result in results if result["benchmark"] == "scaling"]
    assert shared
    for result in shared:
        assert any(f"{result['one_rank']['ms']:,.0f} ±" in line for line in TABLES["memory"]())


def test_every_decimal_of_the_prose_is_in_a_table() -> None:
    tables = "\n".join("\n".join(table()) for table in TABLES.values())
    for number in re.findall(r"(?<![\w.,])\d+\.\d+", prose_of(text_of(PAGE))):
        known = number in SAID or re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", tables)
        assert known, number


def test_what_the_page_says_of_the_projection_holds() -> None:
    """The sentences whose numbers are not in digits."""
    strong = [row.strip("| ").split(" | ") for row in TABLES["strong"]()[2:]]
    for row in strong:
        if row[2].endswith("Ethernet for each 8"):
            assert float(row[5]) < 1  # slower than one GPU
    weak = [row.strip("| ").split(" | ") for row in TABLES["weak"]()[2:]]
    efficient = [row for row in weak if row[2].startswith("NVLink 4, NDR") or row[2] == "NVLink 4"]
    assert all(int(row[6].split()[0]) > 90 for row in efficient)
