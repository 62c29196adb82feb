"""Translate a text and score it: BLEU, chrF and perplexity."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, get_args

from npformer.errors import UserError
from npformer.files import atomic_write
from train.cli.flags import add_model, add_search, path
from train.cli.lines import all_prefixes, load, ranks_of, search_settings, translations_of, warn
from train.cli.pairs import Pairs, likelihood_of
from train.cli.streams import require_output
from train.corpora.text import read_both
from train.evaluation import bleu, check_tokenizer, chrf, ter
from train.settings import BleuTokenizer

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

# What is done to pairs for the perplexity: they cannot be split.
_FOR_PAIRS: dict[str, Any] = {"split": "skip", "cut": "cut", "skip": "skip", "refuse": "refuse"}


def add_flags(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--source", type=path, required=True, help="text to translate")
    parser.add_argument("--reference", type=path, required=True, help="its translation")
    parser.add_argument(
        "--tokenize",
        choices=get_args(BleuTokenizer),
        default="13a",
        help="sacreBLEU's tokenizer for BLEU; none for text that is tokenised already; paper for "
        "BLEU of German as the paper counts it (Moses's tokens, compounds split, no smoothing)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=["bleu", "chrf", "ter"],
        default=["bleu", "chrf"],
        help="what to score with; BLEU comes last, in any case",
    )
    parser.add_argument("--lowercase", action="store_true", help="score without case")
    parser.add_argument("--output", type=path, help="a file for the translations")
    add_search(parser)


def run(options: Namespace) -> None:
    with ranks_of(options) as ranks:
        ranks.on_first(lambda: _check_evaluation(options))
        with ranks.together():
            settings = search_settings(options)
        translator = load(options, ranks)
        sources, references = ranks.on_first(lambda: read_both(options.source, options.reference))
        prefixes = ranks.on_first(lambda: all_prefixes(options.prefixes, sources))
        with ranks.together():
            pairs = Pairs(translator, sources, references, _FOR_PAIRS[options.long_lines])
            if pairs.refusal:
                raise pairs.refusal
        warn(pairs.notes, ranks)
        found = likelihood_of(translator, pairs, ranks)
        given = {**settings, "prefixes": prefixes}
        some = translations_of(translator, sources, ranks, 0, given)
        translations = list(chain.from_iterable(some))
        notes = [f"line {i:,} {t.note}" for i, t in enumerate(translations, start=1) if t.note]
        warn(notes, ranks)
        texts = [translation.text for translation in translations]
        scores = ranks.on_first(lambda: _scores(options, texts, references))
        if ranks.is_first:
            about = "per subword, unsmoothed, of the references"
            print(f"perplexity = {found.perplexity:.3f}  {about}")
            for line in scores:
                print(line)


def _check_evaluation(options: Namespace) -> None:
    """Raise UserError for what would make an evaluation come to nothing in the end."""
    _check_output(options)
    require_output("evaluate")
    if "bleu" in options.metrics:
        check_tokenizer(options.tokenize)


def _check_output(options: Namespace) -> None:
    """Raise UserError if the output would overwrite an input."""
    output = options.output
    if output is None or not output.exists():
        return
    if output.is_dir():
        raise UserError(f"{output} is a directory; give --output the name of a file")
    inputs = [options.source, options.reference, *options.model.glob("*")]
    inputs += [file for model in options.ensemble for file in model.glob("*")]
    if any(i.exists() and output.samefile(i) for i in inputs):
        raise UserError(f"{output} is what is evaluated; give another --output")


def _scores(options: Namespace, texts: list[str], references: list[str]) -> list[str]:
    """The chosen scores as lines of text, BLEU last, after the translations are written."""
    if options.output:
        with atomic_write(options.output) as file:
            file.writelines(text.encode() + b"\n" for text in texts)
    scores = [
        score(texts, references, options.lowercase)
        for metric, score in (("ter", ter), ("chrf", chrf))
        if metric in options.metrics
    ]
    if "bleu" in options.metrics:
        scores.append(bleu(texts, references, options.tokenize, options.lowercase))
    return [str(score) for score in scores]
