"""The PyTorch peers of the GPU benchmarks compute what our model computes, with the same weights.

A comparison of speed means nothing otherwise. On a CPU their attention is not that of the GPU.
"""

from typing import Any

import numpy as np
import pytest

from autograd import Tape, to_host
from benchmarks.gpu_batches import newstest_sources, training_batches
from npformer import Batch, Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.beam_search import Hypothesis

torch = pytest.importorskip("torch", reason="the model is compared with PyTorch")
torch.set_num_threads(1)  # for arrays this small threads only cost time

from torch._dynamo.testing import CompileCounter  # noqa: E402

from benchmarks import torch_decoding, torch_packed, torch_training  # noqa: E402
from benchmarks.torch_greedy import Greedy  # noqa: E402
from benchmarks.torch_training import PEERS  # noqa: E402
from benchmarks.torch_transformer import TorchTransformer, copy_parameters, padded  # noqa: E402

CONFIG = TransformerConfig(vocab_size=31, layers=2, d_model=16, d_ff=24, heads=2, dropout=0.0)
SIZES = [[(4, 6), (1, 1), (7, 3), (0, 5), (5, 0), (3, 3)], [(9, 8), (2, 2)], [(5, 6)] * 4]
BEGIN, END = 1, 2

every_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
EAGER = {name: peer for name, peer in PEERS.items() if peer.compile is None}
every_eager_peer = pytest.mark.parametrize("peer", EAGER.values(), ids=EAGER)


def make(config: TransformerConfig = CONFIG, seed: int = 0, scale: float = 0.1) -> Transformer:
    """A model with biases and gains that are not 0 and 1."""
    model = Transformer(config, seed=seed)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        parameter.assign(parameter.numpy() + scale * rng.standard_normal(parameter.shape))
    return model


def make_batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    return [
        Batch.of(
            [rng.integers(3, CONFIG.vocab_size, n).tolist() for n, _ in sizes],
            [rng.integers(3, CONFIG.vocab_size, m).tolist() for _, m in sizes],
            begin_id=BEGIN,
            end_id=END,
        )
        for sizes in SIZES
    ]


def peer_of(model: Transformer, kind: Any = TorchTransformer) -> Any:
    peer = kind(model.config)
    copy_parameters(model, peer)
    return peer.eval()


def gradients_of(model: Transformer, batch: Batch) -> tuple[float, Any]:
    """Our loss, and a peer that holds our gradients instead of parameters."""
    model.buffer.allocate_gradients()
    with Tape() as tape:
        loss = model.loss(batch)
    tape.backward(loss)
    gradients = Transformer(model.config)
    for name, parameter in model.parameters().items():
        gradients.parameters()[name].assign(to_host(parameter.grad))
    return float(loss), peer_of(gradients)


def assert_same_gradients(peer: Any, expected: Any) -> None:
    whole = torch.nn.utils.get_total_norm(list(expected.parameters()))
    for (name, p), q in zip(peer.named_parameters(), expected.parameters(), strict=True):
        assert torch.linalg.vector_norm(p.grad - q) <= 1e-5 * whole, name


def test_every_parameter_is_copied() -> None:
    model = make()
    peer = TorchTransformer(CONFIG)
    with torch.no_grad():
        for p in peer.parameters():
            p.fill_(torch.nan)
    copy_parameters(model, peer)
    assert sum(p.numel() for p in peer.parameters()) == sum(
        p.size for p in model.parameters().values()
    )
    assert all(p.isfinite().all() for p in peer.parameters())


@pytest.mark.parametrize("form", ["padded", "packed"])
def test_logits_match_ours(form: str) -> None:
    model, batch = make(), make_batches()[0]
    if form == "padded":
        peer = peer_of(model)
        source, mask, target, _, places = padded(batch)
        y = peer(source, mask, target).flatten(0, 1)[places]
    else:
        peer = peer_of(model, torch_packed.PackedTransformer)
        y = peer(*torch_packed.packed(batch)[:2])
    logits = (y @ peer.embedding.weight.T).detach().numpy()
    np.testing.assert_allclose(logits, model.logits(batch).numpy(), rtol=1e-4, atol=1e-4)


