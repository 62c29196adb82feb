"""Which words of a sentence belong together: its syntactic relations, as positions of words.

    tree = Sampler(seed=0).sentence(depth=2)
    analysis = analyse(tree, "german")
    for kind, head, dependent in analysis.relations:
        print(kind, analysis.words[head], analysis.words[dependent])

English and German linearize a tree as a list of strings. Here their subclasses do the same with
strings that know which part of the tree they come from: a position is where such a word ends up.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from train.grammar.english import English
from train.grammar.german import Fields, German
from train.grammar.lexicon import Case
from train.grammar.syntax import (
    Clause,
    Extracted,
    Nominal,
    NounPhrase,
    Pronoun,
    Sentence,
    clauses,
    main_clauses,
)
from train.grammar.writing import PUNCTUATION, written

RelationKind = Literal["subject", "verb", "determiner", "adjective", "antecedent"]


class Relation(NamedTuple):
    """Two words of a sentence by their positions, counted from 0.

    ========== ============= ===============================================================
    kind       head          dependent
    ========== ============= ===============================================================
    subject    finite verb   its subject: a noun, a name or a pronoun, *who* and relatives too
    verb       finite verb   participle or infinitive, *to*, particle or separated prefix
    determiner noun          each word of its determiner
    adjective  noun          its adjective
    antecedent noun          the relative pronoun or the *it* that stands for it
    ========== ============= ===============================================================
    """

    kind: RelationKind
    head: int
    dependent: int


@dataclass(frozen=True, slots=True)
class Analysis:
    """A sentence in one language, its syntactic relations and its clauses.

    ``clauses`` has the positions of each clause's own words, a main clause before those within it;
    the same clause has the same place in both languages. Each word belongs to one clause, the
    innermost around it: the word that introduces a clause to that clause.
    """

    text: str
    relations: tuple[Relation, ...]
    clauses: tuple[tuple[int, ...], ...]

    @property
    def words(self) -> list[str]:
        """The words as they are written, with the punctuation marks that follow them."""
        return self.text.split()


def analyse(tree: Sentence, language: Literal["english", "german"]) -> Analysis:
    """The relations of a sentence, in the order of its words."""
    said = _LANGUAGES[language].sentence(tree)
    words = [word for word in _words(said) if word not in PUNCTUATION]
    positions = {id(word): position for position, word in enumerate(words)}
    related = sorted(
        (positions[id(dependent)], positions[id(head)], kind)
        for kind, head, dependent in _related(words)
    )
    members: dict[int, list[int]] = {
        id(clause): [] for main in main_clauses(tree) for clause in clauses(main)
    }
    for position, word in enumerate(words):
        members[id(word.clause)].append(position)
    return Analysis(
        written(said),
        tuple(Relation(kind, head, dependent) for dependent, head, kind in related),
        tuple(map(tuple, members.values())),
    )


class _Word(str):
    """A word that knows which part of the tree it comes from."""

    clause: Clause | None = None
    phrase: Nominal | None = None  # what a noun, a name or a pronoun is the head of
    noun: "_Word | None" = None  # what a determiner or an adjective belongs to
    role: Literal["", "subject", "finite", "verb", "determiner", "adjective"] = ""

    def __radd__(self, prefix: str) -> "_Word":
        """The same word with a prefix: einen -> keinen, macht -> aufmacht."""
        return self.become(prefix + str(self))

    def become(self, text: str) -> "_Word":
        """Another form of the same word."""
        word = _Word(text)
        word.__dict__.update(self.__dict__)
        return word


def _related(words: list[_Word]) -> Iterator[tuple[RelationKind, _Word, _Word]]:
    """RelationKind, head and dependent of each relation."""
    finite = {id(word.clause): word for word in words if word.role == "finite"}
    nouns = {id(word.phrase): word for word in words if isinstance(word.phrase, NounPhrase)}
    antecedents = {
        id(word.phrase.relative): word
        for word in words
        if isinstance(word.phrase, NounPhrase) and word.phrase.relative
    }
    for word in words:
        if word.noun and (word.role == "determiner" or word.role == "adjective"):
            yield word.role, word.noun, word
        if (word.role == "subject" or word.role == "verb") and id(word.clause) in finite:
            yield word.role, finite[id(word.clause)], word
        if isinstance(word.phrase, Extracted) and word.phrase.role == "relative":
            yield "antecedent", antecedents[id(word.clause)], word
        if isinstance(word.phrase, Pronoun) and id(word.phrase.antecedent) in nouns:
            yield "antecedent", nouns[id(word.phrase.antecedent)], word


# Marking words


def _words(said: Iterable[str]) -> list[_Word]:
    """Words one by one (*all the* is two); those that are marked already stay as they are."""
    found: list[_Word] = []
    for text in said:
        found += [text] if isinstance(text, _Word) else map(_Word, text.split())
    return found


def _of_clause(said: Iterable[str], clause: Clause) -> list[str]:
    """Words that belong to no embedded clause belong to this one."""
    found = _words(said)
    for word in found:
        word.clause = word.clause or clause
    return [*found]


def _of_verb(said: Iterable[str]) -> list[_Word]:
    """Parts of a verb, the finite one perhaps among them."""
    found = _words(said)
    for word in found:
        word.role = "verb"
    return found


def _noun_group(said: Iterable[str], phrase: NounPhrase) -> list[str]:
    """Determiner, adjectives and noun."""
    *modifiers, noun = _words(said)
    noun.phrase = phrase
    first_adjective = len(modifiers) - len(phrase.adjectives)
    for place, word in enumerate(modifiers):
        word.role = "determiner" if place < first_adjective else "adjective"
        word.noun = noun
    return [*modifiers, noun]


def _nominal(said: Iterable[str], phrase: Nominal, *, subject: bool) -> list[str]:
    """A noun phrase, a name or a pronoun, with what belongs to it."""
    found = _words(said)
    if found and not isinstance(phrase, NounPhrase):
        found[0].phrase = phrase
    if found and subject:
        next(word for word in found if word.phrase is phrase).role = "subject"
    return [*found]


class _English(English):
    """English as marked words."""

    def noun_group(self, phrase: NounPhrase) -> list[str]:
        return _noun_group(super().noun_group(phrase), phrase)

    def nominal(self, phrase: Nominal, *, subject: bool = False) -> list[str]:
        return _nominal(super().nominal(phrase, subject=subject), phrase, subject=subject)

    def extracted(self, tree: Clause) -> list[str]:
        for phrase in (tree.subject, tree.object):
            if isinstance(phrase, Extracted):
                return _nominal(super().extracted(tree), phrase, subject=phrase is tree.subject)
        return []

    def verb_group(self, tree: Clause, *, inverted: bool) -> tuple[list[str], list[str]]:
        before, verbs = map(_of_verb, super().verb_group(tree, inverted=inverted))
        if tree.subject:
            (before or verbs)[0].role = "finite"
        return [*before], [*verbs]

    def particle(self, tree: Clause) -> list[str]:
        return [*_of_verb(super().particle(tree))]

    def clause(self, tree: Clause, *, inverted: bool = False) -> list[str]:
        return _of_clause(super().clause(tree, inverted=inverted), tree)

    def relative(self, tree: Clause) -> list[str]:
        return _of_clause(super().relative(tree), tree)

    def subordinate(self, tree: Clause) -> list[str]:
        return _of_clause(super().subordinate(tree), tree)

    def sentence(self, tree: Sentence) -> list[str]:
        return _of_clause(super().sentence(tree), tree.second or tree.clause)


class _German(German):
    """German as marked words."""

    def noun_group(self, phrase: NounPhrase, case: Case) -> list[str]:
        return _noun_group(super().noun_group(phrase, case), phrase)

    def head(self, phrase: Nominal, case: Case) -> list[str]:
        return _nominal(super().head(phrase, case), phrase, subject=case == "nom")

    def contraction(self, preposition: str, article: str) -> str | None:
        contracted = super().contraction(preposition, article)
        return article.become(contracted) if contracted and isinstance(article, _Word) else None

    def fields(self, tree: Clause) -> Fields:
        said = super().fields(tree)
        (finite,) = _words([said.finite])
        finite.clause, finite.role = tree, "finite"
        return Fields(
            front=_of_clause(said.front, tree),
            subject=_of_clause(said.subject, tree),
            middle=_of_clause(said.middle, tree),
            finite=finite,
            prefix=_of_clause(_of_verb(said.prefix), tree),
            verbs=_of_clause(_of_verb(said.verbs), tree),
            after=_of_clause(said.after, tree),
        )

    def infinitive(self, tree: Clause) -> list[str]:
        return _of_clause(super().infinitive(tree), tree)

    def subordinate(self, tree: Clause) -> list[str]:
        return _of_clause(super().subordinate(tree), tree)

    def sentence(self, tree: Sentence) -> list[str]:
        return _of_clause(super().sentence(tree), tree.second or tree.clause)


_LANGUAGES: dict[str, English | German] = {"english": _English(), "german": _German()}
