"""The model of the best validation, kept in a run as a model directory: best/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npformer.checkpoint import CONFIG, load_arrays, save_arrays, save_config, save_weights
from npformer.config import TransformerConfig
from npformer.tokenizer import TokenizerPair


class BestModel:
    """The best model so far, and perhaps a better one that no state of the run knows of yet.

    A run that is killed goes on from its last state, and may take other steps then. So a new best
    model waits in training/best.safetensors until a state is saved that counts its validation, and
    only then replaces the old one.
    """

    def __init__(self, run: Path) -> None:
        self.directory = run / "best"
        self.waiting = run / "training" / "best.safetensors"

    def keep(self, parameters: Mapping[str, np.ndarray], step: int, run_id: str | None) -> None:
        """Write the parameters of a step that is the best so far."""
        save_arrays(self.waiting, parameters, {"step": step, "run": run_id})

    def publish(self, step: int, config: TransformerConfig, tokenizers: TokenizerPair) -> None:
        """Put the model that waits into place, if it is that of `step`, the best in the state.

        Otherwise it is of a step that a kill has undone, and is removed. At every moment the
        directory is a whole model.
        """
        if not self.waiting.is_file():
            return
        parameters, about = load_arrays(self.waiting)
        if about.get("step") == step:
            self.directory.mkdir(exist_ok=True)
            tokenizers.save(self.directory)
            if not (self.directory / CONFIG).exists():
                save_config(self.directory, config)
            save_weights(
                self.directory,
                parameters,
                config,
                tokenizers,
                {"step": step},
                or_present_config=True,
            )
            save_config(self.directory, config)
        self.waiting.unlink()
