"""Corpora: parallel text becomes token ids on disk, and these become batches (section 5.1)."""
