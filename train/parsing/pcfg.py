"""A probabilistic context-free grammar read off a treebank, and the best parse by it (CKY)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from train.parsing.binarised import Binary, Markovisation, Pair, Symbol, Word, unbinarised
from train.parsing.trees import Node, leaves
from train.parsing.unknown_words import Tagger

Scores = NDArray[np.float32]

_THREADS = 4  # each with the memory of a sentence; NumPy works on several at once
LONGEST = 300  # words: time grows with the third power, and memory, here 3 GB, with the second


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
        pair_ids = {pair: i for i, pair in enumerate(pairs)}
        by_parent = sorted(rules, key=lambda rule: ids[rule[0]])
        self._pair = np.array([pair_ids[ids[b], ids[c]] for _, b, c in by_parent], np.int64)
        self._log_p = np.log([rules[r] / total[r[0]] for r in by_parent]).astype(np.float32)
        self._rule_parent = np.array([ids[r[0]] for r in by_parent], np.int64)
        self._parents, self._first = np.unique(self._rule_parent, return_index=True)

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
        lefts, rights = [cells[:, self.left]], [cells[:, self.right]]  # [begins, pairs]
        for length in range(2, n + 1):
            begins = n - length + 1
            best = np.full((begins, len(self.left)), -np.inf, np.float32)
            both = np.empty_like(best)
            for k in range(1, length):
                np.add(lefts[k - 1][:begins], rights[length - k - 1][k : k + begins], out=both)
                np.maximum(best, both, out=best)
            cells = np.full((begins, len(self.symbols)), -np.inf, np.float32)
            with_rule = best[:, self._pair] + self._log_p
            cells[:, self._parents] = np.maximum.reduceat(with_rule, self._first, axis=1)
            chart.append(cells)
            lefts.append(cells[:, self.left])
            rights.append(cells[:, self.right])
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


def _nodes(tree: Binary) -> Iterator[Binary]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Pair):
            waiting += [node.left, node.right]
