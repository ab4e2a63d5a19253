# %% [markdown]
# # A voice and a role
#
# You hand the model a few seconds of somebody's voice and a paragraph of text, and it is somebody. How do they get in? There is no
# voice encoder in it, and no place for a prompt. You find the only door there is, go through it by hand, and then you take single
# words out of its memory again.
#
# **Time** 30 minutes, 40 more for the exercises. **Hardware** two CPU cores, no network. **Afterwards** you can lay out the prompt by hand, give the agent a
# voice of your own, say what it does with a role that contradicts itself, and predict the second at which it forgets who it is.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# Somebody calls a pharmacy and asks who is speaking. You are on the left, the agent is on the right.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
import personaplex_lite as pp
agent = pp.load()                 # or: pp.load("nvidia/personaplex-7b-v1", device="cuda")
config, first, last = agent.lm.config, min(agent.voices), max(agent.voices)
role = "you are peter and you work at diamond pharmacy we close at two and open at eight"
question = pp.audio.read("../data/questions/name.wav")
talking = {"greedy": True, "progress": False}               # greedy: always the likeliest token
reply = agent.chat(pp.Persona(first, role), **talking).run(question, progress=False)
display(f"{first}: {reply.text}", reply.play(both=True))

# %% [markdown]
# ## The door
#
# The model knows 17 rows, and reads a column of them every 80 ms. So the persona has to come **as columns**: before you may speak, it
# lives through some seconds of a conversation that somebody has made up. Here they are.

# %%
from personaplex_lite.talk import persona
from personaplex_lite import viz

voice = agent.voice(first)
if voice.codes is None:           # the 7B's own voices hold no codes: there take a recording
    voice = pp.Voice.from_wav("../data/questions/open.wav", agent.mimi)
words, n = agent.text.role(role), voice.codes.shape[1]
prompt = persona.build(voice, role, config, agent.text).tokens.T          # [17, p]
print(f"voice {n} + silence 6 + role {len(words)} + silence 6 frames:", list(prompt.shape))

# %% [markdown]
# Blue shades are the agent's rows, orange ones the user's. What is in which part, before you read on?

# %%
figure, ax = plt.subplots(figsize=(11, 5), layout="constrained", facecolor="none")
viz.plot_grid(prompt, agent.text.words(prompt[0].tolist()), ax, config.silence)
edges = [0, n, n + 6, n + 6 + len(words), prompt.shape[1]]
for name, start, end in zip(("voice", "quiet", "role", "quiet"), edges, edges[1:]):
    ax.axvline(start * 0.08, color=viz.INK, lw=1)
    ax.text((start + end) * 0.04, 19.5, name, ha="center", color=viz.INK, fontsize=9)
ax.set_ylim(19.8, ax.get_ylim()[1])
print("the text row reads:", agent.text.say(prompt[0].tolist()))

# %% [markdown]
# First it believes that it has just *spoken*, in that voice, without a word of text. Then that it has *thought* the role, a piece of a
# word every 80 ms, without a sound. All the while the user's rows hold one and the same column. What is it? Left is the user,
# right the agent.

# %%
def sound(codes):
    """int64 [8, t] -> float32 [1920 · t]"""
    return agent.mimi.decode(codes[None].to(agent.device))[0, 0].cpu()

pp.audio.player(torch.stack([sound(prompt[config.user]), sound(prompt[config.agent])], 1))

# %% [markdown]
# A hum. Ask the codec what it says for a pure tone of 440 Hz.

# %%
tone = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(3 * 24_000) / 24_000)
most = agent.mimi.encode(tone)[0].mode(1).values.tolist()           # each row's commonest code
print("a tone: ", most)
print("prompt: ", prompt[config.user, 0].tolist())

