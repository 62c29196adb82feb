"""Corpora, batches, the training loop and the command line of npformer."""

import sys
from pathlib import Path

from train.signals import end_at_once, handle_by


def _is_command() -> bool:
    """Whether this process was started as npformer or python -m train.

    Those that multiprocessing starts for it were not, though they have its sys.argv.
    """
    started = sys.orig_argv[-len(sys.argv) :][:1]
    if sys.argv[0] == "-m":  # while `python -m` imports the package
        return started == ["train"]
    return [Path(file).stem for file in started] == ["npformer"]


if _is_command():
    handle_by(end_at_once)  # until a command runs: the imports below take longest

try:
    import npformer as npformer  # first: it refuses another package called autograd
except ImportError as error:
    if error.name == "autograd" and _is_command():
        print(f"npformer: error: {error}", file=sys.stderr)
        sys.exit(2)
    raise
