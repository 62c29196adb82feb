"""The Transformer of "Attention Is All You Need" on NumPy and CuPy.

from npformer import Translator
Translator.load("model/").translate(["A dog runs."])[0].text
"""

from npformer import own_autograd as own_autograd  # first: it may refuse all the rest

# isort: split
from npformer.batch import Batch
from npformer.beam_search import search
from npformer.config import TransformerConfig
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.packed import Packed, pack, unpack
from npformer.parts import Parts
from npformer.search_settings import SearchSettings
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.transformer import Transformer
from npformer.translation import Translation
from npformer.translator import Translator

__all__ = [
    "Batch",
    "Ensemble",
    "Packed",
    "Parts",
    "SearchSettings",
    "Tokenizer",
    "TokenizerPair",
    "Transformer",
    "TransformerConfig",
    "Translation",
    "Translator",
    "UserError",
    "pack",
    "search",
    "unpack",
]
