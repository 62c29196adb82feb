"""Draws a parallel corpus, and holds out what tests generalisation.

**The split is compositional.** A sentence is made of *combinations*: (verb, object noun),
(adjective, noun), and (kind of clause, verb). A hash reserves about one in twelve of them. No
training sentence holds a reserved combination; every held-out sentence holds one at least, in
words that all occur in training, but never in this combination. And where clauses of training
sentences are nested two deep at most, some of the held-out ones go three deep.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from zlib import crc32

from train.grammar.sampler import Sampler
from train.grammar.syntax import NounPhrase, Sentence, clauses, depth, main_clauses, noun_phrases
from train.grammar.writing import Pair, translate, word_forms

TRAIN_DEPTH = 2
HELD_OUT_DEPTH = 3
DEEP_SHARE = 0.1
MIN_WORDS, MAX_WORDS = 4, 16
RESERVED = 12  # one combination in this many

Combination = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Splits:
    """Parallel text in three parts; no sentence of either language is in two of them.

    ``trees``: those of ``valid`` and ``test``, by their source, for ``analyse``.
    """

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]
    trees: dict[str, Sentence] = field(repr=False, compare=False)


def nesting(sentence: Sentence) -> int:
    """How deep the clauses of a sentence are nested; 0 for main clauses alone."""
    return max(depth(clause) for clause in main_clauses(sentence))


def combinations(sentence: Sentence) -> Iterator[Combination]:
    """What a sentence combines: (verb, object), (adjective, noun), (kind of clause, verb)."""
    for main in main_clauses(sentence):
        for clause in clauses(main):
            verb = clause.verb.name
            if clause.role != "main":
                yield clause.role, verb
            if isinstance(clause.object, NounPhrase):
                yield verb, clause.object.noun.english
            for phrase in noun_phrases(clause):
                for adjective in phrase.adjectives:
                    yield adjective.english, phrase.noun.english
                # The relative clause's object is the noun that it belongs to.
                if phrase.relative and phrase.relative.object_is_extracted:
                    yield phrase.relative.verb.name, phrase.noun.english


@cache
def reserved(combination: Combination) -> bool:
    """Whether training must not show a combination; the same for every seed."""
    return crc32(" + ".join(combination).encode()) % RESERVED == 0


def is_new(sentence: Sentence) -> bool:
    """Whether a sentence combines what no training sentence does."""
    return any(reserved(combination) for combination in combinations(sentence))


def fits(pair: Pair) -> bool:
    """Whether both sides have 4 to 16 words."""
    return all(MIN_WORDS <= text.count(" ") + 1 <= MAX_WORDS for text in pair)


def generate(
    pairs: int = 40_000, held_out: int = 1_000, seed: int = 0, more_pairs: int = 0
) -> Splits:
    """Generates a corpus of English sentences and their German translations.

    ``pairs``: training pairs, all distinct. ``held_out``: pairs held out in all, half for
    validation and half for the test; of each, 10 % are nested one clause deeper than any in
    training. ``more_pairs``: training pairs besides, drawn last, so that the held-out part does
    not depend on their number. The same arguments give the same corpus. A training part of less
    than a few thousand pairs knows too few words for the held-out part to be found quickly.
    """
    sampler = Sampler(seed)
    train: dict[str, str] = {}
    seen: set[str] = set()  # the held-out part, in both languages
    held_out_trees: dict[str, Sentence] = {}

    def draw_training(count: int) -> None:
        while len(train) < count:
            tree = sampler.sentence(TRAIN_DEPTH)
            if not is_new(tree):
                pair = translate(tree)
                if fits(pair) and seen.isdisjoint(pair):
                    train.setdefault(*pair)

    draw_training(pairs)
    targets = set(train.values())
    forms = {form for pair in train.items() for text in pair for form in word_forms(text)}

    def new_pairs(sampler: Sampler, depth: int, least: int = 0) -> Iterator[Pair]:
        """Pairs that are new, in known words, and nested at least so deep."""
        while True:
            tree = sampler.sentence(depth)
            if (least and nesting(tree) < least) or not is_new(tree):
                continue
            pair = translate(tree)
            known = all(form in forms for text in pair for form in word_forms(text))
            if known and fits(pair) and targets.isdisjoint(pair[1:]) and seen.isdisjoint(pair):
                seen.update(pair)
                held_out_trees[pair.source] = tree
                yield pair

    shallow = new_pairs(sampler, TRAIN_DEPTH)
    eager = Sampler(seed, embedding_rate=0.7)
    deep = new_pairs(eager, HELD_OUT_DEPTH, least=HELD_OUT_DEPTH)
    share = round(1 / DEEP_SHARE)
    mixed = [next(deep if i % share == 0 else shallow) for i in range(held_out)]
    half = (held_out + 1) // 2
    draw_training(pairs + more_pairs)
    training = [Pair(*pair) for pair in train.items()]
    return Splits(training, mixed[:half], mixed[half:], held_out_trees)
