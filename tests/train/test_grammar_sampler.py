"""Sentences drawn from the grammar: each source has one translation, and word order matters."""

from collections import defaultdict
from dataclasses import replace

from train.grammar import splits
from train.grammar.sampler import Sampler
from train.grammar.syntax import NounPhrase, Sentence, clauses, main_clauses
from train.grammar.verbs import VERBS as ALL_VERBS
from train.grammar.writing import translate, word_forms


def test_no_source_has_two_translations() -> None:
    sampler = Sampler(seed=1)
    translations: dict[str, str] = {}
    for _ in range(12_000):
        source, target = translate(sampler.sentence(depth=2))
        assert translations.setdefault(source, target) == target


def test_every_verb_occurs_in_main_and_subordinate_clauses_of_training() -> None:
    roles = defaultdict(set)
    sampler = Sampler(seed=0)
    for _ in range(10_000):
        tree = sampler.sentence(splits.TRAIN_DEPTH)
        if not splits.is_new(tree):
            for main in main_clauses(tree):
                for inner in clauses(main):
                    roles[inner.verb.name].add(inner.role)
    for verb in ALL_VERBS:
        assert "main" in roles[verb.name]
        assert len(roles[verb.name]) >= 4


def swapped(tree: Sentence) -> Sentence | None:
    """The sentence with the nouns of subject and object exchanged, where the verb allows it."""
    main = tree.clause
    subject, target = main.subject, main.object
    if not (isinstance(subject, NounPhrase) and isinstance(target, NounPhrase)):
        return None
    simple = not (subject.relative or target.relative or main.adjunct or main.complement)
    either = {subject.kind, target.kind} <= main.verb.subjects & main.verb.objects
    if not simple or not either or subject.plural != target.plural or main.verb.only:
        return None
    return replace(
        tree,
        clause=replace(
            main,
            subject=replace(subject, noun=target.noun),
            object=replace(target, noun=subject.noun),
        ),
    )


def test_exchanging_subject_and_object_changes_the_target_and_not_the_source_words() -> None:
    sampler = Sampler(seed=6)
    exchanges = [(tree, swapped(tree)) for tree in (sampler.sentence(0) for _ in range(5_000))]
    pairs = [(translate(tree), translate(other)) for tree, other in exchanges if other]
    assert len(pairs) > 250
    for one, other in pairs:
        # "a" and "an" are one word here
        bags = [
            sorted("a" if word == "an" else word for word in word_forms(pair.source))
            for pair in (one, other)
        ]
        assert bags[0] == bags[1]
        assert one.target != other.target
