# %% [markdown]
# # The same answer, 80 ms at a time
#
# A codec that may see a whole recording has it easy. In a talk there is no whole recording: every 80 ms the next piece must be answered
# before the one after it exists. How can the pieces give exactly the codes that the whole would have given? You cut, it rattles; you
# find out what has to be remembered, and build it: a streaming convolution and a ring of keys.
#
# **Time** 30 minutes, 40 more for the exercises. **Hardware** one CPU core, no network. **Afterwards** you can make a convolution and an attention stream, say how
# long a ring must be and why, and treat a conversation's memory as what it is here: a value that you can save, copy and count.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# First without any memory: cut a question into frames of 80 ms, encode and decode each by itself, and glue.

# %%
import torch

import personaplex_lite as pp
from personaplex_lite import viz
agent = pp.load()                 # or: pp.load("nvidia/personaplex-7b-v1", device="cuda")
mimi, FRAME, RATE = agent.mimi, 1920, 24_000
pieces = pp.audio.frames(pp.audio.read("../data/questions/company.wav"))
codes = mimi.encode(torch.cat(pieces))                                      # int64 [1, 8, t]
alone = torch.cat([mimi.encode(piece) for piece in pieces], -1)
glued = torch.cat([mimi.decode(c) for c in alone.split(1, -1)], -1)[0, 0].cpu()
print(f"{len(pieces)} frames; codes that are as from the whole: {(alone == codes).float().mean():.0%}")
pp.audio.player(glued)

# %% [markdown]
# A rattle, 12.5 times a second. Now the same pieces, but two *states* are handed in with every call: one for the ears (the encoder), one
# for the mouth (the decoder).

# %%
ears, mouth = mimi.new_ears(), mimi.new_mouth()
heard = [mimi.encode(piece, ears) for piece in pieces]                      # int64 [1, 8, 1] each
said = [mimi.decode(c, mouth) for c in heard]                               # float32 [1, 1, 1920] each
streamed, whole = torch.cat(said, -1)[0, 0].cpu(), mimi.decode(codes)[0, 0].cpu()
print("every code as from the whole:", torch.equal(torch.cat(heard, -1), codes))
print("largest difference in the sound below 0.00001:", bool((streamed - whole).abs().max() < 1e-5))
pp.audio.player(streamed)

# %% [markdown]
# Look at half a second of what is wrong with each, on a scale where every mark is a hundred times less. What remains of the stream's
# difference is rounding: adding the same numbers in another order.

# %%
at = torch.arange(len(whole)) / RATE
ax = viz.new_axes(None, 9, 2.8)
for name, sound, colour in (("frames alone", glued, viz.USER), ("with a state", streamed, viz.AGENT)):
    wrong = (sound - whole).abs().clamp(min=1e-9).view(-1, 96).amax(1)      # the worst of every 4 ms
    ax.plot(at[::96], wrong, color=colour, label=name)
for border in range(len(pieces)):
    ax.axvline(border * 0.08, color=viz.INK, lw=0.5, alpha=0.5)
ax.set(xlim=(0.8, 1.3), yscale="log", ylim=(1e-9, 10), yticks=[1e-8, 1e-6, 1e-4, 1e-2, 1])
ax.set_xlabel("seconds · thin lines: where it was cut", color=viz.INK)
ax.set_ylabel("difference to the whole", color=viz.INK)
legend = ax.legend(frameon=False, labelcolor=viz.INK, loc="upper right", ncols=2)

# %% [markdown]
# That this is possible at all has one condition: nothing may look ahead. Wipe out everything after frame 15 and see which codes notice.

# %%
other = torch.cat(pieces)
other[15 * FRAME:] = 0
same = (mimi.encode(other) == codes)[0].all(0)                              # bool [t]
print("frames 0 to 14 unchanged:", bool(same[:15].all()), "· later ones:", int(same[15:].sum()))

# %% [markdown]
# A layer that never looks ahead is called *causal*. Everything in this model is: what it will hear cannot matter, only what it has heard. So
# the whole question is **what to keep of the past**.
#
# ## A convolution
#
# Each output of a convolution is a weighted sum of the last k inputs. Cut the inputs, and the first outputs of every piece miss some of
# theirs. Here is a curve, smoothed over 9 steps, whole and in pieces of 20.

# %%
x = torch.randn(80, generator=torch.Generator().manual_seed(3)).cumsum(0)
weight = torch.ones(9) / 9

def smooth(x):
    return torch.nn.functional.pad(x, (8, 0)).unfold(0, 9, 1) @ weight      # zeros stand for the past

