"""Run many trials and print those that failed; the status is 1 if there were any."""

from __future__ import annotations

import argparse
import sys
import time

from tests.damage import campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="number of trials")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices")
    parser.add_argument(
        "--only", type=int, nargs="+", help="run only these trials, and print all their errors"
    )
    options = parser.parse_args()
    started = time.monotonic()
    found = []
    with campaign.prepared(options.seed) as prepared:
        for number in options.only or range(options.n):
            outcome = prepared.run(number)
            found.append(outcome)
            if outcome.fault or options.only:
                print(outcome, flush=True)
            if options.only:
                print(outcome.ending.errors)
    summary, faults = campaign.summarized(found)
    print(f"{summary}, in {time.monotonic() - started:.0f} s (seed {options.seed})")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
