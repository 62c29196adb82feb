"""The embedded corpus: correct German, a function of its English, and a split that asks for more
than memory."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import sacrebleu

from train.grammar import Pair, Splits, generate, lexicon
from train.grammar import splits as split
from train.grammar.function_words import (
    AFTER,
    BECAUSE,
    CAN,
    MUST_NOT,
    PRONOUNS,
    THAT,
    THE,
    TO,
    WHEN,
    A,
)
from train.grammar.numbers import (
    clock,
    english_number,
    english_ordinal,
    german_number,
    german_ordinal,
)
from train.grammar.sampler import Sampler, antecedent
from train.grammar.syntax import (
    Clause,
    Extracted,
    Name,
    NounPhrase,
    Place,
    Pronoun,
    Sentence,
    clauses,
)
from train.grammar.verbs import VERBS as ALL_VERBS

ME, YOU, HE, SHE, WE, THEY = PRONOUNS
NOUNS = {
    noun.english: noun
    for noun in lexicon.PEOPLE + lexicon.ANIMALS + lexicon.THINGS + lexicon.PLACES
}
VERBS = {verb.name: verb for verb in ALL_VERBS}
ADJECTIVES = {adjective.english: adjective for adjective in lexicon.ADJECTIVES}
WHO = Extracted("who", "m", 2, "person")


@pytest.fixture(scope="module")
def corpus() -> Splits:
    return generate()


@pytest.fixture(scope="module")
def held_out(corpus: Splits) -> list[Pair]:
    return corpus.valid + corpus.test


def the(noun: str, adjective: str = "", **more: object) -> NounPhrase:
    adjectives = (ADJECTIVES[adjective],) if adjective else ()
    return NounPhrase(THE, NOUNS[noun], False, adjectives, **more)  # type: ignore[arg-type]


def a(noun: str, adjective: str = "") -> NounPhrase:
    adjectives = (ADJECTIVES[adjective],) if adjective else ()
    return NounPhrase(A, NOUNS[noun], False, adjectives)


def all_the(noun: str, adjective: str) -> NounPhrase:
    return NounPhrase(THE, NOUNS[noun], True, (ADJECTIVES[adjective],))


def relative_to(noun: str) -> Extracted:
    return Extracted("relative", NOUNS[noun].gender, 2, NOUNS[noun].kind)


def clause(subject: object, verb: str, obj: object = None, **more: object) -> Clause:
    return Clause(VERBS[verb], subject, object=obj, **more)  # type: ignore[arg-type]


def said(tree: Clause, **more: object) -> tuple[str, str]:
    return tuple(split.translate(Sentence(tree, **more)))  # type: ignore[arg-type,return-value]


SEE, WAIT_FOR, HELP = "see sehen", "wait warten auf", "help helfen"
OPEN, SLEEP, FOLLOW = "open aufmachen", "sleep schlafen", "follow folgen"
GARDEN = the("garden")


@pytest.mark.parametrize(
    ("tree", "english", "german"),
    [
        # cases and endings
        (
            clause(the("dog", "old"), SEE, the("cat", "small")),
            "The old dog sees the small cat.",
            "Der alte Hund sieht die kleine Katze.",
        ),
        (
            clause(the("cat"), SEE, a("dog", "old")),
            "The cat sees an old dog.",
            "Die Katze sieht einen alten Hund.",
        ),
        (
            clause(a("child", "sad"), HELP, the("boy")),
            *(
                "A sad child helps the boy.",
                "Ein trauriges Kind hilft dem Jungen.",
            ),
        ),
        (
            clause(YOU, HELP, all_the("dog", "old")),
            *(
                "You help the old dogs.",
                "Du hilfst den alten Hunden.",
            ),
        ),
        (
            clause(ME, "give geben", the("key"), recipient=HE),
            "I give him the key.",
            "Ich gebe ihm den Schlüssel.",
        ),
        # being there and getting there
        (
            clause(HE, "run laufen", direction=Place("into", "in", "acc", GARDEN)),
            "He runs into the garden.",
            "Er läuft in den Garten.",
        ),
        (
            clause(HE, SLEEP, place=Place("in", "in", "dat", GARDEN)),
            "He sleeps in the garden.",
            "Er schläft im Garten.",
        ),
        # separable prefixes
        (clause(HE, OPEN, the("door")), "He opens the door.", "Er macht die Tür auf."),
        (
            clause(HE, OPEN, the("door"), tense="past"),
            "He opened the door.",
            "Er hat die Tür aufgemacht.",
        ),
        (
            clause(HE, OPEN, the("door"), modal=CAN),
            "He can open the door.",
            "Er kann die Tür aufmachen.",
        ),
        (
            clause(HE, "say sagen", complement=clause(SHE, OPEN, the("door"), link=THAT)),
            "He says that she opens the door.",
            "Er sagt, dass sie die Tür aufmacht.",
        ),
        (
            clause(HE, "try versuchen", complement=clause(None, OPEN, the("door"), link=TO)),
            "He tries to open the door.",
            "Er versucht, die Tür aufzumachen.",
        ),
        (clause(ME, "pick abholen", HE), "I pick him up.", "Ich hole ihn ab."),
        # sein and haben
        (
            clause(WE, FOLLOW, the("mouse"), tense="past"),
            "We followed the mouse.",
            "Wir sind der Maus gefolgt.",
        ),
        # relative pronouns
        (
            clause(the("dog", relative=clause(relative_to("dog"), SEE, the("cat"))), SLEEP),
            "The dog that sees the cat sleeps.",
            "Der Hund, der die Katze sieht, schläft.",
        ),
        (
            clause(the("dog", relative=clause(the("cat"), SEE, relative_to("dog"))), SLEEP),
            "The dog that the cat sees sleeps.",
            "Der Hund, den die Katze sieht, schläft.",
        ),
        (
            clause(
                ME,
                SEE,
                the("woman", relative=clause(HE, WAIT_FOR, relative_to("woman"))),
                tense="past",
            ),
            "I saw the woman that he waits for.",
            "Ich habe die Frau gesehen, auf die er wartet.",
        ),
        # the verb second, whatever comes first
        (
            clause(HE, SLEEP, time=clock(3, 30), front="time"),
            "At half past three he sleeps.",
            "Um halb vier schläft er.",
        ),
        (
            clause(
                THEY,
                SLEEP,
                tense="past",
                adjunct=clause(HE, SLEEP, tense="pluperfect", link=AFTER),
                front="adjunct",
            ),
            "After he had slept, they slept.",
            "Nachdem er geschlafen hatte, haben sie geschlafen.",
        ),
        (
            clause(ME, SLEEP, tense="past", adjunct=clause(HE, SLEEP, tense="past", link=WHEN)),
            "I slept when he slept.",
            "Ich habe geschlafen, als er geschlafen hat.",
        ),
        # negation
        (
            clause(HE, SEE, a("dog"), negated=True),
            "He does not see a dog.",
            "Er sieht keinen Hund.",
        ),
        (
            clause(HE, WAIT_FOR, Name("Anna"), negated=True, modal=MUST_NOT),
            "He must not wait for Anna.",
            "Er darf nicht auf Anna warten.",
        ),
        (
            clause(HE, SEE, the("dog"), negated=True, tense="past"),
            "He did not see the dog.",
            "Er hat den Hund nicht gesehen.",
        ),
    ],
)
def test_german_is_german(tree: Clause, english: str, german: str) -> None:
    assert said(tree) == (english, german)


def test_questions_turn_the_clause_about() -> None:
    assert said(clause(THEY, OPEN, the("bag"), tense="past"), question=True) == (
        "Did they open the bag?",
        "Haben sie die Tasche aufgemacht?",
    )
    assert said(clause(WHO, HELP, the("dog")), question=True) == (
        "Who helps the dog?",
        "Wer hilft dem Hund?",
    )
    assert said(clause(the("dog"), HELP, WHO), question=True) == (
        "Who does the dog help?",
        "Wem hilft der Hund?",
    )


@pytest.mark.parametrize(("noun", "pronoun"), [("dog", "er"), ("cat", "sie"), ("horse", "es")])
def test_it_has_its_antecedents_gender(noun: str, pronoun: str) -> None:
    main = clause(HE, SEE, the(noun))
    it = antecedent(main)
    assert isinstance(it, Pronoun)
    sleeps = clause(it, SLEEP, link=BECAUSE)
    english, german = said(clause(HE, SEE, the(noun), adjunct=sleeps))
    assert english.endswith("because it sleeps.")
    assert german.endswith(f", weil {pronoun} schläft.")


def test_it_is_not_said_where_two_things_could_be_meant() -> None:
    assert antecedent(clause(the("dog"), SEE, the("cat"))) is None


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (2, "two", "zwei"),
        (17, "seventeen", "siebzehn"),
        (30, "thirty", "dreißig"),
        (21, "twenty-one", "einundzwanzig"),
        (76, "seventy-six", "sechsundsiebzig"),
    ],
)
def test_german_numbers_say_the_units_first(number: int, english: str, german: str) -> None:
    assert (english_number(number), german_number(number)) == (english, german)


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (1, "first", "erste"),
        (7, "seventh", "siebte"),
        (12, "twelfth", "zwölfte"),
        (20, "twentieth", "zwanzigste"),
        (23, "twenty-third", "dreiundzwanzigste"),
    ],
)
def test_ordinals(number: int, english: str, german: str) -> None:
    assert (english_ordinal(number), german_ordinal(number)) == (english, german)


@pytest.mark.parametrize(
    ("hour", "minute", "english", "german"),
    [
        (1, 0, "at one o'clock", "um ein Uhr"),
        (12, 30, "at half past twelve", "um halb eins"),
        (3, 15, "at a quarter past three", "um Viertel nach drei"),
        (3, 45, "at a quarter to four", "um Viertel vor vier"),
        (12, 50, "at ten to one", "um zehn vor eins"),
    ],
)
def test_hours(hour: int, minute: int, english: str, german: str) -> None:
    phrase = clock(hour, minute)
    assert (phrase.english, phrase.german) == (english, german)


def test_training_pairs_are_many_and_distinct(corpus: Splits) -> None:
    assert len(corpus.train) == 40_000 == len({pair.source for pair in corpus.train})
    assert (len(corpus.valid), len(corpus.test)) == (500, 500)


def test_a_seed_determines_the_corpus() -> None:
    assert generate(2_000, 50, seed=3) == generate(2_000, 50, seed=3)
    assert generate(2_000, 50, seed=3) != generate(2_000, 50, seed=4)


def test_the_demonstrations_test_stays_as_it_is(corpus: Splits) -> None:
    """So that scores of all times can be compared: no easier sentences, and no other ones."""
    lines = "".join(f"{pair.source}\n{pair.target}\n" for pair in corpus.test)
    assert sha256(lines.encode()).hexdigest() == (
        "04c2129655e014f551cb7db15e7ad9cbe48f8d7a8032804fa07e33969831ebce"
    )


def test_more_training_pairs_leave_the_rest_as_it_is() -> None:
    few, many = generate(2_000, 50, seed=3), generate(2_000, 50, seed=3, more_pairs=3_000)
    assert (many.valid, many.test) == (few.valid, few.test)
    assert many.train[:2_000] == few.train
    assert len({pair.source for pair in many.train}) == 5_000
    held_out = {text for pair in many.valid + many.test for text in pair}
    assert held_out.isdisjoint(text for pair in many.train for text in pair)


def test_no_source_has_two_translations() -> None:
    sampler = Sampler(seed=1)
    translations: dict[str, str] = {}
    for _ in range(12_000):
        source, target = split.translate(sampler.sentence(depth=2))
        assert translations.setdefault(source, target) == target


def test_sentences_have_a_readable_length(corpus: Splits) -> None:
    lengths = [text.count(" ") + 1 for pair in corpus.train for text in pair]
    assert min(lengths) >= 4
    assert max(lengths) <= 16
    assert 9 <= np.mean(lengths) <= 11


def test_sentences_are_written_as_sentences(corpus: Splits) -> None:
    for text in (text for pair in corpus.train for text in pair):
        assert text[0].isupper()
        assert text[-1] in ".?"
        assert not any(flaw in text for flaw in (" ,", ",,", ",.", ",?", "  "))


def test_held_out_sentences_are_new_in_both_languages(corpus: Splits, held_out: list[Pair]) -> None:
    for side in (0, 1):
        texts = [pair[side] for pair in corpus.train]
        new = [pair[side] for pair in held_out]
        assert not set(texts) & set(new)
        assert len(set(new)) == len(new)


def test_held_out_words_are_known(corpus: Splits, held_out: list[Pair]) -> None:
    for side in (0, 1):
        known = {form for pair in corpus.train for form in split.word_forms(pair[side])}
        assert known.issuperset(form for pair in held_out for form in split.word_forms(pair[side]))


def test_held_out_sentences_combine_what_training_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reads the split off the trees themselves, not off the function that made it."""
    trees: dict[Pair, Sentence] = {}
    translate = split.translate

    def remember(tree: Sentence) -> Pair:
        pair = translate(tree)
        trees.setdefault(pair, tree)
        return pair

    monkeypatch.setattr(split, "translate", remember)
    corpus = generate(8_000, 300, seed=2)
    trained = {c for pair in corpus.train for c in split.combinations(trees[pair])}
    for part in (corpus.valid, corpus.test):
        for pair in part:
            assert not trained.issuperset(split.combinations(trees[pair])), pair
        depths = Counter(split.nesting(trees[pair]) for pair in part)
        assert depths[3] / len(part) == pytest.approx(0.1, abs=0.02)
    assert max(split.nesting(trees[pair]) for pair in corpus.train) == 2