@every_peer
def test_losses_and_gradients_of_every_form_match_ours(peer: torch_training.Peer) -> None:
    model, batches = make(), make_batches()
    padded_form = peer.form == "padded"
    kind = TorchTransformer if padded_form else torch_packed.PackedTransformer
    theirs = peer_of(model, kind)
    all_parts = torch_training.parts_of(peer, batches, "cpu")
    for batch, parts in zip(batches, all_parts, strict=True):
        theirs.zero_grad()
        loss = sum(theirs.loss(*inputs, chunks=peer.chunks) * share for inputs, share in parts)
        loss.backward()
        expected, gradients = gradients_of(model, batch)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
        assert_same_gradients(theirs, gradients)


@every_eager_peer
def test_a_step_reports_our_loss_and_norm_and_updates_the_model(peer: torch_training.Peer) -> None:
    model, batches = make(), make_batches()
    run = torch_training.steps(peer, CONFIG, batches, "cpu", model, torch.float32)
    loss, norm = run(0)
    expected, gradients = gradients_of(model, batches[0])
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    whole = torch.nn.utils.get_total_norm(list(gradients.parameters()))
    assert float(norm) == pytest.approx(float(whole), rel=1e-4)
    for k in (1, 2, 0):
        last, _ = run(k)
    assert float(last) < expected


@every_eager_peer
def test_the_loss_in_bfloat16_is_close_to_ours(peer: torch_training.Peer) -> None:
    model, batches = make(), make_batches()
    loss, norm = torch_training.steps(peer, CONFIG, batches, "cpu", model)(0)
    expected, _ = gradients_of(model, batches[0])
    assert float(loss) == pytest.approx(expected, rel=0.02)
    assert float(norm) > 0


def test_filled_batches_have_the_same_sizes() -> None:
    batches = make_batches()
    [inputs] = {
        tuple(x.shape if isinstance(x, torch.Tensor) else x for s in sentences for x in s)
        for [((*sentences, _), _)] in torch_training.parts_of(
            PEERS["torch-filled-compiled"], batches, "cpu"
        )
    }
    assert inputs[3] == 64  # the longest sentence, rounded up as for FlashAttention


def test_filled_batches_have_as_many_sizes_as_are_allowed() -> None:
    batches = [*make_batches(), *make_batches()[::-1]]
    for shapes in (1, 2, 8):
        parts = torch_training.parts_of(PEERS["torch-filled-compiled"], batches, "cpu", shapes)
        sizes = [tuple(len(s.ids) for s in inputs[:2]) for [(inputs, _)] in parts]
        assert len(set(sizes)) <= shapes
        for batch, (source, target) in zip(batches, sizes, strict=True):
            assert source >= len(batch.source.tokens)
            assert target >= batch.target_tokens


@pytest.mark.parametrize("dynamic", [False, True])
def test_the_packed_loss_compiles_to_one_graph(dynamic: bool) -> None:
    """Without breaks; one graph serves all filled batches, or with dynamic sizes any batch."""
    counter = CompileCounter()
    peer = PEERS["torch-packed-compiled-dynamic" if dynamic else "torch-filled-compiled"]
    model = peer_of(make(), torch_packed.PackedTransformer)
    loss = torch.compile(model.loss, fullgraph=True, dynamic=dynamic, backend=counter)
    parts = torch_training.parts_of(peer, make_batches(), "cpu")
    for [(inputs, _)] in parts:
        torch.testing.assert_close(loss(*inputs), model.loss(*inputs))
    assert counter.frame_count == 1


SOURCES = [[5, 7, 9], [4], [11, 3, 8, 20, 6, 9, 30, 12], [6, 6, 6, 6, 6], [9, 21, 14], [28, 5]]


