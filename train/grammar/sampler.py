"""Draws sentences at random, as trees.

No sentence is drawn that German could translate in two ways. *It* is drawn only where one
antecedent is possible, a relative clause only where nothing that follows could belong to it, and
time and place only where they can belong to one verb.
"""

from typing import Literal

from train.grammar import function_words as words
from train.grammar import verbs
from train.grammar.clause_sampler import ClauseSampler
from train.grammar.coreference import antecedent
from train.grammar.syntax import Clause, Extracted, Sentence, Tense


class Sampler(ClauseSampler):
    """Draws sentences; the same seed draws the same ones."""

    def sentence(self, depth: int) -> Sentence:
        """A sentence whose clauses are nested at most ``depth`` deep."""
        kind = self.random()
        if kind < 0.12:
            return self.question(depth)
        if kind < 0.22:
            return self.pair()
        if kind < 0.52:
            return Sentence(self.with_adjunct(depth))
        return Sentence(self.clause(depth=depth, main=True))

    def question(self, depth: int) -> Sentence:
        """*Does the dog sleep?* *Why does it sleep?* *Who sees the dog?* *Who does the dog see?*"""
        asked = self.random()
        if asked < 0.3:
            return Sentence(self.clause(depth=depth), question=True)
        if asked < 0.4:
            return Sentence(self.clause(depth=depth), question=True, adverb=words.WHY)
        if asked < 0.6:
            who = Extracted("who", "m", 2, "person")
            return Sentence(self.clause(depth=depth, subject=who), question=True)
        what: Literal["who", "what"] = "who" if asked < 0.85 else "what"
        extracted = Extracted(what, "m", 2, "person" if what == "who" else "thing")
        return Sentence(self.clause(extracted=extracted), question=True)

    def pair(self) -> Sentence:
        """Two main clauses; German deshalb (*so*) inverts the second."""
        tense = self.tense()
        first = self.clause(tense=tense)
        second = self.clause(tense=tense, it=antecedent(first))
        return Sentence(first, conjunction=self.pick(words.CONJUNCTIONS), second=second)

    def with_adjunct(self, depth: int) -> Clause:
        """A main clause and an adverbial clause before or after it: why, when or what for."""
        tense = self.tense()
        if self.chance(0.1):
            main = self.clause(tense=tense, plain=True)
            agent = main.subject
            if agent and agent.kind == "person" and main.verb is not verbs.COPULA:
                # Both clauses have the same subject.
                main.adjunct = self.infinitive(agent, depth - 1, words.IN_ORDER_TO)
                return main
        link = self.pick(words.ADJUNCTS[tense])
        inner: Tense = "pluperfect" if link is words.AFTER else tense
        if self.chance(0.45):
            adjunct = self.clause(depth=depth - 1, tense=inner, link=link)
            main = self.clause(tense=tense, it=antecedent(adjunct))
            main.adjunct, main.front = adjunct, "adjunct"
            return main
        main = self.clause(tense=tense, plain=True)
        it = antecedent(main)
        main.adjunct = self.clause(depth=depth - 1, tense=inner, link=link, it=it)
        return main
