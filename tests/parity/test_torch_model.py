"""The model agrees with the same model in PyTorch, written from the paper.

The peer shares only the values of parameters with ours. Ours packs sentences; here they are padded
to the longest, [batch, length], and masks hide the padding and later tokens.
"""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import to_host
from npformer import Batch, Transformer, TransformerConfig
from npformer.packed import Packed
from train.adam import Adam
from train.schedule import Schedule
from train.step import train_step

torch = pytest.importorskip("torch", reason="the model is compared with PyTorch")
torch.set_num_threads(1)  # for arrays this small threads only cost time
F = torch.nn.functional

BEGIN, END, PAD = 1, 2, 0
IGNORED = -100
SIZES = [(4, 6), (1, 1), (7, 3), (0, 5), (5, 0), (3, 3)]

TINY: dict[str, Any] = {"vocab_size": 23, "layers": 2, "d_model": 12, "d_ff": 20, "heads": 3}

dtypes = pytest.mark.parametrize(
    ("dtype", "within"), [(np.float32, 1e-5), (np.float64, 1e-10)], ids=["float32", "float64"]
)
norms = pytest.mark.parametrize("norm", ["post", "pre"])
shares = pytest.mark.parametrize("share", ["all", "target", "none"])


class Peer:
    """The Transformer of "Attention Is All You Need", in PyTorch."""

    def __init__(self, model: Transformer) -> None:
        self.config = model.config
        self.p = {
            name: torch.tensor(p.numpy(), requires_grad=True)
            for name, p in model.parameters().items()
        }

    def linear(self, name: str, x: Any) -> Any:
        return F.linear(x, self.p[f"{name}.weight"].T, self.p[f"{name}.bias"])

    def norm(self, name: str, x: Any) -> Any:
        gain, bias = self.p[f"{name}.gain"], self.p[f"{name}.bias"]
        return F.layer_norm(x, (self.config.d_model,), gain, bias, self.config.norm_epsilon)

    def around(self, name: str, x: Any, sublayer: Any) -> Any:
        """Section 3.1: the residual connection and the norm, after or before the sub-layer."""
        if self.config.norm == "post":
            return self.norm(f"{name}.norm", x + sublayer(x))
        return x + sublayer(self.norm(f"{name}.norm", x))

    def embed(self, ids: Any, side: str) -> Any:
        """Sections 3.4 and 3.5. ids [batch, length]."""
        config = self.config
        table = self.p["embedding"]
        if side == "source":
            table = self.p.get("source_embedding", table)
        x = table[ids] * math.sqrt(config.d_model)
        if side == "target" and config.decoder_start == "zero":
            x = torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], dim=1)
        if config.positions == "learned":
            return x + self.p[f"{side}_positions"][: ids.shape[1]]
        return x + self.positions(ids.shape[1]).to(x.dtype)

    def positions(self, length: int) -> Any:
        d = self.config.d_model
        pe = torch.zeros(length, d, dtype=torch.float64)
        for position in range(length):
            for i in range(d // 2):
                exponent = 2 * i / d if self.config.position_spacing == "d/2" else i / (d // 2 - 1)
                angle = (position + self.config.first_position) / 10000**exponent
                interleaved = self.config.positions == "interleaved"
                pe[position, 2 * i if interleaved else i] = math.sin(angle)
                pe[position, 2 * i + 1 if interleaved else d // 2 + i] = math.cos(angle)
        return pe

    def attention(self, q: Any, k: Any, v: Any, hidden: Any) -> Any:
        """Section 3.2. q [batch, n, h d_k], k [batch, m, h d_k], v [batch, m, h d_v];
        hidden [batch, n or 1, m] is true where a query must not attend."""

        def heads(x: Any) -> Any:
            return x.unflatten(2, (self.config.heads, -1)).transpose(1, 2)

        q, k, v = heads(q), heads(k), heads(v)
        scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / self.config.d_k**0.5
        weights = scores.masked_fill(hidden[:, None], -math.inf).softmax(dim=-1)
        return torch.einsum("bhnm,bhmd->bhnd", weights, v).transpose(1, 2).flatten(2)

    def self_attention(self, name: str, x: Any, hidden: Any) -> Any:
        k, v = self.config.heads * self.config.d_k, self.config.heads * self.config.d_v
        qkv = self.linear(f"{name}.qkv", x).split([k, k, v], dim=-1)
        return self.linear(f"{name}.output", self.attention(*qkv, hidden))

    def cross_attention(self, name: str, x: Any, memory: Any, hidden: Any) -> Any:
        k, v = self.config.heads * self.config.d_k, self.config.heads * self.config.d_v
        keys, values = self.linear(f"{name}.kv", memory).split([k, v], dim=-1)
        y = self.attention(self.linear(f"{name}.q", x), keys, values, hidden)
        return self.linear(f"{name}.output", y)

    def feed_forward(self, name: str, x: Any) -> Any:
        return self.linear(f"{name}.outer", F.relu(self.linear(f"{name}.inner", x)))

    def out_of_window(self, length: int, behind: int) -> Any:
        """Section 4, restricted self-attention: where a key is too far from a query, [n, n]."""
        distance = torch.arange(length)[:, None] - torch.arange(length)
        seen = (distance <= behind) & (distance > behind - self.config.attention_window)
        return ~seen[None]

    def logits(self, source: Any, source_lengths: Any, target: Any) -> Any:
        """The logits of every next token, also after padding: [batch, length, vocabulary]."""
        absent = (torch.arange(source.shape[1]) >= source_lengths[:, None])[:, None]
        n = target.shape[1]
        ahead = torch.ones(n, n, dtype=torch.bool).triu(1)[None]
        hidden, window = absent, self.config.attention_window
        if window is not None:
            itself = torch.eye(source.shape[1], dtype=torch.bool)  # of padding, against NaN
            hidden = (absent | self.out_of_window(source.shape[1], window // 2)) & ~itself
            ahead = ahead | self.out_of_window(n, window - 1)

        x = self.embed(source, "source")
        for i in range(self.config.layers):
            own, ff = f"encoder.{i}.self_attention", f"encoder.{i}.feed_forward"
            x = self.around(own, x, lambda x, own=own: self.self_attention(own, x, hidden))
            x = self.around(ff, x, lambda x, ff=ff: self.feed_forward(ff, x))
        memory = self.norm("encoder.norm", x) if self.config.norm == "pre" else x

        x = self.embed(target, "target")
        for i in range(self.config.layers):
            own, ff = f"decoder.{i}.self_attention", f"decoder.{i}.feed_forward"
            cross = f"decoder.{i}.cross_attention"
            x = self.around(own, x, lambda x, own=own: self.self_attention(own, x, ahead))
            x = self.around(cross, x, lambda x, c=cross: self.cross_attention(c, x, memory, absent))
            x = self.around(ff, x, lambda x, ff=ff: self.feed_forward(ff, x))
        x = self.norm("decoder.norm", x) if self.config.norm == "pre" else x
        return x @ self.p.get("projection", self.p["embedding"]).T

    def loss(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        """The smoothed loss and the negative log-likelihood, summed over all except padding."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        nll = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        epsilon = self.config.smoothing
        if self.config.smoothing_over == "vocabulary":
            loss = F.cross_entropy(
                logits, targets, ignore_index=IGNORED, reduction="sum", label_smoothing=epsilon
            )
        else:
            real = targets != IGNORED
            q = torch.full_like(logits[real], epsilon / (self.config.vocab_size - 1))
            q[torch.arange(len(q)), targets[real]] = 1 - epsilon
            loss = F.cross_entropy(logits[real], q, reduction="sum")
        return loss, nll


def padded(packed: Packed, pad: int) -> Any:
    sentences = [torch.tensor(s, dtype=torch.long) for s in packed]
    return torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=pad)


def run_peer(peer: Peer, batch: Batch) -> tuple[Any, Any, Any]:
    """The logits of all positions, the smoothed loss and the negative log-likelihood."""
    logits = peer.logits(
        padded(batch.source, PAD),
        torch.tensor(batch.source.lengths),
        padded(batch.target_input, PAD),
    )
    return logits, *peer.loss(logits, padded(batch.target_output, IGNORED))


def make(config: TransformerConfig, dtype: Any, seed: int = 0) -> Transformer:
    """A model with biases and gains that are not 0 and 1."""
    model = Transformer(config, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        parameter.assign(parameter.numpy() + 0.1 * rng.standard_normal(parameter.shape))
    return model


def make_config(**options: Any) -> TransformerConfig:
    if options.get("share_embeddings", "all") != "all":
        options = {"source_vocab_size": 17, **options}
    return TransformerConfig(**{**TINY, **options})


def make_batch(config: TransformerConfig, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    source_vocabulary = config.source_vocab_size or config.vocab_size
    return Batch.of(
        [rng.integers(3, source_vocabulary, n).tolist() for n, _ in SIZES],
        [rng.integers(3, config.vocab_size, m).tolist() for _, m in SIZES],
        begin_id=BEGIN,
        end_id=END,
    )


def assert_agree(model: Transformer, batch: Batch, within: float) -> None:
    """Logits, losses and every gradient."""
    peer = Peer(model)
    logits, loss, nll = run_peer(peer, batch)
    (loss / batch.target_tokens).backward()
    loss, nll = loss.detach(), nll.detach()

    for i, found in enumerate(Packed(model.logits(batch).numpy(), batch.target_input.sentences)):
        expected = logits[i, : len(found)].detach().numpy()
        assert found.dtype == expected.dtype
        assert np.linalg.norm(found - expected) <= within * np.linalg.norm(expected)

    result = train_step(model, Adam(model.buffer), [batch], rate=0.0)
    assert result.loss_sum == pytest.approx(float(loss), rel=within)
    assert result.nll_sum == pytest.approx(float(nll), rel=within)

    gradients = {name: p.grad.numpy() for name, p in peer.p.items()}
    whole = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values()))
    assert result.gradient_norm == pytest.approx(whole, rel=10 * within)
    for name, parameter in model.parameters().items():
        distance = np.linalg.norm(to_host(parameter.grad) - gradients[name])
        assert distance <= within * whole, name


@dtypes
@norms
@shares
def test_logits_losses_and_gradients_match_pytorch(
    norm: Any, share: Any, dtype: Any, within: float
) -> None:
    config = make_config(norm=norm, share_embeddings=share)
    assert_agree(make(config, dtype), make_batch(config), within)


@given(
    norm=st.sampled_from(["post", "pre"]),
    share=st.sampled_from(["all", "target", "none"]),
    positions=st.sampled_from(["interleaved", "concatenated", "learned"]),
    spacing=st.sampled_from(["d/2", "d/2-1"]),
    first=st.sampled_from([0, 2]),
    widths=st.sampled_from([(None, None), (2, None), (None, 7), (5, 3)]),
    smoothing=st.sampled_from([0.0, 0.1, 0.4]),
    smoothing_over=st.sampled_from(["vocabulary", "others"]),
    start=st.sampled_from(["token", "zero"]),
    epsilon=st.sampled_from([1e-6, 1e-3]),
    window=st.sampled_from([None, 1, 2, 3]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15)
def test_every_option_matches_pytorch(
    norm: Any,
    share: Any,
    positions: Any,
    spacing: Any,
    first: int,
    widths: Any,
    smoothing: float,
    smoothing_over: Any,
    start: Any,
    epsilon: float,
    window: int | None,
    seed: int,
) -> None:
    config = make_config(
        norm=norm,
        share_embeddings=share,
        positions=positions,
        position_spacing=spacing,
        first_position=first,
        d_k=widths[0],
        d_v=widths[1],
        smoothing=smoothing,
        smoothing_over=smoothing_over,
        decoder_start=start,
        norm_epsilon=epsilon,
        attention_window=window,
        max_length=10,
    )
    assert_agree(make(config, np.float64, seed), make_batch(config, seed), within=1e-10)


@norms
def test_layers_match_torch_nn_transformer(norm: Any) -> None:
    """torch.nn.Transformer with our weights: a second peer, written by others."""
    config = make_config(norm=norm)
    model = make(config, np.float64)
    batch = make_batch(config)
    d, pre = config.d_model, norm == "pre"
    peer = Peer(model)
    sizes = {
        "d_model": d,
        "nhead": config.heads,
        "dim_feedforward": config.d_ff,
        "dropout": 0.0,
        "layer_norm_eps": config.norm_epsilon,
        "batch_first": True,
        "norm_first": pre,
        "dtype": torch.float64,
    }
    final = [torch.nn.LayerNorm(d, config.norm_epsilon, dtype=torch.float64) for _ in range(2)]
    theirs = torch.nn.Transformer(
        custom_encoder=torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(**sizes),
            config.layers,
            norm=final[0] if pre else None,
            enable_nested_tensor=False,
        ),
        custom_decoder=torch.nn.TransformerDecoder(
            torch.nn.TransformerDecoderLayer(**sizes), config.layers, norm=final[1] if pre else None
        ),
        **sizes,
    )
    state: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        if pre:
            state[f"{side}.norm.weight"] = peer.p[f"{side}.norm.gain"]
            state[f"{side}.norm.bias"] = peer.p[f"{side}.norm.bias"]
        for i in range(config.layers):
            mine, their = f"{side}.{i}", f"{side}.layers.{i}"
            names = {
                "self_attention.qkv": "self_attn.in_proj_",
                "self_attention.output": "self_attn.out_proj.",
                "cross_attention.output": "multihead_attn.out_proj.",
                "feed_forward.inner": "linear1.",
                "feed_forward.outer": "linear2.",
            }
            for ours, other in names.items():
                if f"{mine}.{ours}.weight" in peer.p:
                    state[f"{their}.{other}weight"] = peer.p[f"{mine}.{ours}.weight"].T
                    state[f"{their}.{other}bias"] = peer.p[f"{mine}.{ours}.bias"]
            if side == "decoder":
                q, kv = f"{mine}.cross_attention.q", f"{mine}.cross_attention.kv"
                state[f"{their}.multihead_attn.in_proj_weight"] = torch.cat(
                    [peer.p[f"{q}.weight"], peer.p[f"{kv}.weight"]], dim=1
                ).T
                state[f"{their}.multihead_attn.in_proj_bias"] = torch.cat(
                    [peer.p[f"{q}.bias"], peer.p[f"{kv}.bias"]]
                )
            sublayers = ["self_attention", "feed_forward"]
            if side == "decoder":
                sublayers.insert(1, "cross_attention")
            for k, sublayer in enumerate(sublayers, start=1):
                state[f"{their}.norm{k}.weight"] = peer.p[f"{mine}.{sublayer}.norm.gain"]
                state[f"{their}.norm{k}.bias"] = peer.p[f"{mine}.{sublayer}.norm.bias"]
    theirs.load_state_dict(state)

    source, target = padded(batch.source, PAD), padded(batch.target_input, PAD)
    absent = torch.arange(source.shape[1]) >= torch.tensor(batch.source.lengths)[:, None]
    n = target.shape[1]
    with torch.no_grad():
        y = theirs(
            peer.embed(source, "source"),
            peer.embed(target, "target"),
            tgt_mask=torch.ones(n, n, dtype=torch.bool).triu(1),
            src_key_padding_mask=absent,
            memory_key_padding_mask=absent,
        )
        logits = (y @ peer.p["embedding"].T).numpy()
    ours = Packed(model.logits(batch).numpy(), batch.target_input.lengths)
    for i, found in enumerate(ours):
        np.testing.assert_allclose(found, logits[i, : len(found)], rtol=1e-10, atol=1e-10)


@norms
@pytest.mark.parametrize("share", ["all", "none"])
def test_twenty_steps_of_training_match_pytorch(norm: Any, share: Any) -> None:
    config = make_config(norm=norm, share_embeddings=share)
    model = make(config, np.float64)
    batches = [make_batch(config, seed) for seed in range(3)]
    rate = Schedule("paper", warmup=8, d_model=config.d_model, factor=0.5)
    ours = Adam(model.buffer)
    peer = Peer(model)
    theirs = torch.optim.Adam(peer.p.values(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda k: rate(k + 1))

    losses = []
    for step in range(1, 21):
        batch = batches[step % 3]
        losses.append(train_step(model, ours, [batch], rate(step)).loss_sum / batch.target_tokens)
        theirs.zero_grad()
        expected = run_peer(peer, batch)[1] / batch.target_tokens
        expected.backward()
        theirs.step()
        schedule.step()
        assert losses[-1] == pytest.approx(float(expected.detach()), rel=1e-9), f"step {step}"
    assert losses[-1] < 0.9 * losses[0]  # and the model learns
