"""Learn which tokens translate which, for translate --shortlist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npformer.checkpoint import load_tokenizers
from npformer.errors import UserError
from npformer.shortlist_file import save_shortlist
from train.cli.display import counting
from train.cli.flags import path
from train.cli.streams import tell
from train.shortlists import (
    ITERATIONS,
    coverage,
    learn_shortlist,
    pairs_of_corpus,
    pairs_of_text,
)
from train.wording import counted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=path, required=True, help="directory of a model or a run")
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}",
            type=path,
            nargs="+",
            metavar="FILE",
            help=f"training text, {side} language, as for prepare",
        )
    parser.add_argument(
        "--data", type=path, help="in place of text, the corpus that the model was trained on"
    )
    parser.add_argument(
        "--best", type=int, default=50, help="translations of each source token, the likeliest"
    )
    parser.add_argument(
        "--frequent", type=int, default=500, help="target tokens for every sentence"
    )
    parser.add_argument(
        "--pairs", type=int, default=500_000, help="to learn from, at most, chosen evenly"
    )


def run(options: Namespace) -> None:
    model, tokenizers = options.model, load_tokenizers(options.model)
    if (options.data is None) == (options.source is None):
        raise UserError("give --source and --target, or the corpus with --data")
    if (options.target is None) != (options.source is None):
        raise UserError("--source and --target are given together")
    if options.data is not None:
        pairs = pairs_of_corpus(options.data, model, options.pairs)
    else:
        pairs = pairs_of_text(options.source, options.target, tokenizers, options.pairs)
    with counting("iteration", ITERATIONS) as advance:
        learned = learn_shortlist(
            pairs,
            tokenizers,
            best=options.best,
            frequent=options.frequent,
            progress=lambda log_p: advance(1),
        )
    about = {"pairs": len(pairs), "best": options.best, "frequent": options.frequent}
    save_shortlist(model, learned, tokenizers, about)
    tell(
        f"{model}: a shortlist learned from {counted(len(pairs), 'pair')}; a sentence has "
        f"{coverage(learned, pairs).candidates:,.0f} of {learned.vocab_size:,} tokens, on average"
    )
