"""The paper's experiments, each measured again by one command (npformer experiment)."""
