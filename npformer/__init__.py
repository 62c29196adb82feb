"""The Transformer of "Attention Is All You Need" on NumPy and CuPy.

from npformer import Translator
Translator.load("model/").translate(["A dog runs."])[0].text
"""

import autograd

if not hasattr(autograd, "check_gradients"):
    raise ImportError(
        "npformer brings a package autograd of its own, and another one of that name is found "
        f"before it ({autograd.__file__}); install npformer into a new environment"
    )

from npformer.batch import Batch
from npformer.config import TransformerConfig
from npformer.errors import UserError
from npformer.packed import Packed, pack, unpack
from npformer.search import SearchSettings, search
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.transformer import Transformer
from npformer.translator import Translation, Translator

__all__ = [
    "Batch",
    "Packed",
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
