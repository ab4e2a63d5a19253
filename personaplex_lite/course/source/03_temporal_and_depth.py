# %% [markdown]
# # Who decides what in a frame?
#
# Every 80 ms the model writes seventeen integers: a piece of a word, eight codes for its own voice, and eight codes for *yours*. Who
# decides which of them, in what order, and how sure is it? Here you make one frame by hand, from embeddings to codes, and get
# exactly what the session got. Then you take the wheel: you put words into its mouth, turn its knobs, let it imagine you, and catch
# it by surprise.
#
# **Time** 35 minutes, 30 more for the exercises. **Hardware** two CPU cores, no network. **Afterwards** you can draw the path from a column of tokens to the next
# one, undo the delay between rows, make the model say a sentence of yours, and measure how well it predicts *you*.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# Somebody asks, the agent answers. Two options let us look inside: `trace` keeps how each column came about, and `predict_user` also
# runs the eight depth steps that guess the user.

# %%
import json
import matplotlib.pyplot as plt
import numpy as np
import torch
import personaplex_lite as pp

agent, asked = pp.load(), json.load(open("../data/questions/questions.json"))[0]
chat = agent.chat(pp.Persona(asked["voice"], asked["role"]), trace=True, predict_user=True, progress=False)
start = chat.save()
reply = chat.run("../data/questions/" + asked["file"], progress=False)
print("user: ", asked["text"], "\nagent:", reply.text)
reply.play(both=True)

# %% [markdown]
# ## Seventeen cells
#
# Take a moment in the middle of the answer, at which the agent writes a word. (Step i reads column i and writes into column i + 1.) What did it read, what did it write, and who filled
# each cell?