cut = torch.cat([smooth(piece) for piece in x.split(20)])
ax = viz.new_axes(None, 9, 2.4)
ax.plot(smooth(x), color=viz.AGENT, lw=3, label="whole")
ax.plot(cut, color=viz.USER, label="in pieces of 20")
ax.set_xlabel("step", color=viz.INK), ax.legend(frameon=False, labelcolor=viz.INK)
print("wrong:", int(((cut - smooth(x)).abs() > 1e-5).sum()), "of", len(x), "steps")

# %% [markdown]
# **Exercise 1** ●●○, 10 minutes. Mend it. With a *stride* s the window moves by s steps for each output, and a kernel of k then needs the
# last k − s inputs of the past. Take them as an argument, and return them for next time.
#
# <details><summary>Hint 1</summary>Glue the past in front. `x.unfold(0, k, s)` is a table of all windows of k that are s apart: [outputs, k].</details>
# <details><summary>Hint 2</summary>What is kept is the end of past *and* piece together: a piece may be shorter than the memory. And beware of
# `x[-0:]`, which is everything.</details>

# %%
def stream_conv(piece, weight, past, stride=1):
    """piece [n], weight [k], past [k - stride] -> y [n / stride], past; stride divides n"""
    # solution
    x = torch.cat([past, piece])
    y = x.unfold(0, len(weight), stride) @ weight
    return y, x[len(piece):]
    # end

# %% [markdown]
# The check: the package's convolution with kernels and strides as Mimi has them, in pieces of many sizes.

# %%
pp.check.stream_convolution(stream_conv)

# %% [markdown]
# That is the whole of [`conv.py`](../personaplex_lite/model/conv.py)'s idea: the padding on the left *is* the state. On the way back to sound each step
# spreads over several samples instead, so what is kept is a tail that is not finished yet.
#
# ## Attention
#
# A transformer's step looks at *all* steps within its context: it compares its query with their keys, and mixes their values by how well they
# fit. Old keys never change, so nothing must be computed again: keep them. But a talk is long and memory is not. So they go round in a ring:
# step t is written to slot t mod slots, over the oldest. Six slots; blue is what was written just now.

# %%
slots, pos, table = 6, torch.full((6,), -1), []
for t in range(16):
    pos[t % slots] = t
    table.append(pos.clone())
table = torch.stack(table, 1)                                               # [slots, steps]
ax = viz.new_axes(None, 9, 2.6)
ax.imshow(viz.colours(table.numpy(), viz.AGENT, table.numpy() >= 0), aspect="auto")
for slot, t in (table >= 0).nonzero().tolist():
    colour = viz.AGENT if table[slot, t] == t else viz.INK                  # blue: written just now
    ax.text(t, slot, int(table[slot, t]), color=colour, ha="center", va="center")
ax.set_xlabel("now, in steps", color=viz.INK), ax.set_ylabel("slot", color=viz.INK)
print("at step 15 the slots hold", table[:, 15].tolist())

# %% [markdown]
# The slots are out of order, and attention does not mind: it is a sum. It only has to know *which* step a slot holds: that is `pos`, −1 while empty.
#
# **Exercise 2** ●●●, 15 minutes. One step of attention with a ring. Write the new key and value, find the slots that may be seen (not
# empty, and no older than the context: step t sees t, t − 1, … t − context + 1), and mix the values.
#
# <details><summary>Hint 1</summary>Scores: every key times the query, divided by the root of d. `masked_fill(~seen, float("-inf"))` and
# `softmax` give weights; what is hidden gets 0.</details>
# <details><summary>Hint 2</summary>A ring may have more slots than the context. Then age decides: compare `ring.pos` with t.</details>

# %%
from types import SimpleNamespace
def new_ring(slots, d):
    empty = torch.full((slots,), -1)
    return SimpleNamespace(k=torch.zeros(slots, d), v=torch.zeros(slots, d), pos=empty)

def ring_step(q, k, v, t, ring, context):
    """q, k, v [d] of step t; the ring changes in place -> [d]"""
    # solution
    slot = t % len(ring.pos)
    ring.k[slot], ring.v[slot], ring.pos[slot] = k, v, t
    seen = (ring.pos >= 0) & (ring.pos > t - context)
    scores = (ring.k @ q / len(q) ** 0.5).masked_fill(~seen, float("-inf"))
    return scores.softmax(0) @ ring.v
    # end

# %% [markdown]
# The check: step by step, against the package's attention over everything at once.

# %%
pp.check.ring_attention(ring_step)

