# %% [markdown]
# # From an operation to a translation
#
# In a quarter of an hour you will write an operation with its gradient, train a small network with
# it, train a Transformer that translates, and look at what it attends to. You need some Python and
# NumPy, and to know what a derivative is.
#
# This page is a script, `python docs/tutorial.py`, and the same as a notebook,
# `docs/tutorial.ipynb`. Install the project first: `pip install '.[fast,plot]'`. Everything takes
# one to two minutes on two cores, and the first time a few more, as the fast loops are compiled.

# %%
import numpy as np

rng = np.random.default_rng(0)

# %% [markdown]
# ## An operation of your own
#
# An operation is a function of arrays. It returns its value and a function that is called `vjp`,
# for vector-Jacobian product. That one goes backwards. It is given `dy`, the gradient of the loss
# with respect to the value `y`, and returns the gradient with respect to `x`.
#
# Here is softplus, a smooth max(0, x). Its derivative is the sigmoid, so by the chain rule
# $dx = dy \cdot 1 / (1 + e^{-x})$.

# %%
from autograd import check_gradients, op


@op
def softplus(x):
    y = np.log(1 + np.exp(x))

    def vjp(dy):
        return dy / (1 + np.exp(-x))

    return y, vjp


print(softplus(np.array([-2.0, 0.0, 2.0])))

# %% [markdown]
# Is the gradient right? `check_gradients` changes the input a little, looks at how the output
# changes, and compares that with what `vjp` says. It says nothing if they agree.

# %%
check_gradients(softplus, rng.standard_normal((3, 4)))

# %% [markdown]
# A wrong gradient does not pass. The derivative of x³ is not 2x².

# %%


@op
def cube(x):
    return x**3, lambda dy: dy * 2 * x**2


try:
    check_gradients(cube, rng.standard_normal(5))
except AssertionError as error:
    print(error)

# %% [markdown]
# ## Learning with a tape
#
# A `Parameter` holds numbers that are learned. A `Tape` records every operation inside its `with`.
# `tape.backward(loss)` plays the record back, from the loss to the parameters: each `vjp` is called
# once, newest first. After that every parameter has its gradient in `grad`.
#
# Let a network with 16 hidden units learn the sine. It uses our softplus. A step of learning goes
# against the gradient.

# %%
from autograd import Parameter, Tape

x = np.linspace(-3, 3, 64)[:, None]  # [64, 1]
inner = Parameter(rng.standard_normal((1, 16)))
bias = Parameter(rng.standard_normal(16))
outer = Parameter(rng.standard_normal((16, 1)) / 4)

for step in range(2001):
    with Tape() as tape:
        y = softplus(x @ inner + bias) @ outer
        loss = ((y - np.sin(x)) ** 2).mean()
    tape.backward(loss)
    for parameter in (inner, bias, outer):
        parameter.assign(parameter.numpy() - 0.03 * parameter.grad)
    if step % 500 == 0:
        print(f"step {step}: loss {loss.item():.4f}")

# %% [markdown]
# ## Attention
#
# The heart of the Transformer is one line (section 3.2.1 of
# [the paper](https://arxiv.org/abs/1706.03762)):
#
# $$\mathrm{Attention}(Q, K, V) = \mathrm{softmax}(Q K^\top / \sqrt{d_k}) \, V$$
#
# Each row of $Q$ asks, each row of $K$ answers how well it fits. The softmax turns a row of answers
# into weights that add up to 1, and the result is the mean of the rows of $V$ with these weights.
# The library has it as an operation, with its gradient by hand. It gives the same numbers.

# %%
from autograd import ops

q, k, v = rng.standard_normal((3, 4, 8))  # 4 tokens, d_k = d_v = 8
weights = ops.softmax(q @ k.T / np.sqrt(8))
print(weights.round(2), weights.sum(axis=1))
print(np.allclose(weights @ v, ops.scaled_dot_product(q, k, v)))

# %% [markdown]
# ## Sentences to translate
#
# A small grammar makes English sentences with their German translations, as many as we like. It is
# harder than it looks: German has cases, genders, and verbs that go to the end.
#
# A model reads numbers. A tokenizer for each language learns a vocabulary of subwords, and turns
# text into their ids. In a subword, ▁ stands for a space.

# %%
from npformer import Tokenizer, TokenizerPair
from train.grammar import generate

