"""Whether training fits into the machine's memory, before anything is allocated."""

from __future__ import annotations

from autograd.backend import current
from npformer.parameters import check_memory
from npformer.transformer import Transformer
from train.settings import TrainSettings


def check_training_memory(model: Transformer, settings: TrainSettings) -> None:
    """Raise UserError if training this model, not allocated yet, needs more than there is."""
    average = int(settings.ema > 0)
    # A state is serialised in memory: the parameters, two moments, and perhaps their average.
    saved = 3 + average
    if (settings.backend or current().name) == "numpy":
        copies, purpose = 4 + average + saved, "its parameters, their gradients, Adam's two moments"
    else:  # they are on the device, which raises MemoryError if they do not fit
        copies, purpose = (
            3 + average + saved,
            "its parameters and Adam's two moments from the device",
        )
    check_memory(model.parameters(), copies, f"{purpose} and a checkpoint")