def make_varied(seed: int) -> Transformer:
    """A model whose translations vary with the source and the position."""
    model = Transformer(CONFIG, seed)
    rng = np.random.default_rng(seed)
    for name, parameter in model.parameters().items():
        if name == "embedding":
            parameter.assign(0.05 * rng.standard_normal(parameter.shape))
        elif name == "decoder.1.feed_forward.norm.gain":
            parameter.assign(8 * rng.standard_normal(parameter.shape))
        elif name.endswith(".weight"):
            parameter.assign((0.3 if "attention" in name else 8) * parameter.numpy())
    return model


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("seed", range(8))
def test_translations_match_ours(beam: int, seed: int) -> None:
    model = make_varied(seed)
    peer = peer_of(model)
    source = Packed.of([[*ids, END] for ids in SOURCES])
    settings = SearchSettings(
        beam, length_penalty=(0.6, 2.0)[seed % 2], extra_length=(3, 12, 30)[seed % 3]
    )

    def both(end_id: int) -> tuple[list[Hypothesis], list[Hypothesis]]:
        ours = [found[0] for found in search(model, source, settings, BEGIN, end_id)]
        return ours, torch_decoding.search(peer, source, settings, BEGIN, end_id)

    never_ending = both(end_id=-1)
    # A token of the translations as end: hypotheses end at different steps, some before the limit.
    ids, counts = np.unique([h.ids[-2] for h in never_ending[0]], return_counts=True)
    for ours, theirs in (never_ending, both(end_id=int(ids[counts.argmin()]))):
        assert [h.ids for h in theirs] == [h.ids for h in ours]
        assert [h.score for h in theirs] == pytest.approx([h.score for h in ours], rel=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
def test_sentences_are_translated_in_batches_and_returned_in_order(beam: int) -> None:
    model = make_varied(seed=3)
    settings = SearchSettings(beam, extra_length=5)
    found = torch_decoding.translate(
        peer_of(model), [*SOURCES, []], settings, BEGIN, END, batch_tokens=12
    )
    for ids, hypothesis in zip(SOURCES, found, strict=False):
        [[alone]] = search(model, Packed.of([[*ids, END]]), settings, BEGIN, END)
        assert hypothesis.ids == alone.ids
    assert found[-1].ids == []


@pytest.mark.parametrize("seed", range(3))
def test_one_sentence_at_a_time_is_translated_greedily_as_by_ours(seed: int) -> None:
    model, settings = make_varied(seed), SearchSettings(1, extra_length=30)
    sources = [*SOURCES, [3 + i % 20 for i in range(70)]]  # the last one needs larger arrays
    greedy = Greedy(peer_of(model), "eager", BEGIN, END)
    for ids in (*sources, *SOURCES):
        [[ours]] = search(model, Packed.of([[*ids, END]]), settings, BEGIN, END)
        assert greedy([*ids, END], len(ids) + 30) == ours.ids


def test_decoding_runs_in_bfloat16() -> None:
    peer = peer_of(make()).to(torch.bfloat16)
    source = Packed.of([[*ids, END] for ids in SOURCES])
    settings = SearchSettings(4, extra_length=4)
    found = torch_decoding.search(peer, source, settings, BEGIN, end_id=-1)
    assert [len(h.ids) for h in found] == [len(ids) + 4 for ids in SOURCES]


def test_flash_attention_is_called_with_valid_arguments() -> None:
    """Only the shapes of results and gradients: it computes nothing on a CPU."""
    pytest.importorskip("torch.nn.attention.varlen", reason="needs PyTorch 2.10")
    sentences = torch_packed.packed(make_batches()[0])[0]
    x = torch.empty(len(sentences.ids), 16, device="meta", requires_grad=True)
    for causal in (False, True):
        q = x.unflatten(-1, (2, -1))
        y = torch_packed.flash_attention(q, q, q, sentences, sentences, causal)
        assert y.shape == q.shape
        y.sum().backward()
        assert x.grad.shape == x.shape


def test_batches_are_full_and_their_sizes_vary() -> None:
    batches = training_batches(4, tokens=4096, pairs=20_000)
    for batch in batches:
        most = max(len(batch.source.tokens), batch.target_tokens)
        assert 4096 - 257 < most <= 4096
        assert max(batch.source.lengths.max(), batch.target_input.lengths.max()) <= 257
    assert len({len(batch) for batch in batches}) == 4


def test_sources_have_the_size_of_newstest2014() -> None:
    lengths = [len(ids) for ids in newstest_sources()]
    assert len(lengths) == 3003
    assert np.mean(lengths) == pytest.approx(27, abs=1.5)
