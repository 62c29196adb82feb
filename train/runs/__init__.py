"""The directory of a training run: what is in it, and how a run is started, saved and resumed."""
