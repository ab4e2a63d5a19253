# %% [markdown]
# # Talk to it
#
# How can a model in a notebook answer while you are still speaking, when every sound has to travel from your microphone to the
# kernel and back? You find out what the delay is made of, then you talk, then you look back at what was recorded.
#
# **Time** 20 minutes, 25 more for the exercises. **Hardware** two CPU cores; a microphone if you have one (with headphones it is best), otherwise recordings
# take its place. **Afterwards** you can read the widget's meter, say where each of its milliseconds comes from, and rewind a
# conversation to live it again as somebody else.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# ## The budget
#
# The model hears and speaks in frames of 80 ms. This cell lets it hear a question, and notes what each stage of a frame takes on
# this machine.

# %%
import numpy as np
import personaplex_lite as pp
from personaplex_lite import viz

agent = pp.load()
role = ("you are kevin and you work at diamond car wash we open at ten and close at two "
        "vacuum costs eight dollars")
chat = agent.chat(pp.Persona("NATF0", role), seed=0, progress=False)
question = pp.audio.read("../data/questions/open.wav")
frames = [chat.step(piece) for piece in pp.audio.frames(question)]
work = {stage: float(np.median([f.ms[stage] for f in frames])) for stage in frames[-1].ms}
print(len(frames), "frames of", pp.audio.FRAME, "samples")

# %% [markdown]
# Laid end to end: you must have *spoken* 80 ms before they can be sent; they travel; the model works; they travel back; and a little
# sound is kept in hand, because messages do not come as evenly as sound is played. The two ways and the stock are typical figures.

# %%
print("the model's stages:", *work)
model = {stage: ms for stage, ms in work.items() if ms > 1}
parts = {"you speak": 80, "way there": 8, **model, "way back": 8, "in hand": 60}
ax, at = viz.new_axes(None, 9, 1.8), 0
for i, (name, ms) in enumerate(parts.items()):
    ax.barh(0, ms, left=at, color=viz.AGENT if name in work else viz.INK, alpha=1 - 0.25 * (i % 2))
    if ms > 4:
        ax.text(at + ms / 2, 0.5 if i % 2 else -0.5, name, ha="center", va="center", fontsize=8, color=viz.INK)
    at += ms
ax.set(yticks=[], ylim=(-0.7, 0.7))
text = ax.set_xlabel("ms from your mouth to your ear · blue: the model's work", color=viz.INK, fontsize=8)

# %% [markdown]
# That is the *machine's* delay. The model's own comes on top: it needs one more frame before its codes are complete (the delayed rows
# of the grid), and as long as it likes to make up its mind.
#
# Everything in the bar may be long, and the talk is only late. One part is different: the blue one comes again for every frame.
#
# ## When the model is too slow
#
# A frame arrives every 80 ms. If it takes 100 ms of work, frames must wait. How many may? This is the whole simulation: `room` is
# how many wait at most; beyond that the oldest is dropped.

# %%
def simulate(work, room, frames=400):
    """ms of work for a frame, frames that may wait -> delay of each answered frame in ms, share lost"""
    waiting, free, delay, lost = [], 0, [], 0
    for now in range(0, 80 * frames, 80):
        waiting.append(now)
        while waiting and free <= now:                  # the model takes the one that has waited longest
            free = max(free, waiting[0]) + work
            delay.append(free - waiting.pop(0))
        lost += len(waiting[:-room])
        del waiting[:-room]                             # no room: the oldest is lost
    return delay, lost / frames
print(f"100 ms of work, room for 3: {simulate(100, 3)[1]:.0%} lost")

# %% [markdown]
# Give it room for one frame, for three, and for as many as come: who loses what?

# %%
ax = viz.new_axes(None, 9, 2.6)
for room, colour in ((1, viz.AGENT), (3, viz.USER), (10_000, viz.INK)):
    delay, lost = simulate(work=100, room=room)
    ax.plot(np.arange(len(delay)) * 0.1, delay, color=colour, label=f"room for {room:,}")
    late = delay[-1] / 80
    print(f"room for {room:6,}: {lost:4.0%} lost, the last answer comes {late:.1f} frames after its question")
ax.set_yscale("log")
ax.set_ylabel("ms until the answer", color=viz.INK, fontsize=8)
ax.set_xlabel("seconds of talk", color=viz.INK, fontsize=8)
legend = ax.legend(frameon=False, labelcolor=viz.INK)

# %% [markdown]
# An endless queue loses nothing and is useless: after half a minute you are answered to what you said long ago. A bounded one loses
# the same share whatever its size, so a small one is best. The widget has room for 3, and counts what it loses.

# %% [markdown]
# **Exercise 1** ●○○, 5 minutes. Which share of the frames is lost in the long run, if a frame takes `work` ms?
#
# <details><summary>Hint</summary>In a second 12.5 frames come. How many can be answered?</details>

