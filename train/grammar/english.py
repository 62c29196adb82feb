"""Linearizes trees in English: from the tree to the words."""

from train.grammar.syntax import (
    Clause,
    Extracted,
    Name,
    Nominal,
    NounPhrase,
    Place,
    Pronoun,
    Sentence,
)

BE = {"present": ("am", "are", "is", "are"), "past": ("was", "were", "was", "were")}
VOWELS = "aeiou"


def third_person(base: str) -> str:
    """go -> goes, carry -> carries, buy -> buys."""
    if base.endswith(("s", "sh", "ch", "x", "o")):
        return base + "es"
    if base.endswith("y") and base[-2] not in VOWELS:
        return base[:-1] + "ies"
    return base + "s"


class English:
    """Linearizes trees in English."""

    def nominal(self, phrase: Nominal, *, subject: bool = False) -> list[str]:
        """The words of a noun phrase, a name or a pronoun."""
        if isinstance(phrase, Name):
            return [phrase.text]
        if isinstance(phrase, Pronoun):
            return [phrase.subject if subject else phrase.object]
        if isinstance(phrase, Extracted):
            return []
        words = self.noun_group(phrase)
        if phrase.companion:
            words += ["with", *self.nominal(phrase.companion)]
        if phrase.relative:
            words += self.relative(phrase.relative)
        return words

    def noun_group(self, phrase: NounPhrase) -> list[str]:
        """The determiner, the adjectives and the noun."""
        noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
        words = [adjective.english for adjective in phrase.adjectives] + [noun]
        determiner = phrase.determiner.english
        if determiner == "a" and words[0][0] in VOWELS:
            determiner = "an"
        return [determiner, *words]

    def extracted(self, tree: Clause) -> list[str]:
        """The relative pronoun or the question word that a clause begins with, if it does."""
        for phrase in (tree.subject, tree.object):
            if isinstance(phrase, Extracted):
                return ["that" if phrase.role == "relative" else phrase.role]
        return []

    def relative(self, tree: Clause) -> list[str]:
        """The words of a relative clause."""
        return [*self.extracted(tree), *self.clause(tree)]

    def place(self, where: Place | None) -> list[str]:
        """The words of a place or a direction."""
        return [where.english, *self.nominal(where.phrase)] if where else []

    def verb_group(self, tree: Clause, *, inverted: bool) -> tuple[list[str], list[str]]:
        """The verb that inversion puts before the subject, and the others: *does*, *want to see*.

        Where nothing is inverted the first part still holds an auxiliary, if there is one, since
        *not* and *often* follow it.
        """
        base, past, participle = tree.verb.english
        if tree.subject is None:
            return [], ["to", base]
        person = tree.subject.agreement
        is_past = tree.tense != "present"
        after: list[str] = []
        if tree.tense == "pluperfect":
            return ["had"], [participle]
        if tree.modal:
            lead = tree.modal.past if is_past else tree.modal.present
            if " " not in lead:
                # Not and can are one word.
                return ["cannot" if tree.negated and lead == "can" else lead], [base]
            # had to see, wants to see: the modal is itself the verb that do supports
            after = ["to", base]
            past = lead.split()[0]
            base = "have" if past == "had" else "want"
        elif base == "be":
            return [BE["past" if is_past else "present"][person]], []
        if tree.negated or inverted:
            support = "did" if is_past else "does" if person == 2 else "do"
            return [support], [base, *after]
        finite = past if is_past else third_person(base) if person == 2 else base
        return [], [finite, *after]

    def clause(self, tree: Clause, *, inverted: bool = False) -> list[str]:
        """The words of a clause from its subject on, without what introduces it."""
        before, verbs = self.verb_group(tree, inverted=inverted)
        if tree.negated:
            not_ = [] if before == ["cannot"] else ["not"]
        else:
            not_ = [tree.frequency.english] if tree.frequency else []
        subject = self.nominal(tree.subject, subject=True) if tree.subject else []
        # The object of *to wait for* leaves its preposition behind where it is extracted.
        target = self.nominal(tree.object) if tree.object else []
        if isinstance(tree.object, Pronoun):
            target += self.particle(tree)
        else:
            verbs = [*verbs, *self.particle(tree)]
        verbs = [*verbs, *tree.verb.english_preposition.split()]
        words = [*before, *subject, *not_] if inverted else [*subject, *before, *not_]
        words += verbs
        words += self.nominal(tree.recipient) if tree.recipient else []
        words += target
        words += tree.predicate.english.split() if tree.predicate else []
        words += tree.manner.english.split() if tree.manner else []
        words += self.place(tree.direction) + self.place(tree.place)
        if tree.time and tree.front != "time":
            words += tree.time.english.split()
        if tree.complement:
            words += self.subordinate(tree.complement)
        if tree.adjunct and tree.front != "adjunct":
            words += self.subordinate(tree.adjunct)
        if tree.front == "time" and tree.time:
            words = tree.time.english.split() + words
        elif tree.front == "adjunct" and tree.adjunct:
            words = [*self.subordinate(tree.adjunct), ",", *words]
        return words

    def particle(self, tree: Clause) -> list[str]:
        """What follows a verb, or a pronoun that is its object: wake *up*, wake it *up*."""
        return tree.verb.particle.split()

    def subordinate(self, tree: Clause) -> list[str]:
        """The words of a clause and what introduces it."""
        link = tree.link.english.split() if tree.link else []
        # An infinitive has its own *to*.
        return [*(link if tree.subject else link[:-1]), *self.clause(tree)]

    def sentence(self, tree: Sentence) -> list[str]:
        """The words and punctuation marks of a sentence."""
        first = tree.clause
        if tree.question:
            front = tree.adverb.english.split() if tree.adverb else self.extracted(first)
            asks_for_subject = isinstance(first.subject, Extracted)
            return [*front, *self.clause(first, inverted=not asks_for_subject), "?"]
        words = self.clause(first)
        if tree.second and tree.conjunction:
            words += [",", tree.conjunction.english, *self.clause(tree.second)]
        return [*words, "."]
