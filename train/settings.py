"""The settings of a training run, which a YAML file gives and flags override."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from autograd.backend import current, names
from npformer.config import TransformerConfig, current_fields
from npformer.errors import UserError
from npformer.model_card import LANGUAGE, LICENSE
from npformer.search_settings import LARGEST_BEAM
from train.schedule import Schedule
from train.wording import shown

_LARGEST_RATE = 1e6  # learning rates far beyond use, and far from overflow
_LARGEST_WHOLE = 2**63 - 1

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a word"}


def check_kinds(settings: Any, prefix: str = "") -> None:
    """Raise UserError unless every field of a dataclass has a value of its declared type.

    An int is accepted as a float; True and False are not numbers.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if value is None and NoneType in hints:
            continue
        kind = hints[0]
        if hints == (bool, str):
            holds, wanted = type(value) in hints, "true, false or a word"
        elif get_origin(kind) is Literal:
            choices = names() if name == "backend" else get_args(kind)
            holds, wanted = value in choices, f"one of {', '.join(choices)}"
        elif kind in _KINDS:
            known = (int, float) if kind is float else (kind,)
            holds, wanted = type(value) in known, _KINDS[kind]
        else:
            continue
        if not holds:
            raise UserError(f"{prefix}{name} must be {wanted}; it is {shown(value)}")
        if type(value) is int and abs(value) > _LARGEST_WHOLE:
            raise UserError(f"{prefix}{name} must lie within -2^63 and 2^63")


BleuTokenizer = Literal[
    "13a",
    "none",
    "paper",
    "intl",
    "char",
    "zh",
    "ja-mecab",
    "ko-mecab",
    "spm",
    "flores101",
    "flores200",
]
"""sacreBLEU's tokenizers, and that of the paper's own scores."""

OF_THE_CORPUS = ("vocab_size", "source_vocab_size")
"""Fields of TransformerConfig that the corpus determines."""

_model_fields: Any = dataclasses.make_dataclass(
    "_ModelFields",
    [
        ("preset", str, "base"),
        *(
            (name, hint | None, None)
            for name, hint in get_type_hints(TransformerConfig).items()
            if name not in OF_THE_CORPUS
        ),
    ],
    frozen=True,
    namespace={"__post_init__": lambda self: check_kinds(self, "model.")},
)


class ModelSettings(_model_fields):  # type: ignore[misc]
    """A model preset, and the fields of TransformerConfig that differ from it."""


def may_change(default: Any) -> Any:
    """A setting that may change on resume, with a notice."""
    return field(default=default, metadata={"may_change": True})


def never(default: Any) -> Any:
    """A setting that must not change on resume."""
    return field(default=default, metadata={"may_change": False})


MODEL_MAY_CHANGE = frozenset(
    {"dropout", "attention_dropout", "ffn_dropout", "smoothing", "smoothing_over", "longest"}
)
"""Fields of TransformerConfig that may change on resume, with a notice.

The others decide what the parameters are, or what they mean.
"""


