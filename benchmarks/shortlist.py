r"""A search with a shortlist of the target vocabulary and without, and CTranslate2 with both.

    python -m benchmarks.shortlist --model RUN --source test.en --reference test.de --tokenize none
    python -m benchmarks.shortlist --random base --data CORPUS --source test.en --batch 64

The model's directory has a shortlist (npformer shortlist --model RUN --data CORPUS). Or a model has
random parameters, the vocabulary of a corpus, and a shortlist that is learned from it, which is
enough for times. Real sentences are translated, each into 30 tokens; no side may end earlier. With
--reference the whole text is translated for its BLEU, too, and it is counted how many tokens of the
reference are candidates. Sides take turns, each in its own process. With --cpu-time the processor
time of one thread counts, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.report import positive, publish, result_file, summary
from benchmarks.without_avx512 import WithoutAVX512
from npformer import Packed, Transformer, TransformerConfig, Translator
from npformer.checkpoint import save_model
from npformer.formats.exporting import export_model
from npformer.shortlist_file import save_shortlist
from train.corpora.corpus import Corpus
from train.corpora.sentences import ParallelTokens
from train.corpora.text import read_both, read_lines
from train.evaluation import bleu
from train.shortlists import coverage, evenly, learn_shortlist

TARGET = 30  # tokens of each translation
LONGEST = 40  # of a source


class Task(NamedTuple):
    """What is translated: the model's directory, the text, and how.

    Attributes:
        sentences: in a turn
        cpu_time: whether the processor time of one thread counts
    """

    model: Path
    text: Path
    beam: int
    batch: int
    sentences: int
    cpu_time: bool


def batches_of(task: Task) -> list[list[list[int]]]:
    """Batches of token ids, without ends."""
    model, text, _, batch, count, _ = task
    tokenizer = Translator.load(model).tokenizers.source
    lines = [tokenizer.encode(line) for line in islice(read_lines(text), 4 * count)]
    fitting = [ids for ids in lines if 0 < len(ids) <= LONGEST]
    chosen = (fitting * -(-count // len(fitting)))[:count]
    return [chosen[i : i + batch] for i in range(0, count, batch)]


def our_side(imported: Any, task: Task, short: bool) -> Turn:
    from npformer.beam_search import search
    from npformer.search_settings import SearchSettings

    load_compiled_loops()
    imported()
    translator = Translator.load(task.model)
    source_end, begin = translator.tokenizers.source.end_id, translator.tokenizers.target.begin_id
    batches = [Packed.of([[*ids, source_end] for ids in some]) for some in batches_of(task)]
    settings = SearchSettings(task.beam, max_length=TARGET, extra_length=TARGET)
    shortlist = translator.shortlist if short else None

    def turn() -> float | None:
        before = time.process_time()
        for source in batches:
            found = search(
                translator.model, source, settings, begin, end_id=-1, shortlist=shortlist
            )
            assert all(len(hypotheses[0].ids) == TARGET for hypotheses in found)
        return time.process_time() - before if task.cpu_time else None

    return turn


def ctranslate2_side(imported: Any, exported: Path, task: Task, short: bool) -> Turn:
    import ctranslate2

    imported()
    threads = 1 if task.cpu_time else len(os.sched_getaffinity(0))
    translator = ctranslate2.Translator(
        str(exported), compute_type="float32", intra_threads=threads
    )
    tokenizer = Translator.load(task.model).tokenizers.source
    batches = [[tokenizer.pieces(ids) for ids in some] for some in batches_of(task)]

    def turn() -> float | None:
        before = time.process_time()
        for source in batches:
            found = translator.translate_batch(
                source,
                beam_size=task.beam,
                use_vmap=short,
                min_decoding_length=TARGET,
                max_decoding_length=TARGET,
            )
            assert all(len(one.hypotheses[0]) == TARGET for one in found)
        return time.process_time() - before if task.cpu_time else None

    return turn


def make_random(directory: Path, name: str, data: Path) -> None:
    """A model with random parameters, and the shortlist of a corpus."""
    corpus = Corpus.open(data)
    size = corpus.tokenizers.target.vocab_size
    # The positions that CTranslate2 knows as its own.
    config = TransformerConfig.preset(
        name, vocab_size=size, positions="concatenated", position_spacing="d/2"
    )
    save_model(directory, Transformer(config, seed=0), corpus.tokenizers)
    learned = learn_shortlist(evenly(corpus.train, 500_000), corpus.tokenizers)
    save_shortlist(directory, learned, corpus.tokenizers, {})


def sizes(task: Task) -> dict[str, float]:
    """Tokens of the projection, on average over batches, and candidates of a sentence."""
    shortlist = Translator.load(task.model).shortlist
    found = [shortlist.candidates(Packed.of(batch)) for batch in batches_of(task)]
    return {
        "of_a_batch": round(float(np.mean([len(ids) for ids, _ in found])), 1),
        "of_a_sentence": round(float(np.mean([a.sum(axis=1).mean() for _, a in found])), 1),
        "of_all": shortlist.vocab_size,
    }


def quality(model: Path, text: Path, reference: Path, beam: int, tokenize: str) -> dict[str, Any]:
    """BLEU with the shortlist and without, and how much of the reference it covers."""
    translator = Translator.load(model)
    sources, references = read_both(text, reference)
    found = {}
    for name, short in (("shortlist", True), ("whole", False)):
        translations = [t.text for t in translator.translate(sources, beam=beam, shortlist=short)]
        found[name] = translations
    pairs = ParallelTokens.of(
        translator.tokenizers.source.encode_lines(sources),
        translator.tokenizers.target.encode_lines(references),
    )
    same = sum(a == b for a, b in zip(*found.values(), strict=True)) / len(sources)
    return {
        "bleu": {name: round(bleu(t, references, tokenize).value, 2) for name, t in found.items()},
        "lines_that_are_the_same": round(same, 4),
        "share_of_reference_tokens": round(coverage(translator.shortlist, pairs).share, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="the directory of a model with a shortlist")
    parser.add_argument("--random", choices=["tiny", "base"], help="a random model, for --data")
    parser.add_argument("--data", type=Path, help="the corpus of a random model's vocabulary")
    parser.add_argument("--source", type=Path, required=True, help="text to translate")
    parser.add_argument("--reference", type=Path, help="its translation, for BLEU")
    parser.add_argument("--tokenize", default="13a", help="of BLEU")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument("--batch", type=positive, default=64, help="sentences translated at once")
    parser.add_argument("--sentences", type=positive, help="in a turn: --batch, or 8, if more")
    parser.add_argument("--cpu-time", action="store_true", help="of one thread, not the clock's")
    parser.add_argument("--rounds", type=positive, default=8, help="turns of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    options = parser.parse_args()
    if (options.model is None) == (options.random is None) or (
        (options.data is None) != (options.random is None)
    ):
        parser.error("give --model, or --random and --data")
    if options.cpu_time:  # before the processes of the sides begin
        os.environ["NUMBA_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

    with tempfile.TemporaryDirectory() as folder:
        model, exported = options.model or Path(folder, "model"), Path(folder, "exported")
        if options.random:
            make_random(model, options.random, options.data)
        export_model(model, exported, "ctranslate2")
        sentences = options.sentences or max(options.batch, 8)
        given = options.source, options.beam, options.batch, sentences, options.cpu_time
        task = Task(model, *given)
        sides = {
            "ours": Side(our_side, task, True),
            "ours-whole": Side(our_side, task, False),
            "ctranslate2-vmap": Side(ctranslate2_side, exported, task, True),
            "ctranslate2-whole": Side(ctranslate2_side, exported, task, False),
        }
        seconds = take_turns(sides, options.rounds, warmup=1)
        tokens = [sum(map(len, batches_of(task))) * TARGET] * options.rounds
        results = {n: {**summary(seconds[n], tokens), **s.close()} for n, s in sides.items()}
        ratios = {name: ratio(seconds["ours"], seconds[name]) for name in sides if name != "ours"}
        result = {
            "benchmark": "shortlist",
            "config": options.random or options.model.name,
            "backend": "numpy",
            "beam": options.beam,
            "batch": options.batch,
            "cpu_time": options.cpu_time,
            "load": round(os.getloadavg()[0], 1),
            "tokens": sizes(task),
            "ours": results.pop("ours"),
            "peers": results,
            "speedup": {name: r["median"] for name, r in ratios.items()},
            "speedup_quartiles": {name: [r["low"], r["high"]] for name, r in ratios.items()},
        }
        if options.reference:
            texts = options.source, options.reference
            result["quality"] = quality(model, *texts, options.beam, options.tokenize)
    publish(result, options.out)


if __name__ == "__main__":
    main()
