"""Corpora, batches, the training loop and the command line of npformer."""

import sys
from pathlib import Path

try:
    import npformer as npformer  # refuses another autograd before anything here imports it
except ImportError as error:
    # A command's first word: what `python -m train` has while it imports this, or its own name.
    is_command = sys.argv[0] == "-m" or Path(sys.argv[0]).stem == "npformer"
    if error.name == "autograd" and is_command:
        print(f"npformer: error: {error}", file=sys.stderr)
        sys.exit(2)
    raise