# %%
def lost(work):
    """ms -> share of frames lost, 0 to 1"""
    # solution
    return max(0, 1 - 80 / work)
    # end

# %% [markdown]
# The check: your formula against the simulation.

# %%
pp.check.lost_share(lost)

# %% [markdown]
# ## The talk
#
# Press **Start**, allow the microphone, and ask when they open, when they close, or what vacuum costs. Interrupt it. Watch the meter
# under the picture: *work for a frame* is the blue part of your budget, *mouth to ear* is all of it.
#
# With a GPU and the 7B (`06_full_size` says how to get it) it is the same cell, after
# `agent = pp.load("nvidia/personaplex-7b-v1", device="cuda", weights="int8")`; not measured, nobody here had a card.
#
# The cell returns at once, and other cells run while you talk. No microphone? Open *A recording instead of a microphone*, or go on:
# the next cell works everywhere.

# %%
talk = pp.Talk(agent.chat(pp.Persona("NATF0", role), seed=0, progress=False))
talk

# %% [markdown]
# What the buttons do can be done from a cell, too. Here the conversation hears a recorded question, in the same way as it hears you,
# only faster than you can speak.

# %%
reply = talk.hear(question)
print(reply.text)
talk.reply.play(both=True)

# %% [markdown]
# ## Looking back
#
# `talk.reply` is everything that was heard and said, yours and the recording's, in one picture: both voices, who speaks when, and
# the tokens.

# %%
picture = talk.reply.plot()
print("rows and columns:", talk.reply.codes.shape)

# %% [markdown]
# Where frames were lost the picture has no hole: the model never heard them, its time stood still.

# %% [markdown]
# **Exercise 2** ●●○, 10 minutes. How long did the agent take to react? `viz.speaking` says for each frame whether there is sound. Find the
# seconds from the end of the user's last frame of speech to the agent's first one after it.
#
# <details><summary>Hint</summary>`np.flatnonzero(x)` gives the places where x is true. A frame is 0.08 s.</details>

# %%
def reaction(user, agent):
    """bool [t] each, a value for each frame -> seconds"""
    # solution
    end = np.flatnonzero(user)[-1]
    start = np.flatnonzero(agent[end + 1:])[0]
    return start * 0.08
    # end

# %% [markdown]
# The check: three made-up talks, then the one above.

# %%
pp.check.reaction_time(reaction, talk.reply)

# %% [markdown]
# ## Sound in hand
#
# Frames are *played* every 80 ms, but they *arrive* when they like. The page starts to play a frame `slack` ms after the first one
# came; whatever is not there when its turn comes is a gap that you hear.

# %% [markdown]
# **Exercise 3** ●●○, 10 minutes. Count the gaps, if the k-th frame is due 80 k ms after the first one is played.
#
# <details><summary>Hint</summary>The first frame is played at `arrivals[0] + slack`. When is the k-th? Did it arrive later?</details>

# %%
def gaps(arrivals, slack):
    """ms at which each frame arrived, ms -> how many came too late"""
    # solution
    due = arrivals[0] + slack + 80 * np.arange(len(arrivals))
    return int((arrivals > due).sum())
    # end

# %% [markdown]
# The check: a minute of arrivals that wobble as they do in a home network.

# %%
pp.check.gap_count(gaps)

# %% [markdown]
# ## Go back, and be somebody else
#
# A conversation can be rewound to any frame; going on from there gives, bit for bit, what was said. Or tell it a new role at that
# moment, here in the middle of the question. Which role wins, the first or the second?

# %%
before = talk.reply.codes
talk.rewind(1.2)
talk.hear(question[int(1.2 * pp.audio.RATE):])
print("the same, bit for bit:", (talk.reply.codes[:, :60] == before[:, :60]).all())
talk.rewind(1.2, pp.Persona(role="your name is julia from river hotel we close at nine and open at seven"))
talk.hear(question[int(1.2 * pp.audio.RATE):])
print("with the role of somebody else:", talk.reply.text)
talk.reply.play(both=True)

# %% [markdown]
# While it was trained, `lite` was never told twice who it is, so do not be surprised if it stays who it was. *Rewind as persona* in the
# widget is this experiment; *New conversation* forgets everything and begins as the panel says.
#
# ## What we left out
#
# Echo: without headphones the model hears itself, and the browser's echo canceller has to take it out again. Loss on the way: a
# telephone would hide a missing frame by guessing it. And more than one talker: here one page talks, and all others watch.
#
# **Where next?** [`live.py`](../personaplex_lite/live/engine.py) is the kernel's side in one thread and a queue,
# [`worklet.js`](../personaplex_lite/live/static/worklet.js) the browser's sound, [`past.py`](../personaplex_lite/live/past.py) the way back.
# How good a listener is it? [`08_evaluate`](08_evaluate.ipynb) measures that.
