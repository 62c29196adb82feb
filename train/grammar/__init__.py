"""A synchronous grammar of English and German, and the corpus that it generates.

One abstract tree (``syntax``) is drawn at random (``sampler``) from the words (``lexicon``,
``verbs``, ``function_words``, ``numbers``) and linearized in both languages (``english``,
``german``). German makes it a task: cases and genders, the verb second or last, separable
prefixes, halb vier for half past three. Each English sentence has one translation, which depends
on word order: a bag of words is not enough. ``generate`` makes a corpus (``splits``), and
``analyse`` gives the syntactic relations of a sentence (``relations``).
"""

from train.grammar.relations import analyse
from train.grammar.sampler import Sampler
from train.grammar.splits import Splits, generate
from train.grammar.writing import Pair

__all__ = ["Pair", "Sampler", "Splits", "analyse", "generate"]
