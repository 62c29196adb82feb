"""The experiments by name, each imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from train.experiments.experiment import Experiment

ABOUT: dict[str, str] = {
    "table1": "Self-attention, recurrence and convolution: operations, paths and time (Table 1).",
    "why": "Five claims about self-attention, each with a measurement on a trained model.",
    "table2": "What training costs, counted, beside the paper's estimate and other systems.",
    "figures": "What heads attend to (Figures 3 to 5), and what the model loses without them.",
    "table3": "Every variation of the model (Table 3), with several seeds, beside the paper's.",
    "table4": "Constituency parsing as translation, beside a grammar (Table 4).",
}
"""What each experiment is about; the module of its name has EXPERIMENT."""


def experiment(name: str) -> Experiment[Any]:
    """The experiment of this name, one of `ABOUT`."""
    found: Experiment[Any] = import_module(f"train.experiments.{name}").EXPERIMENT
    return found
