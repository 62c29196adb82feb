"""The model cards of a run: its own, that of its best model, and that of a mean of checkpoints."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from npformer.model_card import CARD, ModelCard, code, table, write_card
from npformer.parts import PAPER_PARTS, Parts
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer
from train.runs.best import BestModel
from train.runs.metrics import SCORE_NAMES
from train.runs.training_data import TrainingData
from train.settings import TrainSettings, settings_to_dict
from train.wording import counted

logger = logging.getLogger("npformer")

_TRAINING = (
    "precision",
    "seed",
    "batch_tokens",
    "accumulate",
    "sampling",
    "schedule",
    "warmup",
    "peak_rate",
    "rate_factor",
    "final_rate",
    "beta1",
    "beta2",
    "epsilon",
    "clip_norm",
    "ema",
)
_OF_SCHEDULES = {
    "peak_rate": ("inverse_sqrt", "cosine", "constant"),
    "rate_factor": ("paper",),
    "final_rate": ("cosine",),
}


class RunCards:
    """The cards of a run's directory and of best/ in it.

    They depend on nothing but the settings, the corpus and the steps, so that a resumed run ends
    with the same cards as one that was never interrupted.
    """

    def __init__(self, run: Path, best: BestModel) -> None:
        self._run, self._best = run, best
        self._validated: dict[int, dict[str, Any]] = {}
        self._left_alone: set[Path] = set()

    def restore(self, entries: Iterable[dict[str, Any]]) -> None:
        """Forget all validations but those among these entries of the log."""
        self._validated = {}
        for entry in entries:
            self.note(entry)

    def note(self, entry: dict[str, Any]) -> None:
        """Note an entry of the log, if it is of a validation."""
        if "valid_loss" in entry:
            self._validated[entry["step"]] = entry

    def write(
        self,
        model: Transformer,
        settings: TrainSettings,
        data: TrainingData | None,
        step: int,
        best_step: int,
    ) -> None:
        """Write both, as the model of `step` and that of `best_step` (0: none) have them.

        A file that is not such a card, or has been changed, is left alone, which is told once.
        """
        parameters = sum(p.size for p in model.parameters().values())
        entries = [self._validated[step] for step in sorted(self._validated)]
        scored = [entry for entry in entries if "bleu" in entry]
        newest = {entry["step"]: entry for entry in (*scored[-1:], *entries[-1:])}
        best = self._validated.get(best_step)
        self._validated = newest | ({best_step: best} if best else {})
        origin = f"It was trained for {counted(step, 'step')}{_from_another(settings)}."
        card = _card(origin, settings, data, [*newest.values()], model.parts)
        self._write(self._run, card.text(model.config, parameters))
        if best and self._best.is_of(best_step):
            by = SCORE_NAMES.get(settings.best_by, settings.best_by)
            origin = (
                f"It was trained for {counted(best_step, 'step')}{_from_another(settings)}; of its "
                f"run's models it has the best {by} on the validation set."
            )
            card = _card(origin, settings, data, [best], model.parts)
            self._write(self._best.directory, card.text(model.config, parameters))

    def _write(self, directory: Path, text: str) -> None:
        path = directory / CARD
        if not write_card(directory, text) and path not in self._left_alone:
            self._left_alone.add(path)
            logger.warning(
                "%s is not as npformer wrote it, and is left alone; once it is moved away, a card "
                "of the model is written there",
                path,
            )


def averaged_card(
    steps: Sequence[int],
    settings: TrainSettings | None,
    data: TrainingData | None,
    parts: Parts = PAPER_PARTS,
) -> ModelCard:
    """The card of the mean of a run's checkpoints of these steps.

    settings, data, parts: of the run, as far as they are known. The card has none of the run's
    scores, which are of other parameters.
    """
    listed = ", ".join(f"{step:,}" for step in steps)
    origin = "Its parameters are those of a run after step"
    if len(steps) > 1:
        origin = f"Its parameters are the mean of {len(steps)} checkpoints of a run, after steps"
    origin += f" {listed}{_from_another(settings) if settings else ''}."
    card = _card(origin, settings, data, [], parts)
    scores = (
        "It has not been evaluated as it is. Where there are reference translations:\n\n```sh\n"
        "npformer evaluate --model . --source source.txt --reference reference.txt\n```"
    )
    return dataclasses.replace(card, sections={"Scores": scores, **card.sections})


def _card(
    origin: str,
    settings: TrainSettings | None,
    data: TrainingData | None,
    validated: Sequence[dict[str, Any]],
    parts: Parts,
) -> ModelCard:
    languages = [data.source, data.target] if data else ["", ""]
    if settings:
        languages[0] = settings.source_language or languages[0]
        languages[1] = settings.target_language or languages[1]
    sections = {}
    if validated:
        sections["Scores"] = "\n\n".join(_scores(entry, data) for entry in validated)
    if data:
        sections["Data"] = data.text()
    if settings:
        sections["Training"] = table(("setting", "value"), _training(settings).items())
    return ModelCard(
        origin,
        source_language=languages[0],
        target_language=languages[1],
        license=settings.license if settings else None,
        datasets=data.hub_ids if data else (),
        metrics=[key for key in SCORE_NAMES if any(key in entry for entry in validated)],
        sections=sections,
        parts=parts,
    )


def _from_another(settings: TrainSettings) -> str:
    return " from the parameters of another model on" if settings.init_from else ""


def _scores(entry: dict[str, Any], data: TrainingData | None) -> str:
    """The scores of a validation, each with its signature."""
    of = f" of {counted(data.valid_lines, 'pair')}" if data else ""
    left_out = data.valid_lines - data.valid_pairs if data else 0
    loss_of = f", without {counted(left_out, 'pair')} that cannot be trained on" if left_out else ""
    lines = [
        f"On the validation set{of}, after step {entry['step']:,}:",
        "",
        f"- loss {entry['valid_loss']:.3f} a token, perplexity {entry['valid_perplexity']:.2f}"
        f"{loss_of}",
    ]
    for key, signature in (("bleu", "signature"), ("chrf", "chrf_signature")):
        if key in entry:
            line = f"- {SCORE_NAMES[key]} {entry[key]:.2f}"
            if signature in entry:
                line += f", sacreBLEU's signature {code(str(entry[signature]))}"
            lines.append(line)
    if "beam" in entry:
        penalty = SearchSettings().length_penalty
        lines += ["", f"Translated with beam {entry['beam']} and length penalty {penalty:g}."]
    return "\n".join(lines)


def _training(settings: TrainSettings) -> dict[str, Any]:
    """The settings that the parameters depend on, besides those of the model."""
    values = settings_to_dict(settings)
    return {
        name: values[name]
        for name in _TRAINING
        if settings.schedule in _OF_SCHEDULES.get(name, (settings.schedule,))
    }
