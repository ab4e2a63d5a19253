# %% [markdown]
# # How does it know when to speak?
#
# A telephone assistant waits until a detector says "the user has finished", thinks, and answers. Here there is no such detector, and no
# turn. Both sides speak and listen all the time, 12.5 times a second. So who decides that it is the agent's turn? What happens in
# a pause, when you cut in, when you say nothing at all? You measure it, on a whole talk, and then you do what no telephone
# can: split one moment into two futures.
#
# **Time** 25 minutes, 30 more for the exercises. **Hardware** two CPU cores, no network. **Afterwards** you can read the grid of a talk, measure gaps, overlaps and
# interruptions from the two sounds, and test what a model does by changing one thing in its past.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# One recording of a user who asks twice, with pauses in between, as in a real call.

# %%
import json
import numpy as np
import torch
import personaplex_lite as pp
from personaplex_lite import viz
def quiet(seconds):
    return torch.zeros(int(seconds * 12.5) * pp.audio.FRAME)

first, second = (pp.audio.read(f"../data/questions/{name}.wav") for name in ("open", "close"))
sound = torch.cat([first, quiet(3.6), second, quiet(3.6)])
print(f"{len(sound) / pp.audio.RATE:.1f} seconds, {-(-len(sound) // pp.audio.FRAME)} frames")
pp.audio.player(sound)

# %% [markdown]
# The agent hears it, 80 ms at a time. We keep a copy of the beginning, and one of the moment before the second question: we shall come
# back. You are on the left, the agent is on the right.

# %%
agent, asked = pp.load(), json.load(open("../data/questions/questions.json"))[0]
chat = agent.chat(pp.Persona(asked["voice"], asked["role"]), trace=True, progress=False)

def hear(chat, sound):
    """float [n] -> Reply, of exactly these frames"""
    return pp.Reply([chat.step(piece) for piece in pp.audio.frames(sound)], sound, agent.text, chat.config)

start, half = chat.save(), len(first) + len(quiet(3.6))
frames, middle = hear(chat, sound[:half]).frames, chat.save()
talk = pp.Reply(frames + hear(chat, sound[half:]).frames, sound, agent.text, chat.config)
print(f"{len(talk.frames)} frames | {talk.text}")
talk.play(both=True)

# %% [markdown]
# ## The grid of a whole talk
#
# Seventeen rows, a column every 80 ms. Nothing in it says "turn".

# %%
config = agent.lm.config
picture = talk.plot()
silent = talk.codes[config.agent] == np.array(config.silence)[:, None]
print(f"columns without a word: {np.isin(talk.codes[0], (config.pad, config.epad)).mean():.0%}")
print(f"cells of its voice that hold the code of silence: {silent.mean():.0%}")

# %% [markdown]
# Most of what the model says is *silence*, and it says it on purpose: in every column it chooses PAD for the text, and for the voice the
# codes that sound like nothing. "Waiting" is not a state of the program. It is what the model says most often.
#
# ## Who has the floor?
#
# Now measure. `viz.speaking` turns a sound into one bool for each frame: louder than −40 dB, or in a gap of a few frames. Two
# such rows make four states: only you, only the agent, both, nobody.

# %% [markdown]
# **Exercise 1** ●○○, 5 minutes. Count the seconds of each.
#
# <details><summary>Hint</summary>For bool arrays <code>&amp;</code>, <code>|</code> and <code>~</code> are and, or, not;
# <code>.sum()</code> counts. A frame is 0.08 s.</details>

# %%
def floor(user, agent):
    """bool [frames] each -> seconds: only the user, only the agent, both, nobody"""
    # solution
    states = user & ~agent, agent & ~user, user & agent, ~user & ~agent
    return [0.08 * float(state.sum()) for state in states]
    # end

# %% [markdown]
# The check: on made-up talks, then on this one.

# %%
pp.check.floor_time(floor, talk)

# %% [markdown]
# A picture of it, with a pair of bars for each talk: you in orange, the agent in blue. We shall need it again.

# %%
def busy(pcm):
    return viz.speaking(np.asarray(pcm), pp.audio.RATE)
