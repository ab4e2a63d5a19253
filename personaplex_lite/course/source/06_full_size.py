# %% [markdown]
# # Full size
#
# `lite` is a toy. The model it imitates is a file of 16.7 GB, has to think a whole frame every 80 ms, and people run it on cards that
# cannot even hold that file. How does it fit, and how does it keep up? You count it by hand, take its
# file apart, shrink its weights to 8 and to 4 bits, hear what that costs, and find the one number that decides whether a machine is
# fast enough.
#
# **Time** 30 minutes, 45 more for the exercises. **Hardware** two CPU cores, no network; one cell does more where there is a GPU with the 7B's weights.
# **Afterwards** you can tell from two numbers of a data sheet whether a card can talk, and read the file without any library.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# This is the 7B, all of it, on your machine: a model on the "meta" device has every shape and no memory. How many numbers is it?

# %%
import re
from dataclasses import replace
import matplotlib.pyplot as plt
import torch
import personaplex_lite as pp
from personaplex_lite import viz
from personaplex_lite.weights.checkpoint import empty_lm

config, codec = pp.config.personaplex_7b()
model = empty_lm(config, torch.bfloat16, None).requires_grad_(False)
sizes = {name: p.numel() for name, p in model.named_parameters()}
print(f"{sum(sizes.values()):,} numbers of 2 bytes: {2 * sum(sizes.values()) / 1e9:.2f} GB")

# %% [markdown]
# Where are they? Guess before you look: which part is the largest, and does the *depth* transformer (width 1024, next to 4096)
# matter at all?

# %%
parts = {"table of words": "text_embed", "16 tables of codes": "audio_embed",
         "temporal, attention": "temporal.*attn", "temporal, SwiGLU": "temporal.*mlp",
         "text head": "text_head", "depth, tables": "depth.*_embed",
         "depth, 16 steps": "depth.(inputs|layers|heads)"}
count = {part: sum(n for name, n in sizes.items() if re.match(pattern, name))
         for part, pattern in parts.items()}
ax = viz.new_axes(None, 8, 2.4)
ax.barh(list(count)[::-1], [n / 1e9 for n in list(count.values())[::-1]], color=viz.AGENT)
ax.set_xlabel("billions of numbers", color=viz.INK, fontsize=8)
print(*(f"{n / sum(count.values()):4.0%}  {part}" for part, n in count.items()), sep="\n")

# %% [markdown]
# A layer of the temporal transformer is four square maps for attention, three maps for SwiGLU (two in, one out) and two norms. By
# hand, and by the model:

# %%
d, h = config.temporal.dim, config.temporal.hidden
attention, swiglu, norms = 4 * d * d, 3 * d * h, 2 * d
first = sum(n for name, n in sizes.items() if name.startswith("temporal.layers.0."))
print(f"by hand:  {attention + swiglu + norms:,}")
print(f"by model: {first:,}, of which SwiGLU {swiglu / first:.0%}")

# %% [markdown]
# **Exercise 1** ●●○, 10 minutes. Count the depth transformer. *Each* of its `depth_steps` steps has maps of its own: one that brings the
# temporal vector in, one head over the audio vocabulary, and in each layer four for attention and three for SwiGLU. The two
# norms of a layer are shared by all steps. Beside these there is a table for the text token, and one for the codes of each step
# but the last. A table has one row more than its vocabulary, the start token.
#
# <details><summary>Hint 1</summary>Write D for `config.depth.dim` and d for `config.temporal.dim`. The map in has D · d numbers, a head
# `config.audio_vocab` · D.</details>
# <details><summary>Hint 2</summary>Three terms: steps × (in + layers × (attention + SwiGLU) + head), the norms of all layers, the tables.
# </details>

