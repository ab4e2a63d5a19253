# %% [markdown]
# # Sound as eight integers
#
# How does sound become 8 integers, 12.5 times a second, and still sound like somebody? You throw numbers away until it hurts, then you
# build the part that makes it work, a residual quantiser, and then you look for what it cannot do.
#
# **Time** 30 minutes, 40 more for the exercises. **Hardware** one CPU core, no network. **Afterwards** you can say what each of the 8 integers is for, compute
# the bitrate of any such codec, write its quantiser in ten lines, and predict which sounds will break it.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# Somebody asks a question. To the computer it is a long list of numbers, 24 000 a second.

# %%
import matplotlib.pyplot as plt
import torch
from IPython.display import display

import personaplex_lite as pp
from personaplex_lite import viz

agent = pp.load()                 # or: pp.load("nvidia/personaplex-7b-v1", device="cuda")
mimi, FRAME, RATE = agent.mimi, pp.audio.FRAME, pp.audio.RATE
wav = torch.cat(pp.audio.frames(pp.audio.read("../data/questions/price.wav")))
print(len(wav), "numbers of 16 bits =", len(wav) // FRAME, "frames of", FRAME)
pp.audio.player(wav)

# %% [markdown]
# A language model cannot say 24 000 things a second; 12.5 it can. So cut the sound into frames of 80 ms, and say 8 integers for each.
# Which ones? The first idea that comes to mind: **the 8 loudest frequencies**. We even cheat, and keep how loud each is, and its phase.

# %%
def eight_loudest(wav):
    """[n] -> [n]: of each frame the 8 strongest frequencies, nothing else"""
    spectrum = torch.fft.rfft(wav.view(-1, FRAME))                          # [t, 961]
    loudest = spectrum.abs().topk(8).indices                                # these are the 8 integers
    kept = torch.zeros_like(spectrum).scatter(1, loudest, spectrum.gather(1, loudest))
    return torch.fft.irfft(kept).flatten()

naive = eight_loudest(wav)
print("kept: 8 of", FRAME // 2 + 1, "frequencies a frame")
pp.audio.player(naive)

# %% [markdown]
# It bubbles and ticks, and the words are hard to make out. Now 8 integers a frame from a *learnt* codec, Mimi, and back to sound.

# %%
def encode(wav):
    return mimi.encode(wav).cpu()                                           # [n] -> int64 [1, 8, t]

def decode(codes):
    return mimi.decode(codes.to(agent.device))[0, 0].cpu()                  # -> [1920 · t]

codes = encode(wav)
print("codes", list(codes.shape), "each from 0 to", mimi.config.bins - 1)
print("frame 10:", codes[0, :, 10].tolist())
pp.audio.player(decode(codes))

# %% [markdown]
# This is everything the language model ever hears of you: the picture below. A column is 80 ms, a row is a codebook, a shade is an
# integer.

# %%
style = {"figsize": (9, 3.6), "layout": "constrained", "facecolor": "none", "sharex": True}
figure, (above, below) = plt.subplots(2, 1, **style)
viz.new_axes(above, 9, 1).plot(torch.arange(len(wav)) / RATE, wav, color=viz.USER, lw=0.5)
above.set(yticks=[])
shades = viz.colours(codes[0].numpy(), viz.USER, codes[0].numpy() < 0)
viz.new_axes(below, 9, 3).imshow(shades, aspect="auto", extent=(0, len(wav) / RATE, 8.5, 0.5))
below.set(yticks=range(1, 9))
for ax, name in ((above, "sound"), (below, "codebook")):
    ax.set_ylabel(name, color=viz.INK, fontsize=8)
text = below.set_xlabel("seconds", color=viz.INK, fontsize=8)
print(codes[0].numel(), "integers instead of", len(wav))

# %% [markdown]
# **Exercise 1** ●○○, 5 minutes. How many bits a second is that? An integer that has `bins` possible values costs log2(bins) bits.
#
# <details><summary>Hint</summary>How many integers come in a second? `math.log2` takes a whole number.</details>

# %%
import math

def bitrate(codebooks, bins, frame_rate):
    """codebooks a frame, values an integer can have, frames a second -> bits a second"""
    # solution
    return codebooks * math.log2(bins) * frame_rate
    # end

# %% [markdown]
# The check: this codec, the 7B's, and a few that nobody has built.

# %%
pp.check.codec_bitrate(bitrate)
print("bits a second before:", 16 * RATE, "· after:", bitrate(8, mimi.config.bins, 12.5))

# %% [markdown]
# ## One codebook is not enough
#
# Inside, convolutions and a small transformer turn each frame into a list of real numbers, the *latent*. A **codebook** is a numbered list
# of such lists, its *entries*; the nearest entry's number stands for the latent. How near can one codebook get?

# %%
with torch.no_grad():
    latent = mimi.latent(wav[None, None].to(agent.device))[0]               # [t, dim]
    target = mimi.rvq.acoustic.input_proj(latent)                           # [t, d]: to be named
books = [book.entries for book in mimi.rvq.acoustic.codebooks[:7]]          # [bins, d] each

def nearest(x, entries):
    """x [t, d], entries [bins, d] -> int64 [t]"""
    return torch.cdist(x, entries).argmin(-1)

rest = target - books[0][nearest(target, books[0])]
left = float(rest.square().sum() / target.square().sum())
print(f"{list(latent.shape)} -> {list(target.shape)}; one codebook misses {left:.0%} of it")

# %% [markdown]
# For 8 codebooks' worth of places, *one* codebook would need bins⁸ entries. The trick: let a second codebook describe **what the first
# left over**, a third what the two left over. Here are latents of
# just two numbers, so points in a plane, and three codebooks of 4 entries: big dots, then middle ones around each, then small
# ones. The orange star is a latent, and the blue line goes its three codes towards it.

# %%
turn = torch.arange(4) * torch.pi / 2 + torch.tensor([[0.8], [0], [0.4]])   # [3 codebooks, 4 entries]
stars = torch.stack([turn.cos(), turn.sin()], -1) / torch.tensor([1, 2, 4])[:, None, None]
point, places, path = torch.tensor([-0.5, 0.55]), torch.zeros(1, 2), [torch.zeros(2)]
ax = viz.new_axes(None, 4.5, 4.5)
for entries, size, grey in zip(stars, (60, 25, 8), (0.9, 0.6, 0.6)):
    places = (places[:, None] + entries).flatten(0, 1)
    ax.scatter(*places.T, s=size, color=viz.INK, alpha=grey, lw=0)
    path.append(path[-1] + entries[nearest((point - path[-1])[None], entries)[0]])
ax.plot(*torch.stack(path).T, color=viz.AGENT, marker="o", ms=4)
ax.plot(*point, "*", color=viz.USER, ms=14)
ax.set(aspect="equal"), ax.set_xlabel("first number", color=viz.INK), ax.set_ylabel("second", color=viz.INK)
print("entries stored:", 3 * 4, "· places that three codes can name:", len(places))

# %% [markdown]
# **Exercise 2** ●●○, 10 minutes. That is *residual vector quantisation*, and it is a short loop. Write it.
#
# <details><summary>Hint 1</summary>Keep a variable `rest` that starts as x. Each codebook names the entry nearest to `rest`.</details>
# <details><summary>Hint 2</summary>`entries[code]` with code [t] gives [t, d]. `torch.stack` makes one tensor of a list.</details>

# %%
def describe(x, books):
    """x [t, d], books: a list of entries [bins, d] -> codes int64 [len(books), t]"""
    # solution
    codes, rest = [], x
    for entries in books:
        codes.append(nearest(rest, entries))
        rest = rest - entries[codes[-1]]
    return torch.stack(codes)
    # end

# %% [markdown]
# The check: against the package, with small codebooks made of random numbers.

# %%
pp.check.residual_codes(describe)

# %% [markdown]
# Your loop is nearly the whole quantiser. One thing is missing: Mimi has **two** of them side by side, on the *same* latent. The first has
# one codebook, called *semantic*; the second has seven, called *acoustic*. Here are both with your function, beside what the package says.

# %%
def by_hand(latent):
    """[t, dim] -> [8, t]"""
    found = []
    for part, use in ((mimi.rvq.semantic, 1), (mimi.rvq.acoustic, 7)):
        entries = [book.entries for book in part.codebooks[:use]]
        found.append(describe(part.input_proj(latent), entries))
    return None if found[0] is None else torch.cat(found).cpu()

with torch.no_grad():
    mine = by_hand(latent)
print("exercise 2 is open" if mine is None else f"all codes equal: {torch.equal(mine, codes[0])}")

# %% [markdown]
# ## Drop codebooks and listen
#
# The first code is the semantic one. Of the seven acoustic ones each only mends what those before it left, so you may stop early. One,
# two, four, eight codes in all:

# %%
for keep in (1, 2, 4, 8):
    print(f"{keep} of 8, {keep * math.log2(mimi.config.bins) * 12.5:.0f} bits a second")
    display(pp.audio.player(decode(codes[:, :keep])))

# %% [markdown]
# How wrong is a sound? A simple ruler: the loudness in dB of 24 bands of frequency, 50 times a second, and how far two sounds are
# apart in them on average. (Ears are finer judges. Trust yours when the two disagree.)

# %%
def bands(wav):
    window = torch.hann_window(1024)
    power = torch.stft(wav, 1024, 480, window=window, return_complex=True).abs() ** 2       # [513, s]
    edges = (513 ** torch.linspace(0.35, 1, 25)).long()
    return 10 * torch.log10(torch.stack([power[a:b].mean(0) for a, b in zip(edges, edges[1:])]) + 0.01)

def apart(one, other):
    """[n], [n] -> dB"""
    return float((bands(one) - bands(other)).abs().mean())

curve = [apart(wav, decode(codes[:, :keep])) for keep in range(1, 9)]
print("1 to 8 codebooks:", [round(db, 1) for db in curve], "· 8 loudest:", round(apart(wav, naive), 1))

# %% [markdown]
# The naive codec's place in the same picture, generously: only the 8 numbers are paid for, not what we kept beside them.

# %%
ax = viz.new_axes(None, 7, 2.8)
paid = [keep * math.log2(mimi.config.bins) * 12.5 for keep in range(1, 9)]
ax.plot(paid, curve, color=viz.AGENT, marker="o", label="Mimi, 1 to 8 codebooks")
eight = 8 * math.log2(FRAME // 2 + 1) * 12.5
ax.plot(eight, apart(wav, naive), "s", color=viz.USER, label="8 loudest frequencies")
ax.set(ylim=0)
ax.set_xlabel("bits a second", color=viz.INK)
ax.set_ylabel("dB from the original", color=viz.INK)
legend = ax.legend(frameon=False, labelcolor=viz.INK)
print(f"the first acoustic codebook brings {curve[0] - curve[1]:.2f} dB, the last {curve[6] - curve[7]:.2f}")

# %% [markdown]
# ## Semantic and acoustic
#
# They are called so because of how they were trained: the first codebook was made to follow *what* is said (the real Mimi's imitates WavLM,
# a model that has learnt to listen; `lite`'s predicts phonemes), the others only had to make the sound come out right. So: two speakers, two sentences.
# The second one is played slowly, like a tape, to make a deep voice of it.

# %%
high = pp.audio.read("../data/questions/company.wav")
tape = pp.audio.read("../data/questions/name.wav").numpy()
low = torch.from_numpy(pp.audio.resample(tape, RATE, int(1.25 * RATE)))
size = min(len(high), len(low)) // FRAME * FRAME
A, B = encode(high[:size]), encode(low[:size])
for name, x in (("A", A), ("B", B)):
    print(name, "has", x.shape[2], "frames")
    display(pp.audio.player(decode(x)))

# %% [markdown]
# Before you listen: take the first row of one and the other seven of the other. Whose *words* will you hear, whose *voice*?

# %%
mixed = {"A's semantic, B's acoustic": torch.cat([A[:, :1], B[:, 1:]], 1),
         "B's semantic, A's acoustic": torch.cat([B[:, :1], A[:, 1:]], 1)}
for name, x in mixed.items():
    sound = decode(x)
    print(f"{name}: {apart(sound, decode(A)):.1f} dB from A, {apart(sound, decode(B)):.1f} from B")
    display(pp.audio.player(sound))

# %% [markdown]
# Did you expect the words to follow the first row? Nobody told the other seven to leave the words out: they describe the same latent, and the
# ear may get nearly everything from them. "Semantic" is no promise to the listener, it is a help for the *language model*: one row of the grid
# in which it can learn what is being said before it worries how.
#
# What makes a row easy to learn is that it does not change when the words do not. Here the same sound is quieter, then with faint noise: how many
# frames keep their code? Compare the first row with the second (the other acoustic ones inherit the changes of those above them).

# %%
hiss = torch.randn(len(wav), generator=torch.Generator().manual_seed(0))
ax = viz.new_axes(None, 7, 2.6)
cases = ("half as loud", wav / 2, viz.AGENT, 0.8), ("faint noise", wav + 0.003 * hiss, viz.USER, 1.2)
for name, changed, colour, left in cases:
    kept = (encode(changed) == codes)[0].float().mean(1)
    ax.bar(torch.arange(8) + left, kept, 0.36, color=colour, label=name)
    print(f"{name:13}", [round(float(share), 2) for share in kept])
ax.set(xticks=range(1, 9), ylim=(0, 1))
ax.set_xlabel("codebook · 1 is semantic, 2 the first acoustic one", color=viz.INK)
ax.set_ylabel("frames that keep their code", color=viz.INK)
legend = ax.legend(frameon=False, labelcolor=viz.INK)

# %% [markdown]
# ## Are all entries used?
#
# A codebook that says the same thing all day is wasted. Here are twelve people talking, and how often each entry was chosen, the most
# popular first.

# %%
from pathlib import Path
files = sorted(Path("../data/duplex_mini/v1_0").glob("*pause_handling/*/input.wav"))
people = [pp.audio.read(path) for path in files]
talk = torch.cat([encode(x)[0, :, torch.from_numpy(viz.speaking(x.numpy(), RATE))] for x in people], 1)
ax = viz.new_axes(None, 7, 2.6)
for row, colour in ((0, viz.AGENT), (1, viz.USER), (7, viz.INK)):
    count = torch.bincount(talk[row], minlength=mimi.config.bins)
    ax.plot(count.sort(descending=True).values / talk.shape[1], color=colour, label=f"row {row + 1}")
ax.set_xlabel("entries, the most popular first", color=viz.INK)
ax.set_ylabel("share of the frames", color=viz.INK)
legend = ax.legend(frameon=False, labelcolor=viz.INK)
print(talk.shape[1], "frames of speech; entries used:", [len(row.unique()) for row in talk])

# %% [markdown]
# **Exercise 3** ●●○, 10 minutes. One number for such a curve is the *entropy*: the bits a perfect packer would need for a code. With p the share
# of each entry, it is the sum of −p·log2(p).
#
# <details><summary>Hint</summary>`torch.bincount(codes)` counts. What is 0·log(0)? Leave out the entries nobody used.</details>

# %%
def entropy(codes):
    """int64 [n] -> bits"""
    # solution
    p = torch.bincount(codes) / len(codes)
    p = p[p > 0]
    return float(-(p * p.log2()).sum())
    # end

# %% [markdown]
# The check: dice whose entropy is known. Then your function on the eight codebooks.

# %%
pp.check.code_entropy(entropy)
found = [entropy(row) for row in talk]
print("of", math.log2(mimi.config.bins), "bits:", [bits and round(float(bits), 1) for bits in found])

# %% [markdown]
# What is missing to the full number is what a perfect packer could save, if it knew nothing of the frames before. (With so little speech the
# numbers come out somewhat low: rare entries had no chance.)
#
# ## Where it breaks
#
# A codec learns what its sounds have in common. Give it others: music made by a formula, two people at once, noise. You hear each before, then
# after. Does the ruler agree with your ears? It counts energy, and knows nothing of words.

# %%
t = torch.arange(3 * RATE) / RATE
hz = 220 * 2 ** (torch.tensor([0, 4, 7, 12, 7, 4]) / 12)[(2 * t).long()]    # two notes a second
tone = sum(torch.sin(2 * torch.pi * k * hz * t) / k for k in (1, 2, 3, 4)) / 5
strange = {"one person": high[:size], "music": (tone * torch.exp(-4 * (t % 0.5)))[:size],
           "two people": (high[:size] + low[:size]) / 2, "noise": 0.1 * hiss[:size]}
for name, x in strange.items():
    after = decode(encode(x))
    print(f"{name}: {apart(x, after):.1f} dB apart")
    display(pp.audio.player(torch.cat([x, torch.zeros(RATE // 2), after])))

# %% [markdown]
# `lite`'s codec has heard hours of synthetic speech, one voice at a time, and little else: what is not in its experience has no name in its
# codebooks. (If you have the real one's weights, change the first cell and hear what more experience does.) When a talk goes wrong in a noisy
# café, begin to look here: what the codec loses, the language model never hears.
#
# ## The same decoder, a better encoder
#
# **Exercise 4** ●●●, 15 minutes. Your loop is greedy: the first codebook takes the nearest entry, even if another one would have left something
# that the second can describe better. So keep the best `width` chains instead of one. The decoder need not know.
#
# <details><summary>Hint 1</summary>`rests[:, None] - entries` is [w, bins, d]: what each chain would leave with each entry. Its squared length,
# flattened, is a list of w·bins candidates.</details>
# <details><summary>Hint 2</summary>`topk(n, largest=False).indices` finds the n smallest, the best first; there may be fewer than `width`
# candidates.
# A flat index is chain · bins + entry: `//` and `%` take it apart.</details>

# %%
def best_chain(x, books, width):
    """x [d], books: entries [bins, d] each -> codes int64 [len(books)]: the best of `width` chains"""
    chains, rests = torch.zeros(1, 0, dtype=torch.int64, device=x.device), x[None]  # [w, ·], [w, d]
    for entries in books:
        # solution
        left = rests[:, None] - entries
        errors = left.square().sum(-1).flatten()
        best = errors.topk(min(width, len(errors)), largest=False).indices
        chain, entry = best // len(entries), best % len(entries)
        chains, rests = torch.cat([chains[chain], entry[:, None]], 1), left[chain, entry]
        # end
    return chains[0]

# %% [markdown]
# The check: with width 1 it must be the greedy loop, with a huge width the best chain there is. Then, for our question: the same number of
# bits, the same decoder, and how much is left over.

# %%
pp.check.better_codes(best_chain)
for width in (1, 8):
    found = torch.stack([best_chain(x, books, width) for x in target])      # [t, 7]
    if not found.numel():
        break                                                               # still open
    near = sum(entries[c] for entries, c in zip(books, found.T))
    better = torch.cat([codes[:, :1], found.T[None].cpu()], 1)
    left = float((target - near).square().sum() / target.square().sum())
    print(f"width {width}: {left:.1%} of the latent left, {apart(wav, decode(better)):.1f} dB off")

# %% [markdown]
# Are the decibels as impressed as the latent? Being near in the latent and sounding right are two things, and the decoder was trained on greedy codes.
#
# ## What we left out
#
# How a codec is *trained*: rounding to the nearest entry has no gradient, codebooks die, and the real Mimi has an adversary that listens
# (`09_train_your_own` trains a small one). The convolutions around the quantiser. And how all of this can run while you are
# still speaking: that is the next notebook.
#
# **Where next?** [`rvq.py`](../personaplex_lite/model/rvq.py) is your loop with the two quantisers, [`mimi.py`](../personaplex_lite/model/mimi.py) the whole
# codec, and [`02_streaming`](02_streaming.ipynb) cuts it into pieces of 80 ms.
