"""Models of Hugging Face's Marian architecture, imported, are what transformers says."""

from typing import Any

import numpy as np
import pytest

from npformer import Batch, Packed, SearchSettings, Translator, search
from npformer.formats.importing import import_model
from tests.formats.foreign import TAG, lines, marian_model, marian_tokenizer

torch = pytest.importorskip("torch", reason="imported models are compared with transformers")
transformers = pytest.importorskip("transformers", reason="imported models are compared with it")
torch.set_num_threads(1)

EXTRA = 10  # tokens more than the source
SENTENCES = [*lines(10, seed=7), f"{TAG} {lines(1, 8)[0]}", f"{TAG}tree", "a", "the caXt Ж runs"]


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"separate": True, "decoder_layers": 1, "ends": 1.0},
        {
            "tie_word_embeddings": False,
            "scale_embedding": False,
            "activation_function": "relu",
            "ends": 0.5,
        },
    ],
    ids=["shared", "separate", "untied"],
)
def both(request: Any, tmp_path_factory: Any) -> tuple[Any, Any, Translator]:
    """The model and the tokenizer of transformers, and our Translator."""
    directory = tmp_path_factory.mktemp("marian")
    marian_model(directory / "theirs", **request.param)
    import_model(directory / "theirs", directory / "ours")
    tokenizer = marian_tokenizer(directory / "theirs")
    model = transformers.MarianMTModel.from_pretrained(directory / "theirs").eval()
    return model, tokenizer, Translator.load(directory / "ours")


def their_ids(model: Any, sources: list[list[int]], **settings: Any) -> list[list[int]]:
    """Their translations, without begin and end, of at most as many tokens as we may choose."""
    found = []
    for source in sources:
        with torch.no_grad():
            ids = model.generate(
                torch.tensor([source]), max_new_tokens=len(source) - 1 + EXTRA, **settings
            )[0, 1:].tolist()
        found.append(ids)
    return found


def log_p(model: Any, source: list[int], target: list[int]) -> float:
    """Their log-probability of a translation, where the padding is never chosen."""
    start = model.config.decoder_start_token_id
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([source]),
            decoder_input_ids=torch.tensor([[start, *target[:-1]]]),
        ).logits[0]
    logits[:, start] = -torch.inf
    return logits.log_softmax(-1)[torch.arange(len(target)), target].sum().item()


def test_text_becomes_the_same_ids(both: Any) -> None:
    _, tokenizer, ours = both
    ids = ours.tokenizers.source.encode_lines(SENTENCES)
    assert [[*i, 0] for i in ids] == tokenizer(SENTENCES)["input_ids"]
    unknown = ours.tokenizers.source.unknown_id
    assert any(unknown in i for i in ids)
    target = ours.tokenizers.target.encode_lines(SENTENCES)
    assert [[*i, 0] for i in target] == tokenizer(text_target=SENTENCES)["input_ids"]
    known = [i for i in target if unknown not in i]
    texts = [ours.tokenizers.target.decode(i) for i in known]
    assert texts == [tokenizer.decode(i, skip_special_tokens=True) for i in known]


def test_logits_agree(both: Any) -> None:
    model, _, ours = both
    sources = ours.tokenizers.source.encode_lines(SENTENCES)
    targets = ours.tokenizers.target.encode_lines(SENTENCES[::-1])
    begin, end = ours.tokenizers.target.begin_id, ours.tokenizers.target.end_id
    assert (begin, end) == (model.config.decoder_start_token_id, 0)
    batch = Batch.of(sources, targets, begin_id=begin, end_id=end)
    found = np.split(ours.model.logits(batch).value, batch.target_input.offsets[1:-1])
    for source, target, logits in zip(sources, targets, found, strict=True):
        with torch.no_grad():
            theirs = model(
                input_ids=torch.tensor([[*source, end]]),
                decoder_input_ids=torch.tensor([[begin, *target]]),
            ).logits[0]
        np.testing.assert_allclose(logits, theirs.numpy(), rtol=0, atol=1e-4)


def test_greedy_translations_are_the_same(both: Any) -> None:
    model, _, ours = both
    sources = [[*s, 0] for s in ours.tokenizers.source.encode_lines(SENTENCES)]
    expected = their_ids(model, sources, num_beams=1, do_sample=False)
    assert len({tuple(ids) for ids in expected}) > 4
    assert our_ids(ours, sources, beam=1) == expected


def test_beam_search_finds_the_same_translations(both: Any) -> None:
    """The same, or a better one.

    Transformers drops ends that are not among the best 4 continuations, and lets hypotheses that
    have reached the limit compete with those that have ended.
    """
    model, _, ours = both
    alpha = 0.6
    sources = [[*s, 0] for s in ours.tokenizers.source.encode_lines(SENTENCES[:8])]
    settings = {"num_beams": 4, "length_penalty": alpha, "early_stopping": "never"}
    expected = their_ids(model, sources, **settings)
    found = our_ids(ours, sources, beam=4, length_penalty=alpha, penalty="power")
    same = 0
    for source, one, other in zip(sources, found, expected, strict=True):
        if one != other and other[-1] == 0:
            better, worse = (log_p(model, source, ids) / len(ids) ** alpha for ids in (one, other))
            assert better > worse - 1e-5
        else:
            same += one == other
    assert same >= 3


def our_ids(ours: Translator, sources: list[list[int]], **settings: Any) -> list[list[int]]:
    """Our translations as `their_ids` has them."""
    tokenizer = ours.tokenizers.target
    chosen = SearchSettings(**settings, extra_length=EXTRA)
    found = search(ours.model, Packed.of(sources), chosen, tokenizer.begin_id, tokenizer.end_id)
    limits = [len(source) - 1 + EXTRA for source in sources]
    ids = [best[0].ids for best in found]
    return [[*i, 0] if len(i) < limit else i for i, limit in zip(ids, limits, strict=True)]
