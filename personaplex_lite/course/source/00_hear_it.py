# %% [markdown]
# # Hear it
#
# What is it like to talk to a model that never stops listening? Somebody calls a shop. You hear the question and the answer, and
# then you see what the model saw while it listened and spoke at the same time.
#
# **Time** 15 minutes, 20 more for the exercises. **Hardware** two CPU cores, no network. **Afterwards** you can give the model a voice, a role and a recording,
# read the picture of what it heard and said, and say which of it was given and which was chosen.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# PersonaPlex is a speech model with no turns. Every 80 ms it takes in a piece of your voice, thinks one step, and gives back
# a piece of its own, even while you are still talking. This notebook uses `lite`, a tiny one that was trained from nothing
# for this project. It knows one small world of shops, prices and opening hours, and it runs on two laptop cores.
#
# Somebody calls; who the agent is, it has read beforehand as text, and it has never met this combination of facts.

# %%
import json

import personaplex_lite as pp

asked = {q["file"]: q for q in json.load(open("../data/questions/questions.json"))}["open.wav"]
question = pp.audio.read("../data/questions/" + asked["file"])
print("role: ", asked["role"])
print("user: ", asked["text"])
pp.audio.player(question)

# %% [markdown]
# Give the agent a voice and its role, let it hear the question, and play both sides: you on the left, the agent on
# the right.

# %%
agent = pp.load()                 # or: pp.load("nvidia/personaplex-7b-v1", device="cuda")
persona = pp.Persona(asked["voice"], asked["role"])
chat = agent.chat(persona, seed=0, trace=True, progress=False)
reply = chat.run(question, progress=False)

print(*(f"{word.start:5.2f} s  {word.text}" for word in reply.words), sep="\n")
reply.play(both=True)

# %% [markdown]
# What does the model see of this? Above, both voices; below, a grid of 17 rows with a column every 80 ms: the agent's
# text, eight rows of codes for its voice, eight for yours. A word's text stands just before its sound. And most
# cells are pale: **the model speaks silence, too**, column by column, while it waits.

# %%
picture = reply.plot()
print("rows and columns:", reply.codes.shape)

# %% [markdown]
# Your rows were given. Every cell on the agent's side was a *choice*. Here is the word it was least sure of, with what else it
# weighed; `·` and `|` mean "no word now" and "a word is coming".

# %%
from personaplex_lite import viz

quiet = (agent.text.pad, agent.text.epad)
words = [f.trace for f in reply.frames if int(f.trace.sampled[0, 0]) not in quiet]
unsure = max(words, key=lambda trace: float(trace.entropy()[0]))
print("it said:", agent.text.piece(int(unsure.sampled[0, 0])))

pieces, chances = zip(*unsure.top(6))
ax = viz.new_axes(None, 6, 2)
bars = ax.barh(pieces[::-1], chances[::-1], color=viz.AGENT)
ax.set_xlabel("probability of each piece of text", color=viz.INK, fontsize=8)
ends = ax.set_xlim(0, 1)

# %% [markdown]
# Choices are made with dice, and a seed says how they fall. The same question to the same agent, with other dice:

# %%
for seed in (1, 2, 3):
    again = agent.chat(persona, seed=seed, progress=False).run(question, progress=False)
    print(f"seed {seed}: {again.text or '(nothing)'}")

# %% [markdown]
# ## Somebody else
#
# Same model, same question, same dice. Only what was read beforehand is different: another role, another voice.

# %%
role = "your name is julia from river hotel we close at nine and open at seven room costs thirty dollars"
other = agent.chat(pp.Persona("NATM1", role), seed=0, progress=False).run(question, progress=False)
print(other.text or "(nothing)")
other.play()

# %% [markdown]
# Nobody told it what a hotel is. It was trained on talks in which the answer is found in the role and nowhere else, so it learned to
# look there.
#
# Be ready to be disappointed, too. `lite` is small: it may mix up facts or say nothing, and what lies outside its little world it
# answers with nonsense or an apology. The full-size model is the same code with other weights.

