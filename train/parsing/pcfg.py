"""A probabilistic context-free grammar read off a treebank, and the best parse by it (CKY)."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.parsing.binarised import Binary, Markovisation, Pair, Symbol, Word, unbinarised
from train.parsing.trees import Node, leaves
from train.parsing.unknown_words import Tagger

Scores = NDArray[np.float32]

_THREADS = 4  # each with the memory of a sentence; NumPy works on several at once
LONGEST = 300  # words: time grows with the third power, and memory, here 2 GB, with the second


class Pcfg:
    """A grammar whose rules have the relative frequencies of a treebank.

    Every rule has two symbols on its right side, or is a word under its tag. Rules with the same
    two are found together, as a `pair`.
    """

    def __init__(self, trees: Sequence[Node], markovisation: Markovisation) -> None:
        """trees: of a treebank, at least one."""
        rules: Counter[tuple[Symbol, Symbol, Symbol]] = Counter()
        words: Counter[Symbol] = Counter()
        roots: Counter[Symbol] = Counter()
        for tree in trees:
            binary = markovisation.binarised(tree)
            roots[binary.symbol] += 1
            for node in _nodes(binary):
                if isinstance(node, Word):
                    words[node.symbol] += 1
                else:
                    rules[node.symbol, node.left.symbol, node.right.symbol] += 1
        total = words.copy()
        for (parent, _, _), count in rules.items():
            total[parent] += count

        self.symbols = sorted(total, key=str)
        ids = {symbol: i for i, symbol in enumerate(self.symbols)}
        self._tagger = Tagger(leaf for tree in trees for leaf in leaves(tree))
        tags = {tag: i for i, tag in enumerate(self._tagger.tags)}
        self._words = np.array([ids[symbol] for symbol in words])
        self._tags = np.array([tags[symbol.labels[-1]] for symbol in words])
        self._word_log_p = np.log([words[symbol] / total[symbol] for symbol in words])
        self._roots = np.full(len(ids), -np.inf, np.float32)
        for symbol, count in roots.items():
            self._roots[ids[symbol]] = np.log(count / len(trees))

        pairs = sorted({(ids[left], ids[right]) for _, left, right in rules})
        self.left, self.right = np.array(pairs, np.int64).reshape(-1, 2).T
        self._kinds = self._all_kinds(set(words), {parent for parent, _, _ in rules})
        pair_ids = {pair: i for i, pair in enumerate(pairs)}
        by_parent = sorted(rules, key=lambda rule: ids[rule[0]])
        self._pair = np.array([pair_ids[ids[b], ids[c]] for _, b, c in by_parent], np.int64)
        self._log_p = np.log([rules[r] / total[r[0]] for r in by_parent]).astype(np.float32)
        self._rule_parent = np.array([ids[r[0]] for r in by_parent], np.int64)
        self._parents, self._first = np.unique(self._rule_parent, return_index=True)

    def _all_kinds(self, words: set[Symbol], phrases: set[Symbol]) -> list[_Kind]:
        """The kinds of pairs. words, phrases: symbols of one word, and of several; or of both."""
        of_words = np.array([symbol in words for symbol in self.symbols], bool)
        of_phrases = np.array([symbol in phrases for symbol in self.symbols], bool)
        kinds = []
        for left_is_word, right_is_word in itertools.product((True, False), repeat=2):
            lefts = of_words if left_is_word else of_phrases
            rights = of_words if right_is_word else of_phrases
            chosen = np.flatnonzero(lefts[self.left] & rights[self.right])
            kinds.append(
                _Kind(chosen, self.left[chosen], self.right[chosen], left_is_word, right_is_word)
            )
        return kinds

    def parse_all(self, sentences: Sequence[Sequence[str]]) -> list[Node | None]:
        """The most probable tree over each sentence; several are parsed at the same time."""
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.parse, sentences))

    def parse(self, sentence: Sequence[str]) -> Node | None:
        """The most probable tree over these words; None if there is none, or they are too many."""
        if len(sentence) > LONGEST:
            return None
        chart = self._chart(sentence)
        root = int(np.argmax(chart[-1][0] + self._roots))
        if not np.isfinite(chart[-1][0, root] + self._roots[root]):
            return None
        [tree] = unbinarised(self._best(chart, sentence, root, 0, len(sentence)))
        assert isinstance(tree, Node)
        return tree

    def _chart(self, sentence: Sequence[str]) -> list[Scores]:
        """For each length, from 1: [begins, symbols], the log probability of the best subtree."""
        n = len(sentence)
        cells = np.full((n, len(self.symbols)), -np.inf, np.float32)
        for i, word in enumerate(sentence):
            cells[i, self._words] = self._tagger.log_p(word)[self._tags] + self._word_log_p
        chart = [cells]
        # For each kind and length: [begins, pairs], the scores of the left and the right symbols.
        lefts = [[cells[:, kind.left]] for kind in self._kinds]
        rights = [[cells[:, kind.right]] for kind in self._kinds]
        for length in range(2, n + 1):
            begins = n - length + 1
            pairs = np.full((begins, len(self.left)), -np.inf, np.float32)
            for kind, left, right in zip(self._kinds, lefts, rights, strict=True):
                best = np.full((begins, len(kind.pairs)), -np.inf, np.float32)
                both = np.empty_like(best)
                for k in kind.splits(length):
                    np.add(left[k - 1][:begins], right[length - k - 1][k : k + begins], out=both)
                    np.maximum(best, both, out=best)
                pairs[:, kind.pairs] = np.maximum(pairs[:, kind.pairs], best)
            cells = np.full((begins, len(self.symbols)), -np.inf, np.float32)
            with_rule = pairs[:, self._pair] + self._log_p
            cells[:, self._parents] = np.maximum.reduceat(with_rule, self._first, axis=1)
            chart.append(cells)
            for kind, left, right in zip(self._kinds, lefts, rights, strict=True):
                left.append(cells[:, [] if kind.left_is_word else kind.left])
                right.append(cells[:, [] if kind.right_is_word else kind.right])
        return chart

    def _best(
        self, chart: list[Scores], sentence: Sequence[str], symbol: int, begin: int, end: int
    ) -> Binary:
        """The subtree with the score that the chart has for a symbol over some words."""
        name = self.symbols[symbol]
        length = end - begin
        if length == 1:
            return Word(name, sentence[begin])
        rules = slice(*np.searchsorted(self._rule_parent, [symbol, symbol + 1]))
        pairs = self._pair[rules]
        left, right = self.left[pairs], self.right[pairs]
        scores = [
            chart[k - 1][begin, left] + chart[length - k - 1][begin + k, right]
            for k in range(1, length)
        ]
        split, rule = np.unravel_index(
            np.argmax(np.stack(scores) + self._log_p[rules]), (length - 1, len(pairs))
        )
        middle = begin + 1 + int(split)
        return Pair(
            name,
            self._best(chart, sentence, int(left[rule]), begin, middle),
            self._best(chart, sentence, int(right[rule]), middle, end),
        )


class _Kind(NamedTuple):
    """Pairs that come together at the same splits: most symbols are of words alone, or never.

    pairs: indices of them. left, right: the symbols of each
    """

    pairs: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    left_is_word: bool
    right_is_word: bool

    def splits(self, length: int) -> range:
        """How many of the words of a span may belong to the left symbol."""
        most = 1 if self.left_is_word else length - (1 if self.right_is_word else 2)
        least = length - 1 if self.right_is_word else (1 if self.left_is_word else 2)
        return range(least, most + 1)


def _nodes(tree: Binary) -> Iterator[Binary]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Pair):
            waiting += [node.left, node.right]
