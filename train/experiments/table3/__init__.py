"""Table 3: every variation of the model, trained for as many steps as base."""

from train.experiments.table3.variations import EXPERIMENT

__all__ = ["EXPERIMENT"]