# %% [markdown]
# ## Stream and whole, for longer than the memory
#
# A fair test must outlive the window, so that every slot has been written over. We glue questions together until they are twice as long as
# Mimi's context, and take different bites.

# %%
window = mimi.config.transformer.context / 25                               # seconds
names = ("open", "price", "name", "company", "close", "unknown")
many = [torch.cat(pp.audio.frames(pp.audio.read(f"../data/questions/{name}.wav"))) for name in names]
long = torch.cat(many)[:int(2 * window * 12.5) * FRAME]
whole_codes = mimi.encode(long)
whole = mimi.decode(whole_codes)
for bite in (1, 3, 10):
    ears, mouth = mimi.new_ears(frames=bite), mimi.new_mouth(frames=bite)
    heard = torch.cat([mimi.encode(piece, ears) for piece in long.split(bite * FRAME)], -1)
    said = torch.cat([mimi.decode(c, mouth) for c in whole_codes.split(bite, -1)], -1)
    same, near = torch.equal(heard, whole_codes), bool((said - whole).abs().max() < 1e-4)
    print(f"{bite:2} frames a call: codes equal {same}, sound equal to 4 digits {near}")

# %% [markdown]
# Now the same with a ring as the public code of Moshi and PersonaPlex has it. Where does the stream leave the whole?

# %%
@torch.no_grad()
def drift(ring):
    """-> [t]: how far each frame's latent is from the offline one, as a share of the largest value"""
    ears, sound = mimi.new_ears(ring=ring), long[None, None].to(agent.device)
    offline = mimi.latent(sound)                                            # [1, t, dim]
    live = torch.cat([mimi.latent(piece, ears) for piece in sound.split(FRAME, -1)], 1)
    return ((live - offline).abs().amax(-1)[0] / offline.abs().max()).cpu().clamp(min=1e-9)
exact, official = drift("exact"), drift("official")
full = int(window * 12.5)                                                   # frames until it is full
for name, far in (("exact", exact), ("official", official)):
    print(f"{name:8}: equal until the ring is full {bool((far[:full - 1] < 1e-4).all())},",
          f"equal after it {bool((far[full:] < 1e-4).all())}")

# %% [markdown]
# In a picture, on a scale where every mark is again a hundred times less:

# %%
ax = viz.new_axes(None, 9, 2.8)
for far, name, colour in ((official, "official ring", viz.USER), (exact, "exact ring", viz.AGENT)):
    ax.plot(torch.arange(1, len(far) + 1) * 0.08, far, color=colour, label=name)
ax.axvline(window, color=viz.INK, lw=1)
ax.set(yscale="log", ylim=(1e-9, 10), yticks=[1e-8, 1e-6, 1e-4, 1e-2, 1])
ax.set_xlabel("seconds heard · the line: from here on the ring is full", color=viz.INK)
ax.set_ylabel("difference to the whole", color=viz.INK)
legend = ax.legend(frameon=False, labelcolor=viz.INK)
ears = mimi.new_ears(ring="official")
changed = torch.cat([mimi.encode(piece, ears) for piece in long.split(FRAME)], -1) != whole_codes
print(f"codes that differ: {changed[..., :full - 1].float().mean():.0%} before the line, "
      f"{changed[..., full:].float().mean():.0%} after it")

# %% [markdown]
# Nobody sees this in a test that is shorter than the window: such things live long. What happens?
# A frame is **two** steps of 25 Hz. Both are written before either looks. If the ring has just `context` slots, the second step has
# written over a key that the first one still wanted. (The official ring also hides its oldest slot, so its steps see one and two keys too few.
# The package can do either: to compare with the official numbers digit by digit, you need their ring.)
#
# **Exercise 3** ●●○, 10 minutes. Steps come in chunks of `chunk`; all of a chunk are written, then all look, each at the last `context` steps up to
# its own. How many slots must the ring have at least?
#
# <details><summary>Hint</summary>Write it out for context 4 and chunks of 2. The chunk is steps 10 and 11. Which steps does each want to see?</details>

# %%
def slots_needed(context, chunk):
    """steps a query sees (its own included), steps written at once -> slots"""
    # solution
    return context + chunk - 1
    # end

# %% [markdown]
# The check builds rings of your length, and one shorter, and looks whether a key is missed.

# %%
pp.check.ring_length(slots_needed)

# %% [markdown]
# ## Memory as a value
#
# Most streaming code hides its buffers inside the modules. Here nothing is hidden: weights live in modules, memory lives in a `State`. This is
# all that the ears remember.