# %% [markdown]
# A 440 Hz sine: a sound that no user makes, so the model can tell that this is not yet the talk. (`lite`'s codec was made for speech
# and sings the tone badly. That does not matter: these codes are never played.) So much for the *hybrid system prompt* of the
# PersonaPlex paper.
#
# **Exercise 1** ●●○, 10 minutes. Lay it out: voice codes, six frames of silence, the role, six frames of silence. The text row is
# `config.pad` wherever no role is told. A persona may have no voice: then `codes` is [8, 0], and nothing else changes.
#
# <details><summary>Hint 1</summary>Begin with a table full of padding, `torch.full((17, p), config.pad)`, and overwrite. Which rows are
# silent in every column but the first n?</details>
# <details><summary>Hint 2</summary>`config.silence` and `config.sine` are 8 integers each. `torch.tensor(config.sine)[:, None]` is a column
# of them, and a column can be assigned to many at once. `config.agent` and `config.user` are the slices of their rows.</details>

# %%
def lay_out(codes, words, config):
    """codes int64 [8, n], words: a list of token ids -> int64 [17, p]"""
    # solution
    n = codes.shape[1]
    table = torch.full((17, n + 6 + len(words) + 6), config.pad)
    table[config.user] = torch.tensor(config.sine)[:, None]
    table[config.agent] = torch.tensor(config.silence)[:, None]
    table[config.agent, :n] = codes
    table[0, n + 6:n + 6 + len(words)] = torch.tensor(words)
    return table
    # end

# %% [markdown]
# The check: other voices, other roles, other models, and somebody without a voice.

# %%
pp.check.persona_layout(lay_out)

# %% [markdown]
# ## Going through it
#
# Now the surprise. `step` is how a frame is heard; whatever you pass to it is **forced**, and what you leave out the model decides. A
# prompt is frames in which everything is passed. So take an agent that is nobody, and force.

# %%
by_hand = agent.chat(greedy=True, trace=True, progress=False)             # no voice, no role
columns = []
for frame in prompt.T:                                                    # [17]
    by_hand.step(user=frame[config.user], agent=frame[config.agent], text=frame[0])
    columns.append(by_hand.last.column[0].cpu())                # what the model has just read
theirs = agent.chat(pp.Persona(voice, role), **talking)
pairs = zip(by_hand.state.temporal.tensors().values(), theirs.state.temporal.tensors().values())
print("the same memory as pp's:", all(torch.allclose(mine, its) for mine, its in pairs))
codes = [chat.run(question, progress=False).codes for chat in (by_hand, theirs)]
print("the same answer as pp's:", np.array_equal(*codes))

# %% [markdown]
# That loop is the whole mechanism. Where did each token go? Acoustic codes stand one column to the right of their frame's text and
# semantic code (the delay, notebook 03), in a prompt as everywhere; and column 0 belongs to the start tokens, so the prompt's very
# first frame is lost.

# %%
grid = torch.stack(columns[1:], 1)                              # [17, p - 1]: columns 0 to p - 2
print("column 0 holds start tokens only:", grid[:, 0].tolist() == list(config.initial))
for row, name in {0: "text", 1: "semantic", 2: "acoustic", 9: "user's semantic", 10: "…"}.items():
    late = config.delays[row]
    same = torch.equal(grid[row, 1 + late:], prompt[row, 1:grid.shape[1] - late])
    print(f"frame i of row {row:2} ({name}) is in column i + {late}: {same}")

# %% [markdown]
# ## The same past, another voice
#
# The same caller, the same role, the same (greedy) choice of every token. Only the first part of the prompt is another.

# %%
other = agent.chat(pp.Persona(last, role), **talking).run(question, progress=False)
for name, answer in ((first, reply), (last, other)):
    display(f"{name}: {answer.text}", answer.play())

# %% [markdown]
# How far does a voice reach into the rows? Below, for each row, how often the two answers hold the same integer. Where both are
# silent that would be easy, so only frames count in which somebody speaks.

# %%
t = min(len(reply.frames), len(other.frames))
a, b = reply.codes[:9, :t], other.codes[:9, :t]
quiet = np.r_[config.pad, config.silence][:, None]
busy = ((a != quiet) | (b != quiet))[:2].any(0)           # in the text or the semantic row
share = (a == b)[:, busy].mean(1)
ax = viz.new_axes(None, 8, 2)
ax.bar(range(9), share, color=viz.AGENT)
ax.set_xticks(range(9), ["text", "semantic", *[f"acoustic {i}" for i in range(2, 9)]])
ax.set_ylabel("share that agrees", color=viz.INK, fontsize=8)
print("most alike is the", "text" if share.argmax() == 0 else f"row {share.argmax()}", "row")

