"""Why self-attention matters: five claims, each with a measurement."""

from train.experiments.why.page import EXPERIMENT

__all__ = ["EXPERIMENT"]
