"""The command line, npformer or python -m train: how a subcommand is run, and how it ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import jsonargparse
from jsonargparse import Namespace

from autograd import BackendError
from npformer.errors import UserError
from train.cli.commands import COMMANDS
from train.cli.parser import build_parser
from train.cli.streams import drop_output, make_printable
from train.cli.words import readable, underscored
from train.ranks.alike import check_same_facts
from train.ranks.launcher import end_others
from train.ranks.ranks import ALONE, AgreedError, Ending, Ranks
from train.ranks.world import world
from train.signals import Stopped, handled_by, stop_at_once


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand. Returns the exit status.

    It is 0, 2 for a user's mistake, or 128 and the number of the signal that has stopped it.
    """
    make_printable()
    logging.basicConfig(format="npformer: %(message)s", level=logging.WARNING)
    logging.getLogger("autograd").setLevel(logging.INFO)  # reports when loops are being compiled
    words = underscored(sys.argv[1:] if arguments is None else arguments)
    try:
        with handled_by(stop_at_once):
            ranks = world()
    except UserError as error:
        return _end_unconnected(_refusal(str(error)))
    except Stopped as stopped:
        return _end_unconnected(Ending(stopped.status, str(stopped)))
    return ranks.end(_ending(words, ranks))


def _end_unconnected(ending: Ending) -> int:
    """Tell the user, where nothing connects several processes, and end them."""
    status = ALONE.end(ending)
    end_others(status)
    return status


def _ending(words: list[str], ranks: Ranks) -> Ending:
    """Run a subcommand. Returns how it has ended."""
    own = f"{ranks.name(ranks.rank)}: " if ranks.size > 1 else ""
    try:
        try:
            with handled_by(stop_at_once):
                _run(words, ranks)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a closed pipe is not an error
    except AgreedError as error:
        return _refusal(str(error))._replace(agreed=True)
    except (UserError, BackendError) as error:
        return _refusal(f"{own}{error}")
    except Stopped as stopped:
        who = "" if stopped.agreed else own
        return Ending(stopped.status, f"{who}{stopped}", stopped.agreed)
    except KeyboardInterrupt:  # while nothing handles signals
        return Ending(130)
    except BrokenPipeError:
        drop_output()  # the reader has closed the pipe, as `head` does
        return Ending(0)
    except OSError as error:
        if error.filename is None:
            drop_output()
        what = error.filename or "standard input or output"
        return _refusal(f"{own}{what}: {error.strerror}")
    except MemoryError:
        return _refusal(
            f"{own}out of memory; lower --batch_tokens, --beam or --extra_length, or shrink the "
            "model"
        )
    return Ending(0, agreed=True)


def _run(words: list[str], ranks: Ranks) -> None:
    with ranks.together():
        options = _parsed(words)
        if options is not None and ranks.size > 1:
            _check_shared(options.subcommand, ranks)
    check_same_facts(ranks, {"the command": options and options.subcommand})
    if options is not None:
        COMMANDS[options.subcommand].run(options[options.subcommand])


def _parsed(words: list[str]) -> Namespace | None:
    """The options; None if there are none, and the help was printed."""
    if not words:
        build_parser(only="").print_help()
        return None
    name, *flags = words
    if name in COMMANDS:
        flags = COMMANDS[name].expanded(flags)
    try:
        return build_parser(only=name).parse_args([name, *flags])
    except jsonargparse.ArgumentError as error:
        raise UserError(readable(str(error))) from error


def _check_shared(command: str, ranks: Ranks) -> None:
    """Raise UserError for a command that would do the same on all ranks."""
    if not COMMANDS[command].is_shared:
        *others, last = sorted(name for name, command in COMMANDS.items() if command.is_shared)
        raise UserError(
            f"{command} does not share its work, and is started {ranks.size} times here; start it "
            f"alone, without mpiexec or srun, which are for {', '.join(others)} and {last}"
        )


def _refusal(message: str) -> Ending:
    """The ending of a user's mistake, told in one line."""
    return Ending(2, f"npformer: error: {' '.join(message.split())}")


if __name__ == "__main__":
    sys.exit(main())