# %% [markdown]
# Can one *measure* whose voice it is? A large part of it is its pitch: how often a second the vocal folds open.
#
# **Exercise 2** ●●○, 10 minutes. Find the pitch of a sound by *autocorrelation*: shift the sound against itself; where it fits best, it
# has been moved by one period. Look at shifts that belong to 70 to 400 Hz.
#
# <details><summary>Hint 1</summary>For one shift k the fit is `(pcm[k:] * pcm[:-k]).sum()`. Which k belongs to 400 Hz, which to 70?
# </details>
# <details><summary>Hint 2</summary>Do that for every k in a list, and take the k of the largest: the pitch is 24 000 / k.</details>

# %%
def pitch(pcm):
    """numpy float [n] at 24 kHz -> Hz"""
    # solution
    shifts = range(24_000 // 400, 24_000 // 70)
    fits = [(pcm[k:] * pcm[:-k]).sum() for k in shifts]
    return 24_000 / shifts[int(np.argmax(fits))]
    # end

# %% [markdown]
# The check: sounds that we made, so that we know. Below it, the two voices: speech changes its pitch all the time, so we take the
# middle of all frames that are loud; first of the sample, then of what the agent made of it.

# %%
pp.check.voice_pitch(pitch)

def typical(pcm):
    """float [n] -> Hz, the median over loud frames; nan as long as there is no `pitch`"""
    loud = [x.numpy() for x in pp.audio.frames(pcm) if x.square().mean() > 1e-3]
    return np.median([pitch(x) or np.nan for x in loud] or [np.nan])

for name, answer in ((first, reply), (last, other)):
    sample = agent.voice(name).codes
    sample = np.nan if sample is None else typical(sound(sample))
    print(f"{name}: {np.round([sample, typical(answer.pcm)], -1)} Hz")

# %% [markdown]
# ## Your own voice
#
# Any recording of somebody speaking will do, best 3 to 15 s of one person in a quiet room; it is brought to −24 LUFS, because a
# loud sample makes a loud agent. Here it is the voice of another caller. Take a recording of yours: only your own, or that of
# somebody who has agreed.

# %%
import tempfile
from pathlib import Path

recording = "../data/questions/price.wav"                 # <- yours
mine = pp.Voice.from_wav(recording, agent.mimi)
path = mine.save(Path(tempfile.mkdtemp()) / "mine.safetensors")
same = torch.equal(agent.voice(path).codes, mine.codes)
print(list(mine.codes.shape), "codes in", path.stat().st_size, "bytes; read back the same:", same)
display("the recording", pp.audio.player(pp.audio.read(recording)))
cloned = agent.chat(pp.Persona(path, role), **talking).run(question, progress=False)
display("the agent: " + cloned.text, cloned.play())

# %% [markdown]
# Do not expect too much: `lite` has met a handful of voices in its life, and falls back on those. PersonaPlex was trained with 26 296
# of them. A voice is the easy part, by the way: with a quarter of the training data the voice was nearly as good as with all of it
# (speaker similarity 0.54 of 0.57), the role was not (4.20 of 4.48; both from the paper).
#
# ## Told twice
#
# Text is thought, not obeyed. What if it contradicts itself? Six pairs of names, told in three ways: one right after the other; the second
# at the very end; or a whole second prompt *after* the first (as `fork(persona=…)` does in the middle of a talk). All six talks of a
# way run as one batch, on tokens alone.

# %%
from dataclasses import replace

names = "peter anna julia victor kevin grace rachel oscar linda hugo david emily".split()
pairs = list(zip(names[::2], names[1::2]))
shop = "and you work at diamond pharmacy we close at two and open at eight"
ways = {"one after the other": ("you are {} you are {} " + shop, None),
        "the second at the end": ("you are {} " + shop + " your name is {}", None),
        "in a second prompt": ("you are {} " + shop, "you are {} " + shop)}
text_only = replace(agent, mimi=None)                     # no codec: this agent lives on tokens
waiting = torch.cat([question, torch.zeros(60 * 1920)])[:60 * 1920]
asking = agent.mimi.encode(waiting)[0].cpu()              # [8, 60]

# %% [markdown]
# Guess first: which name wins, the first or the second? Then run.

# %%

def says(chat, codes):
    """Step all rows of a chat through the same codes [8, t] -> what each says"""
    rows = [chat.step(user=frame.expand(chat.rows, -1)).codes[:, 0] for frame in codes.T]
    return [agent.text.say(row.tolist()) for row in torch.stack(rows, 1)]
for way, (start, later) in ways.items():
    told = [pp.Persona(first, start.format(*pair)) for pair in pairs]
    chat = text_only.chat(told, **talking)
    if later:
        then = [persona.build(None, later.format(b), config, agent.text) for _, b in pairs]
        chat.read(then, progress=False)
    wins = [[name in said for name in pair] for pair, said in zip(pairs, says(chat, asking))]
    print(f"{way:22} first, second name: {np.sum(wins, 0)} of {len(pairs)}")

# %% [markdown]
# The model has no rule for this; it does what its training data did, and there nobody was ever told two names. A contradiction is no
# error to it, only an unlikely past.
#
# ## Where is the name?
#
# All that is left of the prompt is keys and values in a ring, a slot for each step; `pos` says which step a slot holds, −1 means
# empty. So we can do what no prompt allows: **take one word out of its memory.** A batch again: each row has lost another word.
# All of them live through the answer that you heard, up to the name. How probable is the name there?

# %%
lost = text_only.chat([pp.Persona(voice, role)] * len(words), trace=True, **talking)
for row in range(len(words)):
    lost.state.temporal.pos[row, n + 6 + row] = -1        # this row never saw that word
name = agent.text.encode("peter")[0]
for frame in torch.from_numpy(codes[1]).T[1:]:            # [17]; the very first was the prompt's last frame
    rows = frame.expand(len(words), -1)
    lost.step(user=rows[:, config.user], agent=rows[:, config.agent], text=rows[:, 0])
    if frame[0] == name:
        break
chance = torch.softmax(lost.last.text_logits, -1)[:, name].cpu()
worst = int(chance.argmin())
print("the name hangs most on the word:", agent.text.piece(words[worst]).strip())

# %% [markdown]
# The words of the role, and how probable "peter" remains without each.

# %%
ax = viz.new_axes(None, 10, 2.2)
ax.bar(range(len(words)), chance, color=viz.AGENT)
pieces = [agent.text.piece(word).strip() for word in words]
ax.set_xticks(range(len(words)), pieces, rotation=60, ha="right")
ax.set_ylim(0, 1)
ax.set_ylabel("chance of “peter”", color=viz.INK, fontsize=8)
print(f"{len(words)} words and pieces, {int((chance < 0.5).sum())} of which it cannot do without")

# %% [markdown]
# Nothing about this was designed. A fact that hangs on one bar sits in one place, in the step where it was told, and is fetched from
# there when it is needed. Now hear an agent that has lost that one step, and one that has lost the voice (all its steps but
# the first): what goes, what stays?

# %%
here = n + 6 + worst
for what, steps in (("without one step", [here]), ("without the voice", list(range(1, n)))):
    chat = agent.chat(pp.Persona(voice, role), **talking)
    chat.state.temporal.pos[0, steps] = -1
    answer = chat.run(question, progress=False)
    print(f"{what}: {answer.text or '(silence)'}")
    display(answer.play())

# %% [markdown]
# ## What a long talk forgets
#
# Nobody cuts steps out in practice; time does it. The ring has `context` slots (the 7B: 3000, four minutes). When it is full, each new
# step overwrites the oldest, and the oldest is *who it is*: the voice first, then the role.
#
# **Exercise 3** ●○○, 5 minutes. How many seconds of talk are there until the first step of the persona is overwritten?
#
# <details><summary>Hint</summary>How long is the prompt, in frames? You have laid it out yourself. The rest of the ring is the talk's, at 12.5 frames a
# second. (The prompt's first frame is lost to the start tokens, so a frame more is right, too.)</details>

# %%
def seconds_left(voice_seconds, role_tokens, context):
    """seconds of voice sample, tokens of role, slots of the ring -> seconds of talk"""
    # solution
    prompt = voice_seconds * 12.5 + 6 + role_tokens + 6
    return (context - prompt) * 0.08
    # end

# %% [markdown]
# The check: `lite`, the 7B, and a model that cannot remember much.

# %%
pp.check.persona_seconds(seconds_left)

# %% [markdown]
# To see it without waiting: `context=` loads an agent that remembers less. It is asked for its name three times, in a ring that
# holds only a little more than two prompts; and beside it one that never forgets its prompt (`keep_persona=True`).

# %%
slots = 2 * prompt.shape[1] + 10
small = replace(pp.load(context=slots), mimi=None)        # the 7B: its name and device here, too
rings, who = {}, pp.Persona(voice, role)
for keep in (False, True):
    chat = small.chat(who, greedy=True, keep_persona=keep, progress=False)
    rings[keep] = []
    for asked in range(3):
        text = []
        for frame in asking.T:
            text.append(chat.step(user=frame).codes[0].item())
            rings[keep].append(chat.state.temporal.pos[0].tolist())
        print(f"keep_persona={keep}, asked at frame {60 * asked:3}: {agent.text.say(text)}")

# %% [markdown]
# Which steps does the ring hold while the talk goes on? Blue are the steps of the prompt, orange those of the talk. On the left the
# persona scrolls out of sight.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", facecolor="none")
for ax, (keep, ring) in zip(axes, rings.items()):
    steps = np.array(ring)                                # [frames, slots], -1 where empty
    frame, talk = np.arange(len(ring))[:, None] + 0 * steps, steps >= prompt.shape[1]
    for part, colour in ((talk, viz.USER), (~talk & (steps >= 0), viz.AGENT)):
        viz.new_axes(ax, 5, 3).scatter(frame[part], steps[part], 9, color=colour, marker="s", lw=0)
    ax.set_title(f"keep_persona={keep}", color=viz.INK, fontsize=9)
    ax.set_xlabel("frames since the talk began", color=viz.INK, fontsize=8)
axes[0].set_ylabel("step that is remembered", color=viz.INK, fontsize=8)
print("the oldest step at the end:", *(min(ring[-1]) for ring in rings.values()))

# %% [markdown]
# **Exercise 4** ●●●, 10 minutes. Predict the picture. After step t has been written (steps count from 0), which steps does a ring of
# `slots` hold, if the first `kept` of them are never overwritten?
#
# <details><summary>Hint 1</summary>As long as t < slots nothing has been overwritten, whatever is kept.</details>
# <details><summary>Hint 2</summary>Afterwards there are two groups: the kept ones, and the newest of the rest. How many slots are left for
# the second group?</details>

# %%
def held(t, slots, kept=0):
    """step just written, slots, how many first ones stay -> the steps that are held, in order"""
    # solution
    if t < slots:
        return list(range(t + 1))
    newest = slots - kept
    return [*range(kept), *range(t + 1 - newest, t + 1)]
    # end

# %% [markdown]
# The check: against the package's own ring, step by step.

# %%
pp.check.ring_holds(held)
full = [min(ring) >= 0 for ring in rings[False]].index(True)
print("above, the ring was full after frame", full, "of the talk")

# %% [markdown]
# A kept prompt has its price, less memory for the talk, and its trick: its steps *seem* to lie just before the oldest step that is
# remembered, so that no distance is ever longer than any the model was trained on. A session that does not keep warns ten seconds
# before it begins to forget. [docs/memory.md](../docs/memory.md) measures what that does to the share of right answers.
#
# ## What we left out
#
# The 7B's shipped voices (`.pt`) hold no codes but what the model once made of the sample (its embeddings); they are laid over the same
# frames. How well a role is obeyed: that needs a judge, notebook 08. And whether a sine is a good signal: try silence in its place in
# the loop above, one line, and ask again.
#
# **Where next?** [`persona.py`](../personaplex_lite/talk/persona.py) is the prompt, [`voice.py`](../personaplex_lite/talk/voice.py) the
# voice, [`transformer.py`](../personaplex_lite/model/transformer.py) the ring (`KVState.claim`), `Session.read` in
# [`session.py`](../personaplex_lite/talk/session.py) the loop. `06_full_size` asks how any of this fits and keeps up when it is hundreds of times as large.