def strips(talks):
    """{name: Reply}: who speaks when"""
    ax, n = viz.new_axes(None, 10, 0.7 + 0.5 * len(talks)), len(talks)
    for row, reply in enumerate(talks.values()):
        for pcm, low, colour in ((reply.user, 0.1, viz.USER), (reply.pcm, 0.46, viz.AGENT)):
            ax.broken_barh(viz.spans(busy(pcm)), (row + low, 0.34), color=colour, lw=0)
    ax.set(ylim=(n, 0), yticks=[row + 0.45 for row in range(n)], yticklabels=list(talks),
           xlim=(0, 0.08 * max(len(reply.frames) for reply in talks.values())))
    ax.set_xlabel("seconds · orange: you · blue: the agent", color=viz.INK, fontsize=8)

# %% [markdown]
# This talk, at a glance and in seconds.

# %%
strips({"the talk": talk})
print("you:      ", [f"{a:.1f} to {a + b:.1f}" for a, b in viz.spans(busy(talk.user))])
print("the agent:", [f"{a:.1f} to {a + b:.1f}" for a, b in viz.spans(busy(talk.pcm))])

# %% [markdown]
# People leave about 0.2 s between two turns, and often less than nothing. The measure is the **floor transfer**: for each run of the
# agent's speech, its start minus the end of *your* latest run, the one that began before it. Below zero, you were still speaking.

# %% [markdown]
# **Exercise 2** ●●●, 10 minutes. Compute them. Where you have not said anything yet, there is no transfer.
#
# <details><summary>Hint 1</summary><code>viz.spans(row)</code> gives (start, length) of each run, in seconds.</details>
# <details><summary>Hint 2</summary>For each run of the agent, collect the ends of your runs that <i>start</i> before it. The last of
# them is the one.</details>

# %%
def transfers(user, agent):
    """bool [frames] each -> seconds, one for each run of the agent that follows a run of the user"""
    # solution
    gaps = []
    for begin, _ in viz.spans(agent):
        ends = [start + length for start, length in viz.spans(user) if start < begin]
        gaps += [begin - ends[-1]] if ends else []
    return gaps
    # end

# %% [markdown]
# The check: again on made-up talks, then on this one.

# %%
pp.check.floor_transfers(transfers, talk)

# %% [markdown]
# ## The wish to speak
#
# If there is no detector, what starts the answer? The text row. Every 80 ms the model gives a probability to PAD, "no word now". One minus
# that is its **wish to speak**, and it can be plotted.

# %%
def wish(reply):
    return [1 - float(torch.softmax(f.trace.text_logits[0], -1)[config.pad]) for f in reply.frames]

curve = np.array(wish(talk))
wakes = [i for i in range(13, len(curve)) if curve[i] > 0.5 and curve[i - 13:i].max() < 0.5]
print("you fall silent in the columns  ", [round((a + b) * 12.5) for a, b in viz.spans(busy(talk.user))])
print("the wish wakes up in the columns", wakes)
print(f"columns in which it hesitates, between 0.1 and 0.9: {((curve > 0.1) & (curve < 0.9)).mean():.0%}")

# %% [markdown]
# A picture of that needs a few lines, which we shall use twice.

# %%
import matplotlib.pyplot as plt

def plot_wish(talks):
    """{name: Reply}: the wish over time"""
    _, axes = plt.subplots(len(talks), figsize=(10, 0.6 + 1.1 * len(talks)), squeeze=False,
                           layout="constrained", facecolor="none")
    for ax, (name, reply) in zip(axes[:, 0], talks.items()):
        viz.new_axes(ax, 10, 1).plot(np.arange(len(reply.frames)) * 0.08, wish(reply), color=viz.AGENT)
        ax.broken_barh(viz.spans(busy(reply.user)), (0, 1), color=viz.USER, alpha=0.35, lw=0)
        ax.set_title(name, fontsize=8, loc="left", color=viz.INK)
        ax.set(yticks=(0, 1), xlim=(0, 0.08 * max(len(r.frames) for r in talks.values())))
    ax.set_xlabel("seconds · blue: wish to speak, 0 to 1 · orange: you speak", color=viz.INK, fontsize=8)

# %% [markdown]
# Orange is where you speak; each hill of the wish is a word or two.

# %%
plot_wish({"the talk": talk})
print("its highest value while you speak:", round(float(curve[busy(talk.user)[:len(curve)]].max()), 1))

# %% [markdown]
# A dial, or a switch? The share of hesitant columns tells. And between your words there are tiny gaps, too: does the wish wake up there?
# How could it tell such a gap from the end?
#
# ## A pause is not an end
#
# We cut the question at its quietest moment, and put a pause there: half a second, and two seconds. It cannot know that you will go on.
# Will it wait?