# %%
torch.set_grad_enabled(False)                                       # we only look
lm, config = agent.lm, agent.lm.config
quiet = (config.pad, config.epad)
said = [int(f.trace.sampled[0, 0]) for f in reply.frames]           # its choice for the text row
words = [i for i, token in enumerate(said) if token not in quiet]
moment = words[len(words) // 2]
trace = reply.frames[moment].trace
print(f"column {moment}      read  its choice  written")
table = torch.cat([trace.column, trace.sampled, trace.target]).T.tolist()
for row, (old, mine, told) in enumerate(table):
    side = "text" if row == 0 else f"agent {row}" if row < 9 else f"user {row - 8}"
    print(f"{row:2} {side:10}  {old:5}  {mine:6}      {mine if told < 0 else told:6}", "  by you" * (told >= 0))

# %% [markdown]
# Look at rows 9 to 16. The model made a choice there, too: its guess of *you*. But you were faster: what you really said is already in
# the cell, and the guess is thrown away, right or wrong. That is the whole difference between talking and listening in this model: **whose cells are
# filled beforehand.**
#
# ## Seventeen embeddings, one vector
#
# Now by hand. First, the column that was read becomes one vector. Each row has a table of its own; a table's rows are looked up and
# *added*. That is all: no attention between rows, no concatenation.

# %% [markdown]
# **Exercise 1** ●○○, 5 minutes. Sum the seventeen embeddings. The text row's table is `lm.text_embed`, `[vocabulary, d]`; the others are
# stacked in `lm.audio_embed`, `[16, vocabulary, d]`. A cell may hold −1: "nothing here", which adds nothing.
#
# <details><summary>Hint</summary>Row <code>r</code> of the grid, from 1 on, belongs to table <code>lm.audio_embed[r - 1]</code>. Skip
# the −1.</details>

# %%
def embed(lm, column):
    """column int64 [17] -> float [d]"""
    # solution
    tables = [lm.text_embed, *lm.audio_embed]
    found = [table[token] for table, token in zip(tables, column) if token >= 0]
    return torch.stack(found).sum(0)
    # end

# %% [markdown]
# The check: on a model with random weights, against the package's own sum, which does all rows in one call.

# %%
pp.check.sum_of_rows(embed)

# %% [markdown]
# ## The temporal transformer: the past becomes one vector
#
# The vector goes through the large transformer, which remembers all earlier ones. So we need the conversation as it was just before:
# we go back to the start, and let it hear the same sound again.

# %%
pieces = list(pp.audio.frames(reply.user))
chat.restore(start)
for i, piece in enumerate(pieces[:moment]):
    if i == words[0]:
        before = chat.save()                  # the moment before its first word, for later
    chat.step(piece)
t, memory = chat.state.t, chat.state.temporal
x = lm.embed(trace.column)                                          # [1, d]
hidden = lm.out_norm(lm.temporal(x[:, None], t - 1, memory))[:, 0]  # [1, d]: the past, as one vector
logits = lm.text_head(hidden).float()                               # [1, words it knows]
print("column", list(trace.column.shape), "-> hidden", list(hidden.shape), "-> text", list(logits.shape))
print("as in the session:", torch.allclose(hidden, trace.hidden, atol=1e-3))

# %% [markdown]
# A first decision can be made: a word, or none? These are its candidates, for this column and for its neighbours.

# %%
from personaplex_lite import viz

figure, axes = plt.subplots(1, 5, figsize=(10, 1.9), layout="constrained", sharex=True, facecolor="none")
for ax, i in zip(axes, range(moment - 2, moment + 3)):
    names, chances = zip(*reply.frames[i].trace.top(4))
    viz.new_axes(ax, 2, 2).barh(range(4, 0, -1), chances, color=viz.AGENT, alpha=1 if i == moment else 0.5)
    ax.set_yticks(range(4, 0, -1), names)
    ax.set_title(f"column {i}", fontsize=8, color=viz.INK)
    ax.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    ax.set_xlabel("probability", fontsize=8, color=viz.INK)

# %% [markdown]
# `·` is PAD, "nothing is said now"; `|` is EPAD, "a word begins next". So the model decides *when* to speak in the same breath as
# *what*: it is a token like any other.
#
# ## Dice
#
# From probabilities to a token. **Temperature** divides the logits first: below 1 the likely ones gain, at 0 only the likeliest is
# left. **Top-k** keeps the k likeliest. Then the dice: every candidate gets a random number from an exponential distribution, and the
# largest *p / noise* wins. That draws each token with exactly its probability.

# %% [markdown]
# **Exercise 2** ●●●, 8 minutes. Write the draw. At temperature 0 there are no dice.
#
# <details><summary>Hint 1</summary>Softmax of <code>logits / temperature</code>, then <code>.topk(top_k)</code>: it returns values and
# indices.</details>
# <details><summary>Hint 2</summary><code>noise</code> belongs to the vocabulary, not to the sorted candidates: pick it by their
# indices. And the winner's place among the candidates is not yet its token.</details>

# %%
def draw(logits, temperature, top_k, noise):
    """logits float [V], noise float [V] -> int, a token"""
    # solution
    if temperature == 0:
        return int(logits.argmax())
    p, tokens = torch.softmax(logits / temperature, -1).topk(top_k)
    return int(tokens[(p / noise[tokens]).argmax()])
    # end

# %% [markdown]
# The check: a few hundred draws with the package's dice.

# %%
pp.check.dice(draw)

# %% [markdown]
# ## The depth transformer: eight small steps
#
# The word is drawn. Now, how does it *sound*? A second, small transformer runs over the rows of this one frame. Step k reads the hidden
# vector and the token just drawn, and gives the next code. Each step has weights of its own.

# %%
from personaplex_lite.model.sampling import sample

q, seed = chat.sampling, chat.state.seed
word = sample(logits, q.text_temperature, q.text_top_k, seed, t, 0)
codes = word.new_zeros(1, 0)
for k in range(config.codebooks):
    told = torch.nn.functional.pad(codes, (0, 1))                   # the newest is not known yet
    guess = lm.depth(hidden, word, told)[:, k].float()              # [1, codes there are]
    codes = torch.cat([codes, sample(guess, q.audio_temperature, q.audio_top_k, seed, t, 1 + k)[:, None]], 1)
print("by hand:", repr(agent.text.piece(int(word))), codes[0].tolist())
print("session:", repr(agent.text.piece(int(trace.sampled[0, 0]))), trace.sampled[0, 1:9].tolist())

# %% [markdown]
# The same nine integers. You have just been the model for 80 ms. (The package does not begin anew for each code: it keeps the keys
# and values of the steps before, and those of the guesses about you it runs only if asked.)
#
# How open was each of these choices, over the whole talk? Bright is open; 0 nats is no choice at all.

# %%
open_to = torch.stack([f.trace.entropy() for f in reply.frames], 1).cpu()            # [17, columns]
ax = viz.new_axes(None, 10, 3)
picture = ax.imshow(open_to, aspect="auto", cmap="cividis", interpolation="nearest",
                    extent=(0, 0.08 * open_to.shape[1], 16.5, -0.5))
ax.set_yticks([0, 1, 8, 9, 16], ["text", "agent 1", "agent 8", "user 1", "user 8"])
ax.set_xlabel("seconds", color=viz.INK, fontsize=8)
bar = plt.colorbar(picture, ax=ax)
bar.set_label("entropy, nats", color=viz.INK, fontsize=8)
bar.ax.tick_params(colors=viz.INK, labelsize=8)
means = [round(float(open_to[rows].mean()), 1) for rows in (0, config.agent, config.user)]
print("text, agent, user:", means, "nats")

# %% [markdown]
# ## Knobs, heard
#
# From the moment before the first word, three futures with the same dice: no dice at all, the checkpoint's own setting, and a hot
# one. Listen to them one after the other.

# %%
from dataclasses import replace

cold = replace(agent.sampling, audio_temperature=0.0)
hot = replace(agent.sampling, audio_temperature=3.0, audio_top_k=250)
sound = []
for chat.sampling in (cold, agent.sampling, hot):
    chat.restore(before)
    made = [chat.step(piece) for piece in pieces[words[0]:words[-1] + 12]]
    sound += [f.pcm for f in made]
    print(f"audio at {chat.sampling.audio_temperature}:", agent.text.say(int(f.codes[0]) for f in made))
chat.sampling = agent.sampling
pp.audio.player(torch.cat(sound))

# %% [markdown]
# Two pairs of knobs, because there are two kinds of tokens: only the audio pair was turned here, and the text had no knob turned at
# all. Did its words survive? If not: its own broken sound stands in the column that it reads next. It hears itself.
#
# ## The delay: a frame is a slanted column
#
# One thing was hidden so far. Within a column, the agent's first code (*what* is said) belongs to this frame, and codes 2 to 8 (*how
# it sounds*) belong to the frame **before**. The numbers in the picture are frames; the blue cells are one and the same.

# %%
ax = viz.new_axes(None, 6, 3.4)
for row, late in enumerate(config.delays):
    for column in range(5):
        mine = column - late == 2
        colour, alpha, ink = (viz.AGENT, 1, "white") if mine else (viz.INK, 0.15, viz.INK)
        ax.add_patch(plt.Rectangle((column, row), 0.94, 0.9, color=colour, alpha=alpha, lw=0))
        if column >= late:
            ax.text(column + 0.47, row + 0.48, column - late, ha="center", va="center", fontsize=7, color=ink)
ax.set(xlim=(0, 5), ylim=(17, 0), xticks=[i + 0.5 for i in range(5)], xticklabels=range(5))
ax.set_yticks([0.5, 1.5, 5, 9.5, 13.5], ["text", "agent 1", "agent 2–8", "user 1", "user 2–8"])
label = ax.set_xlabel("column", color=viz.INK, fontsize=8)

# %% [markdown]
# What if one forgets this, and decodes the columns as they stand? Hear the answer, first as it stands, then undone.

# %%
traces = [f.trace for f in reply.frames[words[0]:words[-1] + 10]]
columns = torch.stack([torch.where(c.forced, c.target, c.sampled)[0] for c in traces], 1).cpu()
stands = columns[config.agent]                      # of [17, columns]: acoustic codes one frame late
undone = torch.from_numpy(reply.codes[config.agent, words[0] + 1:words[-1] + 11])
print("codes that are in the wrong frame:", f"{float((stands != undone).float().mean()):.0%}")
pp.audio.player(torch.cat([agent.mimi.decode(codes[None])[0, 0] for codes in (stands, undone)]))

# %% [markdown]
# **Exercise 3** ●●○, 6 minutes. Undo it: from columns to frames, for any delays. The last few frames are not complete: leave them out.
#
# <details><summary>Hint</summary>Frame f of a row with delay d stands in column f + d. How many frames are complete in all rows, if there
# are T columns?</details>

# %%
def undelay(columns, delays):
    """columns int64 [rows, T], a delay for each row -> frames int64 [rows, T - largest delay]"""
    # solution
    complete = columns.shape[1] - max(delays)
    return torch.stack([row[d:d + complete] for row, d in zip(columns, delays)])
    # end

# %% [markdown]
# The check: on a grid with other delays.

# %%
pp.check.slanted(undelay)

# %% [markdown]
# ## The inner monologue
#
# The text row stands *before* the sound. In this picture each word begins at the column of its text; below is how loud the agent
# was. How far ahead is the text?

# %%
loud = reply.pcm.reshape(-1, pp.audio.FRAME).square().mean(1).sqrt()
ax = viz.new_axes(None, 10, 2)
ax.bar(range(len(loud)), loud / loud.max(), width=0.9, color=viz.AGENT)
ax.set_xlim(words[0] - 3, words[-1] + 14)
viz.put_words(ax, [(w.text, w.start / 0.08) for w in reply.words], bottom=1.15, lane_height=0.3)
ax.set(ylim=(0, 2), yticks=[])
label = ax.set_xlabel("column · bars: how loud the agent is", color=viz.INK, fontsize=8)
begins = int(np.flatnonzero(viz.speaking(reply.pcm.numpy(), pp.audio.RATE))[0])
print(f"its first word was written at step {words[0]}; its first sound {begins - words[0] - 1} columns later")

# %% [markdown]
# The text row is not a transcript: it comes first. It is a plan, and the voice follows. So if we write into the row, it must say
# what *we* want. Here is the same answer, with its last word replaced.

# %%
forced = list(said)
forced[words[-1]] = agent.text.encode("seven")[0]
chat.restore(before)
made = [chat.step(pieces[i], text=forced[i]) for i in range(words[0], words[-1] + 12)]
print("it wanted to say:", reply.text)
print("what we wrote:   ", agent.text.say(int(f.codes[0]) for f in made))
pp.audio.player(torch.cat([f.pcm for f in made]))

# %% [markdown]
# **Exercise 4** ●●○, 6 minutes. Write the text row for a whole sentence: for each word one EPAD, then its pieces, then PAD until the
# word has taken `every` tokens. A word with many pieces gets no PAD and may take more.
#
# <details><summary>Hint</summary><code>text.encode(word)</code> gives the pieces as a list, <code>text.pad</code> and
# <code>text.epad</code> the two others. <code>[x] * -3</code> is an empty list.</details>

# %%
def script(text, sentence, every=5):
    """a tokenizer, words, tokens for each word -> list of tokens, one for each frame"""
    # solution
    row = []
    for word in sentence.split():
        spoken = [text.epad, *text.encode(word)]
        row += spoken + [text.pad] * (every - len(spoken))
    return row
    # end

# %% [markdown]
# The check: with a tokenizer that cuts words into pieces.

# %%
pp.check.written(script)

# %% [markdown]
# Now let it say your sentence, unasked, right at the beginning. Try words that it does not know, too, and other speeds.

# %%
row = script(agent.text, "sorry the weather costs seven dollars") or []     # nothing, without yours
chat.restore(start)
silence = torch.zeros(pp.audio.FRAME)
made = [chat.step(silence, text=token) for token in [config.pad] * 4 + row + [config.pad] * 8]
pp.audio.player(torch.cat([f.pcm for f in made]))

# %% [markdown]
# ## What it expects you to say
#
# Rows 9 to 16 are the user's. In a talk your codes fill them. But if nobody does? Then the model's own guess stays, and it goes on with
# that: it **imagines you**. You are on the left; nobody said any of this.

# %%
chat.restore(start)
dream = [chat.step() for _ in range(80)]
codes = torch.stack([f.codes for f in dream], 1)
you, it = agent.mimi.decode(codes[None, config.user].cpu())[0, 0], torch.cat([f.pcm for f in dream])
for name, pcm in (("you", you), ("it", it)):
    busy = int(viz.speaking(pcm.numpy(), pp.audio.RATE).sum())
    print(f"{name:3} spoke in {busy} of {len(dream)} frames")
print("its words:", agent.text.say(codes[0].tolist()) or "(none)")
pp.audio.player(torch.stack([you, it], 1))

# %% [markdown]
# (If you hear nothing, it imagined somebody shy: put another number into `chat.state.seed.fill_(1)` before the dream.) The guess is more
# than a toy: it was part of what the model was trained on, and it measures how well the model knows what comes.
#
# ## Surprise
#
# How unlikely did it find what you really said? Take the probability that it gave to your actual code: **−log p** is the surprise, in
# nats (the unit of natural logarithms; a nat is 1.44 bits). 0 is "I knew it".

# %% [markdown]
# **Exercise 5** ●●○, 5 minutes. Compute the mean surprise over the user's eight codes of one column.
#
# <details><summary>Hint 1</summary><code>trace.audio_logits</code> is <code>[1, 16, codes]</code>, and step k speaks about row 1 + k.
# What really was there is <code>trace.target</code>, <code>[1, 17]</code>.</details>
# <details><summary>Hint 2</summary><code>torch.log_softmax(…, -1)</code>, then <code>.gather(1, …)</code> with the codes as a column
# <code>[8, 1]</code>; or <code>torch.nn.functional.cross_entropy</code>, which does both.</details>

# %%
def surprise(trace):
    """Trace of one conversation -> float, nats"""
    # solution
    guess, truth = trace.audio_logits[0, 8:], trace.target[0, 9:]
    return float(torch.nn.functional.cross_entropy(guess, truth))
    # end

# %% [markdown]
# The check: on made-up traces.

# %%
pp.check.surprised(surprise)

# %% [markdown]
# Now be rude. You ask, the agent begins to answer, and half a second later you cut in with another question.

# %%
first, second = (pp.audio.read(f"../data/questions/{name}.wav") for name in ("open", "close"))
second = second[int(np.flatnonzero(viz.speaking(second.numpy(), pp.audio.RATE))[0]) * pp.audio.FRAME:]
cut = max(len(first), (begins + 6) * pp.audio.FRAME)      # half a second after its first sound
talk = torch.cat([first, torch.zeros(cut - len(first)), second, torch.zeros(2 * pp.audio.RATE)])
chat.restore(start)
frames = [chat.step(piece) for piece in pp.audio.frames(talk)]
rude = pp.Reply(frames, talk, agent.text, config)
print(rude.text)
rude.play(both=True)

# %% [markdown]
# Its surprise about you, column by column, over both voices. The dashed line is what pure guessing would cost.

# %%
cost = torch.nn.functional.cross_entropy
nats = np.array([float(cost(f.trace.audio_logits[0, 8:], f.trace.target[0, 9:])) for f in rude.frames])
figure, (above, below) = plt.subplots(2, figsize=(10, 4), sharex=True, layout="constrained")
figure.patch.set_alpha(0)
viz.plot_talk(rude.pcm, rude.user[:len(rude.pcm)], rude.words, ax=above).set_xlabel("")
viz.new_axes(below, 10, 2).plot(np.arange(len(nats)) * 0.08, nats, color=viz.USER)
below.axhline(np.log(config.audio_vocab), color=viz.INK, ls="--", lw=1)
below.set_ylabel("surprise, nats a code", color=viz.INK, fontsize=8)
label = below.set_xlabel("seconds", color=viz.INK, fontsize=8)

# %% [markdown]
# In numbers: the first second of each of your two questions.

# %%
heard = viz.speaking(talk.numpy(), pp.audio.RATE)
begun = [int(np.flatnonzero(heard[i:])[0]) + i for i in (0, cut // pp.audio.FRAME)]
for name, at in zip(("after silence:", "cutting in:"), begun):
    print(f"{name:17} {nats[at:at + 12].mean():.1f} nats a code")
print(f"guessing blindly: {np.log(config.audio_vocab):.1f}")

# %% [markdown]
# Read the picture from left to right. Long silence is easy to predict. A beginning is not: nobody can know *when* you will open your
# mouth. Then rhythm, voice and words help. Does it cost more when you cut in? If it goes above the dashed line, the model was *confidently
# wrong*, worse than blind: it was sure that you would be silent while it talks.
#
# And one trap. Right after you stop, you are silent, and yet the surprise may stay high. The codec's ears look back over seconds, so the
# codes of silence *after speech* are not the codes of silence.

# %%
window = agent.mimi.config.transformer.context / 25
stop = int(np.flatnonzero(viz.speaking(reply.user.numpy(), pp.audio.RATE))[-1]) + 2
is_silence = reply.codes[config.user] == np.array(config.silence)[:, None]          # [8, frames]
print(f"the ears look back over {window:.0f} seconds")
for name, part in (("just after you stop", slice(stop, stop + 12)), ("at the end", slice(-12, None))):
    print(f"cells of yours that hold the code of silence, {name}: {is_silence[:, part].mean():.0%}")

# %% [markdown]
# ## What we left out
#
# Training: the same guess of your rows is a loss there, and the weights of the kinds of tokens decide what the model learns first
# (`09`). The prompt: voice and role enter as cells that are given, just as your words do (`05`). Moshi's own weights have only eight
# depth steps: such a model cannot guess you at all.
#
# **Where next?** [`lm.py`](../personaplex_lite/model/lm.py) and [`depth.py`](../personaplex_lite/model/depth.py) are the two transformers,
# [`grid.py`](../personaplex_lite/model/grid.py) the slanted columns, [`sampling.py`](../personaplex_lite/model/sampling.py) dice that are the same on every
# machine, and `take_step` in [`step.py`](../personaplex_lite/talk/step.py) is what you did by hand. Then: *when* does it speak?
# [04_full_duplex](04_full_duplex.ipynb).