# %%
def depth_parameters(config):
    """LMConfig: .depth_steps .text_vocab .audio_vocab .temporal.dim .depth.dim/layers/hidden -> int"""
    # solution
    k, p = config.depth_steps, config.depth
    layer = 4 * p.dim ** 2 + 3 * p.dim * p.hidden
    steps = k * (p.dim * config.temporal.dim + p.layers * layer + config.audio_vocab * p.dim)
    tables = (config.text_vocab + 1 + (k - 1) * (config.audio_vocab + 1)) * p.dim
    return steps + p.layers * 2 * p.dim + tables
    # end

# %% [markdown]
# The check: three models, the 7B among them.

# %%
pp.check.depth_count(depth_parameters)

# %% [markdown]
# So the narrow one is a sixth of it all, because it has its own weights sixteen times.
#
# ## The file
#
# 16.7 GB of what? A safetensors file is simpler than a zip: **8 bytes** say how long the header is, the **header** is JSON, the rest is
# numbers. `lite`'s file has the same names, so we take it apart with nothing but `open`.

# %%
import json

path = pp.places.LITE / "lm.safetensors"
with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
header.pop("__metadata__", None)
print(f"{length} bytes of header, {len(header)} tensors, for example")
for name in ("text_emb.weight", "depformer_in.0.weight", "out_norm.alpha"):
    print(f"  {name}: {header[name]}")

# %% [markdown]
# That is a map of the file. Here it is, drawn: from the first byte on the left to the last on the right.

# %%
colours = {"transformer": viz.AGENT, "depformer": viz.USER, "linears": viz.USER}
ax, used = viz.new_axes(None, 10, 1.1), 0
for name, about in header.items():
    begin, end = about["data_offsets"]
    used += end - begin
    colour = next((c for start, c in colours.items() if name.startswith(start)), viz.INK)
    ax.broken_barh([(begin / 1e6, (end - begin) / 1e6)], (0, 1), fc=colour, ec="white", lw=0.4)
ax.set(yticks=[], xlim=(0, used / 1e6))
ax.set_xlabel("MB · blue: temporal, orange: depth, grey: the rest", color=viz.INK, fontsize=8)
print("8 + header + tensors is the whole file:", 8 + length + used == path.stat().st_size)

# %% [markdown]
# **Exercise 2** ●●○, 10 minutes. Read one tensor. Offsets count from the end of the header.
#
# <details><summary>Hint 1</summary>`file.seek(n)` goes to byte n. At which byte do the numbers begin?</details>
# <details><summary>Hint 2</summary>`torch.frombuffer(bytearray(data), dtype=…)` makes a flat tensor of bytes; `.view(shape)` brings it in
# shape.</details>

# %%
KINDS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16,
         "I64": torch.int64, "I8": torch.int8}

def read_tensor(path, name):
    """-> the tensor, in its own type and shape"""
    # solution
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(length))[name]
        begin, end = about["data_offsets"]
        file.seek(8 + length + begin)
        data = bytearray(file.read(end - begin))
    return torch.frombuffer(data, dtype=KINDS[about["dtype"]]).view(about["shape"])
    # end

# %% [markdown]
# The check: files with all kinds of tensors, then `lite`'s against the library.

# %%
pp.check.tensor_read(read_tensor, path)

# %% [markdown]
# Why does one care? Because this is how 16.7 GB get into a machine that has 16: **tensor by tensor**. Shapes first (the meta model), then
# each tensor from its place in the file to its place in the model, made smaller on the way. Loading the 7B takes 0.3 GB more
# than the model itself ([measured](../docs/fullsize.md)); reading the file first and copying then would take it twice.
#
# ## Eight bits
#
# A weight is stored in 16 bits. Does it need them? This map is from `lite`, and here is all there is to int8: each output gets a scale, so
# that its largest weight becomes 127, and all are rounded.

# %%
from personaplex_lite.model import quantize

class Int8(torch.nn.Module):
    """A linear map [o, i] in 8 bits a weight."""
    def __init__(self, weight):
        super().__init__()
        self.scale = (weight.abs().amax(1) / 127).bfloat16()                       # [o]
        self.q = (weight / self.scale.float()[:, None]).round().to(torch.int8)     # [o, i]

    def forward(self, x):
        return x @ (self.q * self.scale.float()[:, None]).T