# %%
power = first.unfold(0, pp.audio.FRAME, pp.audio.FRAME).square().mean(1)
cut = (10 + int(power[10:20].argmin())) * pp.audio.FRAME          # the quietest frame in the middle
paused = {}
for pause in (0.5, 2.0):
    chat.restore(start)
    torn = torch.cat([first[:cut], quiet(pause), first[cut:], quiet(2)])
    reply = paused[f"a pause of {pause} s"] = hear(chat, torn)
    spoken, ends = viz.spans(busy(reply.pcm)), sum(viz.spans(busy(reply.user))[-1])
    when = f"{spoken[0][0] - ends:+.1f}" if spoken else "never"
    print(f"pause {pause}: its first sound, measured from your last one: {when} | {reply.text}")
strips(paused)

# %% [markdown]
# A negative number means: it came in before you had finished. *Never*: two seconds after your end it is still silent. Listen to the
# longer pause, and look at the wish in both.

# %%
plot_wish(paused)
print("its highest value:", {name: round(max(wish(reply)), 1) for name, reply in paused.items()})
reply.play(both=True)

# %% [markdown]
# What can it go by? The *words* before the pause ("do you know" cannot be the end), their melody, and the time since. There is no rule
# for it anywhere, only talks in which people paused. Pauses longer than all of those are a world it has never seen, and then anything
# may happen: it comes in, or it forgets that it was asked. Full-Duplex-Bench measures just that (`08`).
#
# ## Silence the user row
#
# The eight user rows are the only ears it has. Then let us edit them. We go back to the moment before the second question, and put
# the codes of silence where the question was: you never asked.

# %%
def deaf(chat, frames):
    """The user's cells hold the code of silence -> Reply"""
    nothing = torch.tensor(config.silence)
    return pp.Reply([chat.step(user=nothing) for _ in range(frames)], quiet(0.08 * frames), agent.text, config)

chat.restore(middle)
unasked = deaf(chat, 55)
asked_again = " ".join(word.text for word in talk.words if word.start > 0.08 * len(frames))
print("with the second question:   ", asked_again or "(nothing)")
print("the same moment without it: ", unasked.text or "(nothing)")

# %% [markdown]
# And if nobody ever says a word? From the very beginning, five seconds of you being silent:

# %%
chat.restore(start)
alone = deaf(chat, 63)
strips({"never asked again": unasked, "never said anything": alone})
print("in five seconds of silence it says:", alone.text or "(nothing)")
alone.play()

# %% [markdown]
# A model can also *begin*: some were trained on calls in which the agent greets first. Whether this one does is in the line above.
#
# ## Cutting in, in two futures
#
# What does the agent do when you interrupt? To know that, one has to know what it would have done *otherwise*. On a telephone that is
# impossible. Here a moment can be saved, and lived twice. A third of a second into its answer we fork: in one future you keep quiet, in
# the other you cut in.

# %%
begins = int(np.flatnonzero(busy(talk.pcm))[0])
chat.restore(start)
shared = hear(chat, sound[:(begins + 4) * pp.audio.FRAME])
fork = chat.save()
calm = hear(chat, quiet(4.8))
chat.restore(fork)
at_once = second[int(np.flatnonzero(busy(second))[0]) * pp.audio.FRAME:]       # no silence before it
rude = hear(chat, torch.cat([at_once, quiet(5)])[:len(quiet(4.8))])
strips({"you keep quiet": calm, "you cut in": rude})
for name, future in (("quiet:", calm), ("cut in:", rude)):
    print(f"{name:7} {future.text}")

# %% [markdown]
# The same past, the same dice; the only difference is you. Hear the second future, with the past before it.

# %%
both = pp.Reply(shared.frames + rude.frames, torch.cat([shared.user, rude.user]), agent.text, config)
for name, future in (("left alone", calm), ("cut in on", rude)):
    on = busy(torch.cat([shared.pcm, future.pcm]))[len(shared.frames):]
    print(f"{name} it speaks on for {int(np.flatnonzero(~np.r_[on, False])[0])} frames")
print(f"both speak at once in {int((busy(both.user) & busy(both.pcm)).sum())} of {len(both.frames)} frames")
both.play(both=True)

# %% [markdown]
# If the second number is not clearly smaller, it did **not** yield: it finished its sentence, over you, and took your question up
# afterwards, if at all. If it is, it fell silent. Either way this is an experiment, not an impression: one cause, one effect.
#
# When did it *notice*? Sound takes time to become an influence.