# %%
ears = mimi.new_ears()
for name in ("convs", "resample", "transformer", "t"):
    mine = {key: x for key, x in ears.tensors().items() if key.split(".")[0] == name}
    print(f"{name:12}{len(mine):3} tensors {sum(x.nbytes for x in mine.values()):10,} bytes")
print(f"{'all':12}{len(ears.tensors()):3} tensors {ears.nbytes:10,} bytes")

# %% [markdown]
# So a stream can be saved in the middle, and go on later, or twice. Here another stream takes over at frame 15 from what was saved of the first; a newborn one,
# that has heard nothing before, does not.

# %%
for piece in pieces[:15]:
    mimi.encode(piece, ears)
saved = ears.snapshot()                                                     # copies, by name
first = torch.cat([mimi.encode(piece, ears) for piece in pieces[15:]], -1)
heir = mimi.new_ears()
heir.restore(saved)
second = torch.cat([mimi.encode(piece, heir) for piece in pieces[15:]], -1)
newborn = mimi.encode(torch.cat(pieces[15:]))
for who, mine in (("the first", first), ("the heir", second), ("a newborn", newborn)):
    print(f"{who} goes on as the whole:", torch.equal(mine, codes[..., 15:]))

# %% [markdown]
# And two people can be heard at once, frame by frame in turns, with one copy of the weights.

# %%
two = [pp.audio.frames(pp.audio.read(f"../data/questions/{name}.wav")) for name in names[:2]]
states, heard = [mimi.new_ears(), mimi.new_ears()], [[], []]
for pair in zip(*two):
    for person, piece in enumerate(pair):
        heard[person].append(mimi.encode(piece, states[person]))
for person, sound in enumerate(two):
    mine = torch.cat(heard[person], -1)                                     # the longer one is cut
    alone = mimi.encode(torch.cat(sound))[..., :mine.shape[-1]]
    print("person", person, "as if alone:", torch.equal(mine, alone))

# %% [markdown]
# A whole conversation is such a state, too: ears, mouth, the grid of tokens, and the keys and values of the language model.

# %%
state = agent.chat(progress=False).state
parts = {name: getattr(state, name).nbytes / 1e6 for name in ("grid", "ears", "mouth", "temporal")}
tensors = (x for model in (agent.lm, mimi) for x in (*model.parameters(), *model.buffers()))
weights = sum(x.nbytes for x in tensors) / 1e6
ax = viz.new_axes(None, 9, 2)
bars = ax.barh([*parts, "all weights"], [*parts.values(), weights], color=[viz.AGENT] * 4 + [viz.INK])
ax.bar_label(bars, fmt=" %.2f", color=viz.INK, fontsize=8)
ax.set_xlabel("MB · blue: for each conversation, grey: once for all", color=viz.INK)
print({name: round(mb, 2) for name, mb in parts.items()}, "weights:", round(weights, 1), "MB")

# %% [markdown]
# **Exercise 4** ●○○, 5 minutes. Nearly all of it is the language model's ring. Compute its size from the shape of the model: a key and a value for
# every layer and every step of the context, `dim` numbers each.
#
# <details><summary>Hint</summary>How many numbers does one layer keep for one step?</details>

# %%
def ring_bytes(layers, context, dim, size):
    """size: bytes of one number (float32: 4, bfloat16: 2) -> bytes"""
    # solution
    return 2 * layers * context * dim * size
    # end

# %% [markdown]
# The check: against rings of the package; then the one you have just seen.

# %%
pp.check.keys_and_values(ring_bytes)
config, size = agent.lm.config.temporal, state.temporal.k.element_size()
print("by hand:", ring_bytes(config.layers, config.context, config.dim, size),
      "· in the state:", state.temporal.k.nbytes + state.temporal.v.nbytes)

# %% [markdown]
# ## What we left out
#
# The delay: 80 ms must have been spoken before they can be sent, and the model waits one frame more for its own acoustic codes
# (`03_temporal_and_depth`). How a key knows *where* it is: it is turned by an angle before it is stored (rotary positions), so a ring needs no sorting.
# Rows of a batch that start, pause and reset at different times. What happens to a role that falls out of the ring: `05_persona`.
#
# **Where next?** [`conv.py`](../personaplex_lite/model/conv.py) and [`transformer.py`](../personaplex_lite/model/transformer.py) are what you built,
# [`state.py`](../personaplex_lite/model/state.py) has the three rules of memory, and
# [`03_temporal_and_depth`](03_temporal_and_depth.ipynb) opens the language model.