# %% [markdown]
# **Exercise 1** ●○○, 5 minutes. Does it really read? Change **one word** of Julia's role: the hour at which she opens. Ask again.
# Then list the words of the *changed* role that come back in the reply.
#
# <details><summary>Hint</summary>`changed.replace("this", "that")` changes a word, and only hours that exist make sense to
# `lite`. `text.split()` is a list of words, and `word in words` is true or false.</details>

# %%
changed = role
# solution
changed = changed.replace("open at seven", "open at eleven")
# end
answer = agent.chat(pp.Persona("NATM1", changed), seed=0, progress=False).run(question, progress=False)
print(answer.text or "(nothing)")
found = None
# solution
found = [word for word in changed.split() if word in answer.text.split()]
# end

# %% [markdown]
# The check wants one changed word, and all of the role's words that were said. It does not mind if `lite` was wrong.

# %%
pp.check.role_words(role, changed, answer, found)

# %% [markdown]
# ## Columns
#
# The clock of this model is the column: 80 ms, which is 1920 samples of sound at 24 000 a second. A sound is cut into pieces of that
# size, and the last piece is filled up with silence. Here are the pieces of the question.

# %%
pieces = pp.audio.frames(question)
print(f"{len(question):,} samples, {len(pieces)} pieces of {len(pieces[-1])}")

# %% [markdown]
# **Exercise 2** ●○○, 5 minutes. How many columns does a sound of so many samples take? (Then try 24 000, a second: why is it not 12.5?)
#
# <details><summary>Hint</summary>Rounding down loses the last piece. Adding one is too much when the sound fits.</details>

# %%
def columns(samples):
    """number of samples -> number of columns"""
    # solution
    return -(-samples // pp.audio.FRAME)
    # end

# %% [markdown]
# The check: sounds that fit, and sounds that are one sample too long or too short.

# %%
pp.check.columns_of(columns)

# %% [markdown]
# ## Reading the grid
#
# `reply.codes` is the grid as integers: row 0 is the agent's text, rows 1 to 8 its voice, rows 9 to 16 yours. Silence has a code of
# its own in each of the eight rows, and the picture draws exactly those cells pale. Right after speech the cells stay coloured for a
# while: the codec's ears look back two seconds, and for them it is not yet silent.

# %%
import numpy as np

silence = np.array(chat.config.silence)
print("the first column, voice:", reply.codes[1:9, 0])
print("the codes of silence:   ", silence)

# %% [markdown]
# **Exercise 3** ●●○, 10 minutes. Which share of the agent's *voice* cells is silence?
#
# <details><summary>Hint 1</summary>`codes[1:9]` has the shape [8, t], and `silence` has the shape [8]. To compare each row with its own
# code, make it [8, 1]: `silence[:, None]`.</details>
# <details><summary>Hint 2</summary>The mean of true and false is a share.</details>

# %%
def pale(codes, silence):
    """codes int [17, t], silence int [8] -> share of the agent's voice cells that are silence, 0 to 1"""
    # solution
    return (codes[1:9] == silence[:, None]).mean()
    # end

# %% [markdown]
# The check: a made-up grid, then the one above.

# %%
pp.check.pale_share(pale, reply)

# %% [markdown]
# ## What we left out
#
# Nearly everything: what the codes are, who fills the cells, how a voice gets in. Each is a notebook. And this was a short question,
# politely waited for; interrupting comes later.
#
# Try it first. Put a recording of your own in place of `question`: a path to a wav, flac, ogg or mp3 file will do. Or take another
# of the six in [`questions.json`](../data/questions/questions.json), or another voice: `sorted(agent.voices)` lists them.
#
# **Where next?** [`01_codec_tokens`](01_codec_tokens.ipynb): how sound becomes those eight rows. In the package,
# [`session.py`](../personaplex_lite/talk/session.py) is a conversation, and `take_step` in [`step.py`](../personaplex_lite/talk/step.py)
# the whole algorithm: it just ran once per column. [`viz.py`](../personaplex_lite/viz.py) drew the pictures.