PAIRS, STEPS = 20_000, 1_500

text = generate(PAIRS, held_out=200)
for pair in text.train[:3]:
    print(f"{pair.source}\n  → {pair.target}")

english = Tokenizer.train([pair.source for pair in text.train], vocab_size=800)
german = Tokenizer.train([pair.target for pair in text.train], vocab_size=800)
ids = english.encode(text.train[0].source)
print(ids, english.pieces(ids))

# %% [markdown]
# ## A Transformer
#
# The configuration has the paper's own names. The paper's base model has six layers and
# `d_model=512`; two layers and 96 will do here. Without dropout, too: there is more text than such
# a model can memorise.

# %%
from npformer import Transformer, TransformerConfig

config = TransformerConfig(
    vocab_size=german.vocab_size,
    source_vocab_size=english.vocab_size,
    share_embeddings="target",
    layers=2,
    d_model=96,
    d_ff=192,
    heads=6,
    dropout=0.0,
    smoothing=0.05,
    norm="pre",
)
model = Transformer(config, seed=0)
print(f"{sum(p.size for p in model.parameters().values()):,} parameters")

# %% [markdown]
# It is trained as the network above was: record, play back, step. Only the step is Adam's, and the
# learning rate rises at first and then falls. A batch is 48 random pairs, one sentence behind the
# other, so that nothing is padded.
#
# The loss is the cross-entropy of each next German token, given the English sentence and the tokens
# before. At random it is ln 800 = 6.7.

# %%
from npformer import Batch
from train.adam import Adam
from train.schedule import Schedule

sources = english.encode_lines([pair.source for pair in text.train])
targets = german.encode_lines([pair.target for pair in text.train])
optimizer = Adam(model.buffer)
rate = Schedule("cosine", warmup=100, peak=3.5e-3, steps=max(STEPS, 101))

for step in range(1, STEPS + 1):
    chosen = rng.integers(len(sources), size=48)
    batch = Batch.of(
        [sources[i] for i in chosen],
        [targets[i] for i in chosen],
        begin_id=german.begin_id,
        end_id=german.end_id,
    )
    with Tape() as tape:
        loss = model.loss(batch)
    tape.backward(loss)
    optimizer.step(rate(step))
    if step == 1 or step % 250 == 0:
        print(f"step {step}: loss {loss.item():.2f}")

# %% [markdown]
# ## Translations
#
# The model has not seen these sentences. More than that: each one combines words that were never
# combined in training. Beam search keeps the four best beginnings of a translation at each step.
#
# BLEU counts the words and phrases that translation and reference have in common; 100 is perfect.

# %%
from npformer import Translator
from train.evaluation import bleu

translator = Translator(model, TokenizerPair(english, german))
translations = translator.translate([pair.source for pair in text.test], beam=4)
for pair, translation in list(zip(text.test, translations, strict=True))[:5]:
    print(f"{pair.source}\n  → {translation.text}\n    {pair.target}")
print(bleu([t.text for t in translations], [pair.target for pair in text.test], "13a"))

# %% [markdown]
# ## What it attends to
#
# Which English token does the model look at when it says a German one? Here are the weights of the
# decoder's attention to the source, the mean of all heads. A row adds up to 1. Look for bright
# spots away from the diagonal: there the word order differs.

# %%
import matplotlib.pyplot as plt

[seen] = translator.translate([text.test[1].source], attention=True)
weights = seen.attention.cross[seen.attention.alignment_layer].mean(axis=0)

figure, axes = plt.subplots(layout="constrained")
axes.imshow(weights, cmap="magma")
axes.set_xticks(range(len(seen.source_pieces)), seen.source_pieces, rotation=90)
axes.set_yticks(range(len(seen.predicted_pieces)), seen.predicted_pieces)
figure.savefig("tutorial.png")
print(f"{seen.text} (see tutorial.png)")

# %% [markdown]
# ## Where to go from here
#
# - [`docs/gradients.md`](gradients.md) derives each gradient of the model with paper and pencil.
# - [`examples/`](../examples) has ideas of others, tried on this model in one small file each.
#   *Trying an idea* in [`CONTRIBUTING.md`](../CONTRIBUTING.md) says how to try yours.
# - The [README](../README.md) has the command line, which trains on text of your own.
