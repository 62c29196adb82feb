"""Sides of the decoding benchmark that run without a GPU, and which sides there are."""

from __future__ import annotations

import pytest

from benchmarks import gpu_decoding
from npformer import Transformer, TransformerConfig


def test_one_sentence_at_a_time_has_pytorchs_best_and_no_batches() -> None:
    makers = gpu_decoding.makers_of("base", 1, one_by_one=True)
    assert {name for name in makers if not name.startswith("ctranslate2")} == {
        *("ours-one", "torch-eager", "torch-compiled", "torch-graph")
    }
    sources = gpu_decoding.sources_of(one_by_one=True)
    assert 30 <= len(sources) <= gpu_decoding.ONE_BY_ONE


@pytest.mark.parametrize("batch_tokens", [0, 40])
def test_ctranslate2_translates_all_sentences(
    monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="it is the peer")
    config = TransformerConfig(vocab_size=40, layers=1, d_model=16, d_ff=16, heads=2)
    monkeypatch.setattr(gpu_decoding, "model_of", lambda name: Transformer(config, seed=0))
    sources = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15], [16, 17]]
    monkeypatch.setattr(gpu_decoding, "sources_of", lambda one_by_one: sources)
    asked: list[tuple[list[str], int]] = []

    class Watched(ctranslate2.Translator):
        def translate_batch(self, source, **options):  # type: ignore[no-untyped-def]
            asked.extend((tokens, options["max_decoding_length"]) for tokens in source)
            assert options["beam_size"] == 2
            return super().translate_batch(source, **options)

    monkeypatch.setattr(ctranslate2, "Translator", Watched)
    turn = gpu_decoding.ctranslate2_side(lambda: None, "toy", 2, batch_tokens, "cpu")
    turn()
    ended = [[str(i) for i in [*source, 2]] for source in sources]
    assert sorted(tokens for tokens, _ in asked) == sorted(ended)
    if not batch_tokens:
        assert [limit for _, limit in asked] == [len(source) + 10 for source in sources]