def test_every_verb_is_trained_in_main_and_in_subordinate_clauses() -> None:
    roles = defaultdict(set)
    sampler = Sampler(seed=0)
    for _ in range(10_000):
        tree = sampler.sentence(split.TRAIN_DEPTH)
        if not split.is_new(tree):
            for main in split.main_clauses(tree):
                for inner in clauses(main):
                    roles[inner.verb.name].add(inner.role)
    for verb in ALL_VERBS:
        assert "main" in roles[verb.name]
        assert len(roles[verb.name]) >= 4


def swapped(tree: Sentence) -> Sentence | None:
    """The sentence with the nouns of subject and object exchanged, where both can be either."""
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


def test_a_bag_of_words_does_not_tell_who_does_what_to_whom() -> None:
    sampler = Sampler(seed=6)
    exchanges = [(tree, swapped(tree)) for tree in (sampler.sentence(0) for _ in range(5_000))]
    pairs = [(split.translate(tree), split.translate(other)) for tree, other in exchanges if other]
    assert len(pairs) > 250
    for one, other in pairs:
        # an egg, a dog: the article's form is not what is tested
        bags = [
            sorted("a" if word == "an" else word for word in split.word_forms(pair.source))
            for pair in (one, other)
        ]
        assert bags[0] == bags[1]
        assert one.target != other.target