# %% [markdown]
# The package does the same. How far off is what comes out, on random input?

# %%
source = {"device": "cpu"}      # or: {"source": "nvidia/personaplex-7b-v1", "device": "cuda"}
agent = pp.load(**source)
weight = agent.lm.temporal.layers[0].mlp.linear_out.weight.float().cpu()           # [o, i]
mine, (q, scale) = Int8(weight), quantize.quantise(weight, "int8")
print("as pp's:", torch.equal(mine.q, q), torch.equal(mine.scale, scale))
x = torch.randn(100, weight.shape[1], generator=torch.Generator().manual_seed(0))
wanted = x @ weight.T                                                              # [100, o]
print(f"bytes: {2 * weight.numel():,} -> {q.nbytes + scale.nbytes:,}")
print(f"off by {(mine(x) - wanted).norm() / wanted.norm():.1%} of what comes out")

# %% [markdown]
# ## Four bits
#
# The same trick with 16 levels instead of 255? Look at 96 weights of one output (dots), and at the levels they may have (lines): above, 16
# levels for the whole row, whose largest weights lie outside the picture; below, 16 for every 32 neighbours.

# %%
figure, axes = plt.subplots(2, 1, figsize=(10, 4.4), layout="constrained", facecolor="none", sharey=True)
row = weight[weight.abs().amax(1).argmax()]                                        # [i]
for ax, size in zip(axes, (96, 32)):
    viz.new_axes(ax, 10, 2).plot(row[:96], ".", color=viz.AGENT, ms=4)
    for start in range(0, 96, size):
        few = row if size == 96 else row[start:start + size]
        levels = torch.linspace(few.min(), few.max(), 16)
        ax.hlines(levels, start - 0.5, start + size - 0.5, color=viz.USER, lw=0.6)
    ax.set_ylabel("whole row" if size == 96 else "groups of 32", color=viz.INK, fontsize=8)
axes[1].set_xlabel("input · blue: weights, orange: their 16 levels", color=viz.INK, fontsize=8)
print(len(row), "weights in the row, its range is", round(float(row.max() - row.min()), 2))

# %% [markdown]
# One large weight anywhere in a row makes the levels coarse for all. Groups keep the damage local; each costs a step and an offset of
# 16 bits.
#
# **Exercise 3** ●●●, 10 minutes. Round a matrix to 4 bits in groups, and back: in each group, the smallest weight becomes level 0, the
# largest level 15, all others the nearest level.
#
# <details><summary>Hint 1</summary>`w.view(o, -1, size)` puts groups in a dimension of their own; `amin(-1, keepdim=True)` is the lowest of
# each.</details>
# <details><summary>Hint 2</summary>step = (highest − lowest) / 15; level = (w − lowest) / step, rounded; and back is level · step + lowest.
# </details>

# %%
def four_bits(w, size):
    """float [o, i], i a multiple of size -> float [o, i], 16 different values in a group at most"""
    # solution
    groups = w.view(len(w), -1, size)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / 15
    return (((groups - low) / step).round() * step + low).view(w.shape)
    # end

# %% [markdown]
# The check; and what smaller groups bring, by your function: the error of the map, and the bits a weight then takes.

# %%
pp.check.int4_groups(four_bits)
for size in (weight.shape[1], 64, 32, 16):
    if (rounded := four_bits(weight, size)) is not None:
        off = float((x @ rounded.T - wanted).norm() / wanted.norm())
        print(f"groups of {size:4}: off by {off:5.1%}, {4 + 32 / size:.2f} bits a weight")

# %% [markdown]
# The package takes groups of 32, so 5 bits a weight, and leaves tables, norms and heads as they are.
#
# ## What it costs
#
# An error of a few percent in *every* map of *every* layer. Does the model still say the same? We let it talk once, and then force that
# very talk on it with other weights. At each frame we look which token it *would* have said.