# %% [markdown]
# **Exercise 3** ●○○, 5 minutes. Find the first frame at which two futures differ.
#
# <details><summary>Hint</summary><code>(a != b).any(0)</code> is True for each column in which some row differs. And what if there is
# none?</details>

# %%
def parting(a, b):
    """numpy int [rows, frames] each -> the first frame that differs, or the number of frames if none does"""
    # solution
    apart = (a != b).any(0)
    return int(apart.argmax()) if apart.any() else len(apart)
    # end

# %% [markdown]
# The check: on made-up codes, then on the agent's voice in the two futures.

# %%
pp.check.first_difference(parting, calm, rude)

# %% [markdown]
# ## Other dice
#
# The second way to split a moment: keep the world, change the dice. `chat.fork(seed=…)` is a second conversation with the same past and
# other luck.

# %% [markdown]
# **Exercise 4** ●●○, 8 minutes. Live one moment several times, and give back the agent's codes of each future. `chat` itself must not
# notice: it has to be where it was.
#
# <details><summary>Hint 1</summary>A fork has a memory of its own: whatever it hears, <code>chat</code> does not.</details>
# <details><summary>Hint 2</summary><code>frame.codes</code> is int64 [17], and the agent's voice is in
# <code>chat.config.agent</code>.</details>

# %%
def futures(chat, seeds, pieces):
    """a conversation, ints, [float [1920], …] -> int64 [seeds, 8, pieces]"""
    # solution
    lives = []
    for seed in seeds:
        other = chat.fork(seed=seed)
        codes = torch.stack([other.step(piece).codes for piece in pieces], 1)
        lives.append(codes[chat.config.agent])
    return torch.stack(lives)
    # end

# %% [markdown]
# The check: with a tiny model of random weights, which is fast and says nothing.

# %%
pp.check.several_futures(futures)

# %% [markdown]
# Here are two other futures of the moment at which you have asked your first question.

# %%
chat.restore(start)
asked_once = hear(chat, first)
lives = {}
for seed in (1, 2):
    lives[f"seed {seed}"] = hear(chat.fork(seed=seed), quiet(2.4))
    print(f"seed {seed}: {lives[f'seed {seed}'].text}")
a, b = (life.codes[config.agent] for life in lives.values())
print(f"codes of its voice that are the same: {(a == b).mean():.0%}")
strips(lives)

# %% [markdown]
# Often the words are the same, for the text has little choice; the codes are not: the same sentence, spoken twice. What does the moment
# decide, and what the dice? You can measure it, for any moment of any talk.
#
# ## Murmuring
#
# The last thing that full duplex makes possible: to say "mm-hmm" *while* the other goes on, without taking the turn. Somebody tells a
# story. Murmurs are runs of speech under a second; what is longer takes the floor.

# %%
folder = "../data/duplex_mini/v1_0/icc_backchannel/0/"
friend = pp.Persona(asked["voice"], json.load(open(folder + "persona.json"))["role"])
listener = agent.chat(friend, seed=0, progress=False)
story = hear(listener, pp.audio.read(folder + "input.wav")[:9 * pp.audio.RATE])
runs = [length for begin, length in viz.spans(busy(story.pcm)) if begin + length < 8.9]     # not cut off
print(f"murmurs: {sum(length < 1 for length in runs)} | longer: {sum(length >= 1 for length in runs)}")
print("its words:", story.text or "(none)")
strips({"a story": story})
story.play(both=True)

# %% [markdown]
# Are those murmurs, or answers nobody asked for? Read its words. If both numbers are 0, it listened in silence, which is polite and a
# little eerie. The large PersonaPlex does murmur, if rarely: its
# model card gives a frequency of 0.042 a second. Behaviour like this is not built in. It is in the talks that a model was trained
# on, or it is not there.
#
# ## What we left out
#
# Scores: one talk is an anecdote; `08` does this with many, and with words. Echo: through loudspeakers the agent hears itself in *your* rows
# (`07`). And why: which of your words moved the wish? Replace them one by one, as you did with the second question, and see.
#
# **Where next?** [`session.py`](../personaplex_lite/talk/session.py) has `save`, `restore` and `fork`, and [`state.py`](../personaplex_lite/model/state.py)
# why they are three lines each; [`viz.py`](../personaplex_lite/viz.py) has `speaking`. Then: how do a voice and a role get in?
# [05_persona](05_persona.ipynb).
