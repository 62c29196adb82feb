"""A synchronous grammar of English and German, and the corpus that it generates.

One abstract tree (``syntax``) is drawn at random (``sampler``) from the words (``lexicon``,
``verbs``, ``function_words``, ``numbers``) and said in both languages (``english``, ``german``).
German makes it a task: cases and genders, the verb second or last, prefixes that leave their
verbs, halb vier for half past three. Each English sentence has one translation, which word order
decides: a bag of words says little.
"""

from train.grammar.relations import analyse
from train.grammar.sampler import Sampler
from train.grammar.splits import Splits, generate
from train.grammar.writing import Pair

__all__ = ["Pair", "Sampler", "Splits", "analyse", "generate"]
