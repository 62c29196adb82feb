"""Ideas tried on the Transformer, one small file each: `python -m examples.gated_feed_forward`."""
