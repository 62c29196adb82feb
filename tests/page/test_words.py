"""Pieces join to words, and weights between pieces to weights between words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.page.answers import ATTENTION, PREDICTED, SOURCE

if TYPE_CHECKING:
    from playwright.sync_api import Page

JOINED = """async (pieces) => {
  const { joined } = await import("/static/words.js");
  return joined(pieces).map(({ text, places, mark }) => [text, places, mark]);
}"""
BETWEEN = """async ({ weights, rows, columns }) => {
  const { joined } = await import("/static/words.js");
  const { Matrix } = await import("/static/weights.js");
  const words = Matrix.of(weights).between(joined(rows), joined(columns));
  return Array.from({ length: words.rows }, (_, row) => words.row(row));
}"""


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["▁A", "▁dog", "</s>"], ["A", "dog", "end"]),
        (["▁Ka", "tz", "e", "."], ["Katze", "."]),
        (["▁(", "no", ")", ",", "▁he"], ["(", "no", ")", ",", "he"]),
        (["▁don", "'", "t"], ["don't"]),
        (["▁", "x", "y", "▁z"], ["xy", "z"]),
        (["▁", "</s>"], ["␣", "end"]),
        (["<s>", "Ein"], ["start", "Ein"]),
        (["▁", "<0xD7>", "<0xA9>", "<0xD7>", "<0x9C>"], ["של"]),
        (["▁a", "<0xFF>"], ["aFF"]),
        (["▁x", "<0x2C>", "▁y"], ["x", ",", "y"]),
        (["▁...", "▁!", "?"], ["...", "!?"]),
        (["▁>>de<<", "▁<unk>"], [">>de<<", "<unk>"]),
        (["▁im", "▁", "mer"], ["im", "mer"]),
        (["constructor"], ["constructor"]),
        (["▁a", "valueOf", "</s>"], ["avalueOf", "end"]),
        (["▁私", "は", "学生", "です", "。", "</s>"], ["私", "は", "学生", "です", "。", "end"]),
        (["▁", "ผม", "รัก", "คุณ"], ["ผม", "รัก", "คุณ"]),
        ([], []),
    ],
)
def test_pieces_join_to_words(page: Page, pieces: list[str], words: list[str]) -> None:
    found = page.evaluate(JOINED, pieces)
    assert [text for text, _, _ in found] == words
    assert [place for _, places, _ in found for place in places] == list(range(len(pieces)))


def test_only_marks_are_marks(page: Page) -> None:
    found = page.evaluate(JOINED, ["<s>", "▁end", "</s>"])
    assert [mark for _, _, mark in found] == [True, False, True]


def test_weights_between_words_are_sums_over_columns_and_means_over_rows(page: Page) -> None:
    weights = np.array(ATTENTION["cross"][1][2])
    arguments: dict[str, Any] = {"rows": PREDICTED, "columns": SOURCE, "weights": weights.tolist()}
    found = np.array(page.evaluate(BETWEEN, arguments))
    columns = np.stack(
        [weights[:, 0], weights[:, 1], weights[:, 2:4].sum(axis=1), *weights[:, 4:].T]
    )
    expected = np.stack(
        [columns[:, 0], columns[:, 1], columns[:, 2:4].mean(axis=1), *columns[:, 4:].T]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-3)
