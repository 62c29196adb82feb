"""Corpora, batches, the training loop and the command line of npformer."""

import sys
from pathlib import Path

try:
    import npformer as npformer  # first: it refuses another package called autograd
except ImportError as error:
    # sys.argv[0] is "-m" while `python -m train` imports this, or the path of the command.
    is_command = sys.argv[0] == "-m" or Path(sys.argv[0]).stem == "npformer"
    if error.name == "autograd" and is_command:
        print(f"npformer: error: {error}", file=sys.stderr)
        sys.exit(2)
    raise