def test_many_sentences_have_nouns_that_could_change_places(corpus: Splits) -> None:
    """Two people or animals, both one or both many: only order says which is where."""
    classes = {noun.english: (noun.kind == "thing", False) for noun in NOUNS.values()}
    classes |= {noun.english_plural: (noun.kind == "thing", True) for noun in NOUNS.values()}
    exchangeable = 0
    for pair in corpus.train:
        named = {word for word in split.word_forms(pair.source) if word in classes}
        exchangeable += len({classes[word] for word in named}) < len(named)
    assert exchangeable / len(corpus.train) > 0.25


# The best that a dictionary can do


def tokens(text: str) -> list[str]:
    """Words and marks; the first word small, but for names, so that each word has one entry."""
    first, _, rest = text.partition(" ")
    first = first if first in ("I", *lexicon.NAMES) else first.lower()
    return re.findall(r"[\w'-]+|[,.?]", f"{first} {rest}")


def lexical_model(pairs: list[Pair], iterations: int = 8) -> dict[str, list[str]]:
    """IBM model 1: for each source word its likeliest translations, best first."""
    sources, targets, cells = {}, {}, []
    for row, pair in enumerate(pairs):
        source = [sources.setdefault(word, len(sources)) for word in tokens(pair.source)]
        target = [targets.setdefault(word, len(targets)) for word in tokens(pair.target)]
        cells += [(row * 64 + j, f, e) for j, f in enumerate(target) for e in source]
    position, f, e = np.array(cells).T
    position = np.unique(position, return_inverse=True)[1]
    table = np.full((len(sources), len(targets)), 1 / len(targets))
    for _ in range(iterations):
        weight = table[e, f]
        weight /= np.bincount(position, weight)[position]
        counts = np.bincount(e * len(targets) + f, weight, minlength=table.size)
        table = counts.reshape(table.shape)
        table /= table.sum(1, keepdims=True)
    words = list(targets)
    return {s: [words[i] for i in np.argsort(-table[j])[:4]] for s, j in sources.items()}