# %%
asked = pp.audio.read("../data/questions/name.wav")
who = pp.Persona(min(agent.voices), "you are peter and you work at diamond pharmacy we close at two")
reply = agent.chat(who, greedy=True, progress=False).run(asked, progress=False)
print(list(reply.codes.shape), "tokens:", reply.text)

def favourites(agent):
    """Of each frame of that talk the 9 tokens that the agent finds likeliest, int64 [t, 9]"""
    chat, best = replace(agent, mimi=None).chat(who, trace=True, progress=False), []
    for frame in torch.from_numpy(reply.codes).T[1:]:     # [17]; 0 is the prompt's
        chat.step(user=frame[9:], agent=frame[1:9], text=frame[0])
        best.append([int(x.argmax()) for x in (chat.last.text_logits[0], *chat.last.audio_logits[0])])
    return torch.tensor(best)

# %% [markdown]
# With 8 and with 4 bits: in how many frames is the favourite the same?

# %%
# NBVAL_IGNORE_OUTPUT
# not compared: processors differ in how they add 16-bit numbers, and two nearly equal ones may change places
base, agree = favourites(agent), {}
for weights in ("int8", "int4"):
    agree[weights] = (favourites(pp.load(weights=weights, **source)) == base).float().mean(0)
    print(f"{weights}: text {agree[weights][0]:.0%}, semantic {agree[weights][1]:.0%}, "
          f"acoustic {agree[weights][2:].mean():.0%} the same")

# %% [markdown]
# Row by row, how often it is *another*. What is hurt first, what the agent says or how it sounds?

# %%
ax = viz.new_axes(None, 9, 2.4)
for i, (weights, colour) in enumerate(zip(agree, (viz.AGENT, viz.USER))):
    ax.bar(torch.arange(9) + 0.4 * i - 0.2, 1 - agree[weights], 0.38, color=colour, label=weights)
