"""Places a model and its optimizer on the backend that they are trained on."""

from __future__ import annotations

from autograd.backend import Backend, current
from autograd.cuda.products import allow_tf32
from npformer.errors import UserError
from npformer.parameters import check_memory
from npformer.transformer import Transformer
from train.moving_average import MovingAverage
from train.optimizer import MakeOptimizer, Optimizer
from train.settings import TrainSettings


def check_training_memory(model: Transformer, settings: TrainSettings) -> None:
    """Raise UserError if training needs more memory than the machine has.

    model: as with `allocate=False`
    """
    average = int(settings.ema > 0)
    # A state is copied before it is written: parameters, moments and their average. The best model
    # of the same step may still be waiting.
    copied = 3 + average + (settings.best_by != "none")
    if (settings.backend or current().name) == "numpy":
        held, purpose = 4 + average, "its parameters, their gradients, Adam's two moments and "
    else:  # they are on the device, which raises MemoryError if they do not fit
        held, purpose = 0, ""
    check_memory(model.parameters(), held + copied, f"{purpose}a checkpoint")


def placed(model: Transformer, settings: TrainSettings, optimizer: MakeOptimizer) -> Optimizer:
    """Move the model to its backend; returns its optimizer there."""
    buffer = model.buffer
    allow_tf32(settings.precision == "tf32")
    try:
        model.to(
            settings.backend or current().name,
            "bf16" if settings.precision == "bf16" else "float32",
        )
        made = optimizer(buffer, settings)
        return MovingAverage(made, buffer, settings.ema) if settings.ema else made
    except MemoryError as error:
        raise UserError(
            f"a model of {buffer.values.size:,} parameters and its optimizer do not fit into "
            f"memory ({error}); make the model smaller (model.layers, model.d_model)"
        ) from error


def device_name(owner: Backend) -> str:
    """What the calling thread computes on with a backend, for people."""
    if owner.name != "cupy":
        return "the CPU"
    cuda = owner.xp.cuda
    device = cuda.Device().id
    return f"GPU {device} ({cuda.runtime.getDeviceProperties(device)['name'].decode()})"
