"""Relations of 1,500 generated sentences, compared with their trees and the lexicon."""

from collections import Counter

import pytest

from tests.train.trees import (
    ADJECTIVES,
)
from train.grammar import Sampler, analyse, generate
from train.grammar.english import BE, third_person
from train.grammar.german import HABEN, SEIN, present
from train.grammar.syntax import (
    Clause,
    Extracted,
    Name,
    NounPhrase,
    Pronoun,
    Sentence,
    clauses,
    main_clauses,
    noun_phrases,
)
from train.grammar.writing import translate

LANGUAGES = ("english", "german")


@pytest.fixture(scope="module")
def trees() -> list[Sentence]:
    sampler = Sampler(seed=5, embedding_rate=0.6)
    return [sampler.sentence(depth=3) for _ in range(1_500)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_analysis_has_the_text_of_the_translation(trees: list[Sentence], language: str) -> None:
    for tree in trees:
        written = translate(tree)[LANGUAGES.index(language)]
        assert analyse(tree, language).text == written  # type: ignore[arg-type]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_finite_clause_has_one_subject_and_one_finite_verb(
    trees: list[Sentence], language: str
) -> None:
    finite = 0
    for tree in trees:
        analysis = analyse(tree, language)  # type: ignore[arg-type]
        all_clauses = [inner for main in main_clauses(tree) for inner in clauses(main)]
        assert len(analysis.clauses) == len(all_clauses)
        for inner, own in zip(all_clauses, analysis.clauses, strict=True):
            subjects = [r for r in analysis.relations if r.kind == "subject" and r.dependent in own]
            assert len(subjects) == (inner.subject is not None)
            for relation in analysis.relations:
                if relation.kind in ("subject", "verb"):
                    assert (relation.head in own) == (relation.dependent in own)
            finite += len(subjects)
    assert finite > len(trees)


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_word_is_in_one_clause(trees: list[Sentence], language: str) -> None:
    for tree in trees:
        analysis = analyse(tree, language)  # type: ignore[arg-type]
        positions = sorted(position for own in analysis.clauses for position in own)
        assert positions == list(range(len(analysis.words)))


def forms(phrase: object, language: str) -> set[str]:
    """The forms that the lexicon gives a noun, a name or a pronoun as a subject."""
    match phrase, language:
        case Name(), _:
            return {phrase.text}
        case Pronoun(), "english":
            return {phrase.subject}
        case Pronoun(), _:
            return {phrase.nom}
        case Extracted(), "english":
            return {"that" if phrase.role == "relative" else phrase.role}
        case Extracted(), _:
            return {"der", "die", "das", "wer", "was"}
        case NounPhrase(), "english":
            return {phrase.noun.english_plural if phrase.plural else phrase.noun.english}
        case NounPhrase(), _:
            return {phrase.noun.german_plural if phrase.plural else phrase.noun.german}
    raise AssertionError(phrase)


def finite_forms(tree: Clause, language: str) -> set[str]:
    """The forms that the finite verb of a clause may have."""
    assert tree.subject is not None
    person, verb = tree.subject.agreement, tree.verb
    if language == "english":
        base, past, _ = verb.english
        modal = {tree.modal.present, tree.modal.past, "cannot"} if tree.modal else set()
        if tree.modal or tree.tense == "pluperfect":
            support = {"do", "does", "did", "wants", "had"}
            return {form.split()[0] for form in modal if form} | support
        if base == "be":
            return {BE["present"][person], BE["past"][person]}
        return {base, past, third_person(base), "do", "does", "did"}
    if tree.modal:
        return {table[person] for table in (tree.modal.german, tree.modal.german_past) if table}
    auxiliaries = {table[tense][person] for table in (HABEN, SEIN) for tense in ("present", "past")}
    finite = present(verb, person)
    return {finite, verb.prefix + finite} if tree.tense == "present" else auxiliaries


@pytest.mark.parametrize("language", LANGUAGES)
def test_subjects_and_finite_verbs_are_the_words_of_the_tree(
    trees: list[Sentence], language: str
) -> None:
    for tree in trees:
        analysis = analyse(tree, language)  # type: ignore[arg-type]
        words = [word.strip(",.?").lower() for word in analysis.words]
        all_clauses = [inner for main in main_clauses(tree) for inner in clauses(main)]
        for inner, own in zip(all_clauses, analysis.clauses, strict=True):
            for kind, head, dependent in analysis.relations:
                if kind == "subject" and dependent in own:
                    subjects = {form.lower() for form in forms(inner.subject, language)}
                    assert words[dependent] in subjects, analysis
                    assert words[head] in finite_forms(inner, language), analysis


@pytest.mark.parametrize("language", LANGUAGES)
def test_determiners_and_adjectives_precede_their_noun(
    trees: list[Sentence], language: str
) -> None:
    adjectives = {adjective.english: adjective.stem for adjective in ADJECTIVES.values()}
    for tree in trees:
        analysis = analyse(tree, language)  # type: ignore[arg-type]
        all_clauses = [inner for main in main_clauses(tree) for inner in clauses(main)]
        phrases = [phrase for inner in all_clauses for phrase in noun_phrases(inner)]
        kinds = Counter(relation.kind for relation in analysis.relations)
        assert kinds["adjective"] == sum(len(phrase.adjectives) for phrase in phrases)
        # Every noun has a determiner, of one word or more, before its adjectives.
        heads = {r.head for r in analysis.relations if r.kind == "determiner"}
        assert len(heads) == len(phrases)
        for kind, head, dependent in analysis.relations:
            if kind == "determiner":
                assert 1 <= head - dependent <= 3
            if kind == "adjective":
                assert head - dependent == 1
                word = analysis.words[dependent]
                assert word in adjectives or word.startswith(tuple(adjectives.values()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_antecedents_are_the_nouns_that_pronouns_stand_for(
    trees: list[Sentence], language: str
) -> None:
    pronouns: Counter[str] = Counter()
    for tree in trees:
        analysis = analyse(tree, language)  # type: ignore[arg-type]
        found = [r for r in analysis.relations if r.kind == "antecedent"]
        all_clauses = [inner for main in main_clauses(tree) for inner in clauses(main)]
        its = [
            phrase
            for inner in all_clauses
            for phrase in (inner.subject, inner.object)
            if isinstance(phrase, Pronoun) and phrase.antecedent
        ]
        relatives = [inner for inner in all_clauses if inner.role == "relative"]
        assert len(found) == len(its) + len(relatives)
        for relation in found:
            pronouns[analysis.words[relation.dependent].strip(",.?").lower()] += 1
            assert analysis.words[relation.head][0].isupper() or language == "english"
        for it in its:
            assert it.antecedent is not None
            noun = it.antecedent.noun
            stems = (noun.english if language == "english" else noun.german).lower()
            heads = [analysis.words[r.head].lower() for r in found]
            assert any(head.startswith(stems) for head in heads)
    expected = {"it", "that"} if language == "english" else {"er", "sie", "es", "der", "den", "dem"}
    assert expected <= pronouns.keys()


def test_held_out_pairs_have_their_trees() -> None:
    corpus = generate(2_000, 50, seed=3)
    for pair in corpus.valid + corpus.test:
        assert translate(corpus.trees[pair.source]) == pair