ax.set_xticks(range(9), ["text", "semantic", *[f"acoustic {i}" for i in range(2, 9)]])
ax.set_ylabel("another favourite", color=viz.INK, fontsize=8)
ax.legend(frameon=False, labelcolor=viz.INK, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
print("4 bits disturb more than 8:", bool(agree["int4"].mean() < agree["int8"].mean()))

# %% [markdown]
# What matters is what one hears. Quantising can be done once and for all: `convert` writes a folder that is as small as it will be in memory.
# Here is `lite` in 4 bits, asked the same; above it the original.

# %%
import tempfile
from IPython.display import display

whole = source.get("source", "../data/lite")
folder = pp.convert(whole, tempfile.mkdtemp() + "/small", "int4")
small = pp.load(folder, device=source["device"])
before = 2 * sum(p.numel() for p in agent.lm.parameters())
after = (folder / "lm.safetensors").stat().st_size
print(f"{before / 1e6:.1f} MB at 16 bits -> {after / 1e6:.1f} MB, {after / before:.0%}")
answer = small.chat(who, greedy=True, progress=False).run(asked, progress=False)
display(reply.play(), answer.play())

# %% [markdown]
# [docs/quantize.md](../docs/quantize.md) measures it with error bars, on held-out dialogues and on questions asked aloud. What it costs the
# 7B nobody has measured here: its weights were not at hand.
#
# ## Does it fit?
#
# Weights are not all. Each talk remembers a key and a value for each layer and step, 3000 steps long. How much is that, and what does
# `pp.plan` say of this machine?

# %%
# NBVAL_IGNORE_OUTPUT
# not compared: what is free differs from machine to machine
made = pp.plan("nvidia/personaplex-7b-v1")

# %% [markdown]
# Most of the table's second column by hand (it adds what the codec remembers): keys and values, for 32 layers, 3000 steps, 4096 numbers of 2 bytes.

# %%
t = config.temporal
print(f"by hand: {2 * t.layers * t.context * t.dim * 2 / 1e9:.2f} GB")
one, eight = (model.new_state(talks).nbytes / 1e9 for talks in (1, 8))
print(f"by pp:   {one:.2f} GB, for eight talks {eight:.2f}")
for need in made.needs:
    print(f"{need.weights}: {need.model / 1e9:5.2f} GB of weights, all in all {need.total / 1e9:5.2f}")

# %% [markdown]
# ## 80 milliseconds
#
# It fits; does it keep up? One frame is some arithmetic and some reading. How much of either? torch can count operations without
# doing them, so let the meta model think one frame.

# %%
from torch.utils.flop_counter import FlopCounterMode

def think(model):
    """One frame: 17 tokens -> a hidden vector, text logits, 8 codes"""
    tokens = torch.zeros(1, 17, dtype=torch.int64, device="meta")
    hidden, text = model.step(model.embed(tokens), tokens[:, 0], model.new_state(1))
    codes = model.depth.sample(hidden, text.argmax(-1), tokens[:, 1:], lambda k, x: x.argmax(-1), 8)
    return {"tokens": tokens, "hidden": hidden, "text logits": text, "codes": codes}

with FlopCounterMode(display=False) as counter:
    think(model)
print(f"{counter.get_total_flops() / 1e9:.1f} billion operations a frame")

# %% [markdown]
# That is 0.2 trillion a second. Even a small card of 2018, the T4, does 65 trillion at 16 bits (its data sheet). Arithmetic is not the
# problem: this much takes it a quarter of a millisecond. Reading is.
#
# **Exercise 4** ●●○, 10 minutes. How many *bytes* must a frame read? Every map is used once: all of the temporal transformer, the text head
# (`text_vocab` × d), and 8 of the depth steps (the others guess what *you* say, and you are there to say it). Heads stay at 16
# bits, all other maps take `bits`. Of the tables a frame reads only a row each, and norms are tiny: leave them out.
#
# <details><summary>Hint</summary>You have both sums already: a temporal layer from above, a depth step from exercise 1. Mind that the
# depth's heads (`audio_vocab` × D for each step) are heads.</details>

# %%
def bytes_read(config, bits):
    """an LMConfig, bits that a weight takes -> bytes of weights that a frame reads"""
    # solution
    t, p = config.temporal, config.depth
    maps = t.layers * (4 * t.dim ** 2 + 3 * t.dim * t.hidden)
    maps += 8 * (p.dim * t.dim + p.layers * (4 * p.dim ** 2 + 3 * p.dim * p.hidden))
    heads = config.text_vocab * t.dim + 8 * config.audio_vocab * p.dim
    return maps * bits / 8 + heads * 2
    # end

# %% [markdown]
# The check: with 16, 8 and 5 bits, and for a model that has only 8 depth steps in its file.

# %%
pp.check.frame_bytes(bytes_read)

# %% [markdown]
# Once more, from the model itself; and at 16 bits with the ring of a talk of four minutes, beside the operations.

# %%
heads = count["text head"] + 8 * config.audio_vocab * config.depth.dim
steps = count["depth, 16 steps"] // 2 - 8 * config.audio_vocab * config.depth.dim
maps = count["temporal, attention"] + count["temporal, SwiGLU"] + steps
bits = {"bf16": 16, "int8": 8, "int4": 5}
reads = {kind: (maps * n / 8 + heads * 2) / 1e9 for kind, n in bits.items()}
print(*(f"{kind}: {gb:.2f} GB a frame" for kind, gb in reads.items()), sep="\n")
all_in_all = reads["bf16"] + model.new_state(1).nbytes / 1e9
print(f"operations for each byte: {counter.get_total_flops() / 1e9 / all_in_all:.2f}")

# %% [markdown]
# **One** operation for each byte. A T4 could do 200 in the time it takes to read that byte, so it waits, as all cards do. This is why no frame
# is faster than *bytes / bandwidth*, and why small weights are fast although each is turned back into a number before use. How much
# does your machine read in a second?

# %%
# NBVAL_IGNORE_OUTPUT
# not compared: it is a measurement of this machine
from timeit import repeat

block = torch.ones(2 ** 26)                               # 0.27 GB, larger than any cache
here = block.nbytes / min(repeat(block.sum, number=1, repeat=7)) / 1e9
floors = ", ".join(f"{kind} {1e3 * gb / here:.0f} ms" for kind, gb in reads.items())
print(f"it reads {here:.0f} GB a second, so a frame of the 7B takes at least {floors}")

# %% [markdown]
# And others? The makers' bandwidths (peak, GB/s) and their memory (GB). The floor of a frame in milliseconds:

# %%
cards = {"RTX 4060": (272, 8), "L4": (300, 24), "T4": (320, 16), "RTX 3060": (360, 12),
         "M2 Max": (400, 64), "RTX 3090": (936, 24), "RTX 4090": (1008, 24), "A100": (2039, 80),
         "H100": (3350, 80)}
needs = {need.weights: need.total / 1e9 for need in made.needs}
print(" " * 9, *(f"{kind:>5} " for kind in reads))
for card, (speed, memory) in cards.items():
    floor = {kind: f"{1e3 * gb / speed:5.0f}" for kind, gb in reads.items()}
    print(f"{card:9}", *(ms + " *"[needs[kind] > memory] for kind, ms in floor.items()))
print("* does not fit, with a talk of four minutes")

# %% [markdown]
# The same as a picture, hollow where it does not fit. The line is what a frame may take. The crosses were *measured* by others, with 4-bit
# weights (ggml on an RTX 3060 and a 4060, MLX on an M2 Max; public figures).

# %%
ax = viz.new_axes(None, 10, 3)
ax.set_xticks(range(len(cards)), cards)
for (kind, gb), marker, colour in zip(reads.items(), "os^", (viz.INK, viz.AGENT, viz.USER)):
    for i, (speed, memory) in enumerate(cards.values()):
        fill, label = colour if needs[kind] < memory else "none", kind if i == 4 else ""
        ax.plot(i, 1e3 * gb / speed, marker, color=colour, mfc=fill, label=label)
ax.plot([0, 3, 4], [1000 / 17.9, 1000 / 17.8, 68], "x", color=viz.USER, label="int4, measured")
ax.axhline(80, color=viz.INK, lw=1, ls="--")
ax.set(yscale="log", yticks=(ticks := [1, 2, 5, 10, 20, 40, 80]), yticklabels=ticks)
ax.minorticks_off()
ax.set_ylabel("ms a frame", color=viz.INK, fontsize=8)
legend = ax.legend(frameon=False, labelcolor=viz.INK, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# By its floor nearly every card is fast enough; by the crosses, three to six times above it, only just. A floor is a floor: a frame is also some
# thousand small operations that must be started one by one, the ring, and the codec on both ends. That gap is what captured graphs and
# fused kernels are for ([docs/speed.md](../docs/speed.md)). The same fact has a bright side: weights that have been read for one talk
# serve sixteen. On one data-centre GPU, 2 talks at once took 28 ms a frame and 16 took 45 (vllm-omni, a public figure).
# %% [markdown]
# ## For real, step by step
#
# With a GPU (Colab, a hub, your own) this is the way to the 7B. Each cell says what it would do where there is no card. **Nobody has run
# these cells on a GPU yet**: `personaplex-lite doctor --report report.md` writes down what happens on yours, and we would like to see it.
#
# 1. *The project*: the setup cell at the top installs the wheel that it names.
# 2. *The licence*: open [the model's page](https://huggingface.co/nvidia/personaplex-7b-v1), log in, and agree to the NVIDIA Open Model License.
#    It allows use, change and handing on, also commercially; who hands the weights on hands on the licence and NVIDIA's notice with them.
# 3. *Log in*, so that the token stays out of the notebook: in a terminal `hf auth login`, or the next cell: the hub's library keeps the
#    token in your home folder.

# %% gpu
from getpass import getpass
from huggingface_hub import get_token, login
card = torch.cuda.is_available()
if card and get_token() is None:
    login(getpass("token (hf_…): "))
print("a card is here" if card else "no card here: the next cells say what they would do")

# %% [markdown]
# 4. *Will it fit?* `made`, from above, has the best choice for this machine. A T4 (16 GB, no bf16) takes `int8` or `int4`, computed in fp16.
#    "Fits" is memory; "keeps up" is another question, and the doctor's.
# 5. *Download*: 16.7 GB to the hub's cache, with a bar; it goes on where it broke off. `HF_HOME` moves the cache to a larger disk.

# %% gpu
repo, choice = "nvidia/personaplex-7b-v1", made.best if card else ("cuda:0", "int8")
for speed in (10, 100):
    print(f"16.7 GB at {speed} MB a second: {16_700 / speed / 60:.0f} minutes")
if card:
    large = pp.load(repo, device=choice[0], weights=choice[1])
else:
    print(f"no card: here would stand pp.load({repo!r}, device={choice[0]!r}, weights={choice[1]!r})")

# %% [markdown]
# 6. *First words*, and how long a frame takes. Never load a second copy beside the first: `del large, chat` and *Restart kernel* come before
#    another choice.

# %% gpu
import time
if card:
    chat = large.chat(pp.Persona("NATF2", "You enjoy having a good conversation."))
    began, answer = time.time(), chat.run(asked)
    print(f"{choice}: {1e3 * (time.time() - began) / len(answer.frames):.0f} ms a frame, 80 is real time")
    display(answer.text, answer.play())
else:
    print("no card: one frame in full-size shapes, without weights")
    print(*(f"  {what:12} {list(x.shape)}" for what, x in think(model).items()), sep="\n")

# %% [markdown]
# 7. *Talk to it*: `pp.Talk(chat)` in a cell of its own, as `07_live` explains.
#
# | what you see | what it means | what to do |
# |---|---|---|
# | "accept the licence" | step 2 is missing, or with another account | agree on the page, with the account of the token |
# | "set HF_TOKEN" | nobody is logged in | step 3 |
# | "the disk … is too full" | 16.7 GB and 2 to spare | `HF_HOME` on a larger disk, before anything is imported |
# | "needs … GB on cuda" | it does not fit | `weights="int4"`, or `context=1500` (two minutes of memory) |
# | a crash while loading | the *host's* memory: Colab gives 12.7 GB | it is read tensor by tensor; close other notebooks |
# | more than 80 ms a frame | it fits, but does not keep up | `int8` or `int4`; the widget's meter shows the lost frames |
# | no microphone | the page is neither https nor localhost | [07_live](07_live.ipynb) |
#
# ## What we left out
#
# How the kernels work that multiply with 4-bit weights: on a CPU torch brings them, on a GPU Triton compiles ours
# ([`kernels`](../personaplex_lite/kernels/triton_products.py)).
# Better roundings (by calibration; other levels than evenly spaced ones). Splitting one model over several cards. And the licence:
# the 7B's weights are gated, you accept NVIDIA's terms on the hub and set `HF_TOKEN`.
#
# **Where next?** [`checkpoint.py`](../personaplex_lite/weights/checkpoint.py) loads tensor by tensor, [`quantize.py`](../personaplex_lite/model/quantize.py) is
# all of the small weights, [`plan.py`](../personaplex_lite/weights/plan.py) counts, [`convert.py`](../personaplex_lite/weights/convert.py) writes the small
# folder. Measured: [fullsize](../docs/fullsize.md), [quantize](../docs/quantize.md), [speed](../docs/speed.md). In `07_live` you talk to it.