@dataclass(frozen=True)
class TrainSettings:
    """Everything that a run depends on but its corpus. The defaults are the paper's.

    Attributes:
        model: a preset, and fields of TransformerConfig that differ from it
        init_from: a directory of a model, with whose parameters the run begins
        backend: numpy, or cupy for a GPU; by default the current one
        precision: float32, or on a GPU tf32 (matrix products with 10-bit mantissas) or bf16
            (matrices and activations in bfloat16; parameters, statistics and Adam in float32)
        seed: of the initial parameters, the order of batches and dropout
        max_steps: training steps
        max_minutes: wall-clock minutes after which training ends in any case (0: no limit)
        sampling: strength with which each epoch has other segmentations of the text: BPE-dropout's
            probability, or the exponent of subword regularisation (0: none); the corpus must hold
            its text (prepare --keep-text)
        batch_tokens: most source tokens, and most target tokens, in one batch
        accumulate: batches whose gradients are summed for one step
        record: on a GPU, record the work of a step once for each of a few sizes of batches, and
            replay it (CUDA graphs), so that small batches do not wait for the processor
        schedule: paper, inverse_sqrt, cosine or constant
        warmup: steps until the learning rate is highest
        peak_rate: the highest learning rate (all schedules but paper)
        rate_factor: multiplies the paper's learning rate
        final_rate: the last learning rate of the cosine schedule
        beta1: decay of Adam's mean of the gradients
        beta2: decay of Adam's mean of their squares
        epsilon: what Adam adds to its denominator
        clip_norm: largest norm of the gradient (0: no clipping, as in the paper)
        max_skipped: steps in a row whose loss or gradient is not finite, after which training ends
        log_every: steps between lines of the log
        validate_every: steps between validations (loss and perplexity)
        bleu_every: steps between validations that also translate and score (0: never)
        bleu_beam: beam of these translations
        bleu_tokenize: sacreBLEU's tokenizer: 13a, or none for text that is tokenised already, or
            ja-mecab, zh, spm ... for languages without spaces; or paper, for BLEU of German as the
            paper counts it: Moses's tokens, compounds split, no smoothing
        samples: sentences of the validation set whose translations are shown and kept, in
            translations.jsonl, at each validation
        best_by: what the best validation is chosen by: loss, bleu or chrf; its model is kept in
            best/ (none: it is not)
        patience: validations in a row without a better score, after which training ends (0: any
            number)
        ema: decay of the exponential moving average of the parameters, which is validated and
            saved in their place (0: none)
        checkpoint_every: steps between checkpoints (0: none but those by minutes)
        checkpoint_minutes: minutes between checkpoints, besides those by steps (0: none)
        keep_checkpoints: how many of the newest to keep, for averaging
        keep_every: checkpoints of steps that are multiples of this are kept as well (0: none)
        source_language: code of the language to translate from, such as en, for the model card;
            that of a fetched dataset is known
        target_language: code of the language to translate to, such as de or pt-BR
        license: licence of the model, for its card, by the identifier that hubs have: apache-2.0
        tensorboard: write event files for TensorBoard: true, for tensorboard/ in the run, or the
            name of a directory
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    init_from: str | None = never(None)
    backend: Literal["numpy", "cupy"] | None = may_change(None)
    precision: Literal["float32", "tf32", "bf16"] = may_change("float32")
    seed: int = never(0)
    max_steps: int = may_change(100_000)
    max_minutes: float = may_change(0.0)
    sampling: float = never(0.0)
    batch_tokens: int = may_change(25_000)
    accumulate: int = may_change(1)
    record: bool = may_change(True)
    schedule: Literal["paper", "inverse_sqrt", "cosine", "constant"] = may_change("paper")
    warmup: int = may_change(4000)
    peak_rate: float = may_change(1e-3)
    rate_factor: float = may_change(1.0)
    final_rate: float = may_change(0.0)
    beta1: float = may_change(0.9)
    beta2: float = may_change(0.98)
    epsilon: float = may_change(1e-9)
    clip_norm: float = may_change(0.0)
    max_skipped: int = may_change(10)
    log_every: int = may_change(50)
    validate_every: int = may_change(1000)
    bleu_every: int = may_change(0)
    bleu_beam: int = may_change(1)
    bleu_tokenize: BleuTokenizer = may_change("13a")  # noqa: RUF009, as immutable as the others
    samples: int = may_change(0)
    best_by: Literal["none", "loss", "bleu", "chrf"] = may_change("none")
    patience: int = may_change(0)
    ema: float = never(0.0)
    checkpoint_every: int = may_change(1000)
    checkpoint_minutes: float = may_change(0.0)
    keep_checkpoints: int = may_change(10)
    keep_every: int = may_change(0)
    source_language: str | None = may_change(None)
    target_language: str | None = may_change(None)
    license: str | None = may_change(None)
    tensorboard: bool | str = may_change(False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, ModelSettings):
            raise UserError(f"model must be ModelSettings; it is {shown(self.model)}")
        check_kinds(self)
        for name in (
            "max_steps",
            "batch_tokens",
            "accumulate",
            "warmup",
            "max_skipped",
            "log_every",
            "validate_every",
            "bleu_beam",
            "keep_checkpoints",
        ):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("bleu_beam", self.bleu_beam <= LARGEST_BEAM, f"at most {LARGEST_BEAM:,}")
        self._require("sampling", 0 <= self.sampling <= 1, "0 to 1")
        # All batches of a step are in memory at the same time.
        self._require("accumulate", self.accumulate <= 10_000, "at most 10,000")
        for name in (
            "max_minutes",
            "clip_norm",
            "bleu_every",
            "seed",
            "samples",
            "patience",
            "checkpoint_minutes",
            "keep_every",
        ):
            self._require(name, 0 <= getattr(self, name) < math.inf, "a number, not negative")
        for name in ("peak_rate", "rate_factor", "final_rate"):
            number = getattr(self, name)
            self._require(name, 0 <= number <= _LARGEST_RATE, f"0 to {_LARGEST_RATE:g}")
        for name in ("beta1", "beta2"):
            # Also below 1 in float32, in which Adam computes.
            number = getattr(self, name)
            self._require(
                name, number >= 0 and float(np.float32(number)) < 1, "at least 0 and below 1"
            )
        smallest = float(np.finfo(np.float32).tiny)
        self._require(
            "epsilon", smallest <= self.epsilon < math.inf, f"more than 0, {smallest:.2g} at least"
        )
        number = float(np.float32(self.ema))
        self._require("ema", self.ema >= 0 and number < 1, "at least 0 and below 1")
        self._check_checkpoints()
        self._check_best()
        self._check_card()
        if (self.backend or current().name) == "numpy" and self.precision != "float32":
            raise UserError(
                f"precision {self.precision} needs a GPU; set backend to cupy, or "
                "precision to float32"
            )

    def _check_checkpoints(self) -> None:
        least = 0 if self.checkpoint_minutes else 1
        self._require(
            "checkpoint_every",
            self.checkpoint_every >= least,
            "at least 1, or 0 with checkpoint_minutes",
        )

    def check_keep_every(self) -> None:
        """Raise UserError if there will be no checkpoints for `keep_every` to keep.

        It is checked when a run begins or is resumed, not when settings are made: the state of an
        older run may have such settings.
        """
        every = self.checkpoint_every
        if self.keep_every and not every:
            raise UserError(
                "keep_every needs checkpoints at fixed steps, not by minutes alone; give "
                "checkpoint_every"
            )
        if self.keep_every and self.keep_every % every:
            raise UserError(
                f"keep_every must be a multiple of checkpoint_every, which is {every}; it is "
                f"{self.keep_every}"
            )

    def _check_best(self) -> None:
        if self.best_by in ("bleu", "chrf") and not self.bleu_every:
            raise UserError(
                f"best_by {self.best_by} needs validations that are scored; give bleu_every, or "
                "best_by loss"
            )
        if self.patience and self.best_by == "none":
            raise UserError("patience needs best_by: loss, bleu or chrf")

    def _check_card(self) -> None:
        for name, pattern, what in (
            ("source_language", LANGUAGE, "the code of a language, such as en or pt-BR"),
            ("target_language", LANGUAGE, "the code of a language, such as en or pt-BR"),
            ("license", LICENSE, "an identifier of a licence in lower case, such as apache-2.0"),
        ):
            value = getattr(self, name)
            self._require(name, value is None or bool(pattern.fullmatch(value)), what)

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise UserError(f"{name} must be {what}; it is {shown(getattr(self, name))}")

    def transformer_config(
        self,
        vocab_size: int,
        source_vocab_size: int | None = None,
        longest: int | None = None,
    ) -> TransformerConfig:
        """The model's configuration; source_vocab_size is None if the vocabulary is shared.

        longest: the most tokens of a source sentence that is trained on, without the end. The model
            may have been trained on longer ones before, as its settings say.
        """
        changes = {k: v for k, v in dataclasses.asdict(self.model).items() if v is not None}
        preset = changes.pop("preset")
        before = changes.get("longest", 1)
        if longest is not None and before > 0:  # otherwise it is refused
            changes["longest"] = max(longest, before)
        if source_vocab_size is not None:
            # With separate vocabularies the source embedding cannot be shared.
            changes["source_vocab_size"] = source_vocab_size
            changes.setdefault("share_embeddings", "target")
        return TransformerConfig.preset(preset, vocab_size=vocab_size, **changes)

    def learning_rate(self, d_model: int) -> Schedule:
        """The learning rate as a function of the step."""
        return Schedule(
            kind=self.schedule,
            warmup=self.warmup,
            peak=self.peak_rate,
            factor=self.rate_factor,
            d_model=d_model,
            steps=self.max_steps,
            final=self.final_rate,
        )


def settings_from_dict(values: dict[str, Any]) -> TrainSettings:
    """Settings from nested dictionaries. Raises UserError for an unknown name."""
    values = dict(values)
    model = values.pop("model", {})
    if not isinstance(model, dict):
        raise UserError(f"model must hold settings, a line each; it is {shown(model)}")
    model = current_fields(model)
    for given, kind, prefix in ((values, TrainSettings, ""), (model, ModelSettings, "model.")):
        known = {f.name for f in dataclasses.fields(kind)}
        for name in given:
            if name not in known:
                raise UserError(f"there is no setting {prefix}{name}")
    return TrainSettings(model=ModelSettings(**model), **values)


def settings_to_dict(settings: TrainSettings) -> dict[str, Any]:
    """Nested dictionaries as `settings_from_dict` reads them, without what is not given."""

    def given(values: dict[str, Any]) -> dict[str, Any]:
        return {
            k: given(v) if isinstance(v, dict) else v for k, v in values.items() if v is not None
        }

    return given(dataclasses.asdict(settings))