def improvements(candidates: list[str]) -> Iterator[str]:
    """What else a frequent word might be translated by: nothing, another word, a phrase of two."""
    yield ""
    yield from candidates[1:3]
    yield f", {candidates[0]}"
    yield f"{candidates[0]} {candidates[1]}"


def best_dictionary(
    pairs: list[Pair], score: Callable[[dict[str, str]], float], frequent: int
) -> dict[str, str]:
    """A dictionary whose frequent entries are chosen, one by one, for the score itself."""
    candidates = lexical_model(pairs)
    dictionary = {source: words[0] for source, words in candidates.items()}
    counts = Counter(word for pair in pairs for word in tokens(pair.source))
    best = score(dictionary)
    for source, _ in counts.most_common(frequent):
        for entry in improvements(candidates[source]):
            attempt = {**dictionary, source: entry}
            if (bleu := score(attempt)) > best:
                best, dictionary = bleu, attempt
    return dictionary


def dictionary_bleu(dictionary: dict[str, str], pairs: list[Pair]) -> float:
    """BLEU of word-for-word translation."""
    lines = []
    for pair in pairs:
        words = [dictionary.get(word, word) for word in tokens(pair.source)]
        text = " ".join(word for word in words if word)
        lines.append(text[:1].upper() + text[1:])
    # Its full stops stand apart, which is no mistake: BLEU counts them as words.
    return sacrebleu.corpus_bleu(lines, [[pair.target for pair in pairs]], force=True).score


def test_no_dictionary_translates_it(corpus: Splits, held_out: list[Pair]) -> None:
    """Even one that was fitted to what it is scored on stays below 40 BLEU."""
    tuned = held_out[::10]
    dictionary = best_dictionary(
        corpus.train[:6_000], lambda attempt: dictionary_bleu(attempt, tuned), frequent=25
    )
    assert 5 < dictionary_bleu(dictionary, held_out) < 40
