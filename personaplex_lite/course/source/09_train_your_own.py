# %% [markdown]
# # Train your own
#
# Everything so far ran on weights that somebody else had trained. Where do they come from? You train three things with what lies in
# `data/`: a tiny codec, a tiny language model that overhears `lite`, and an adapter that gives `lite` another voice. Each can be
# heard before, meanwhile, and after.
#
# **Time** 40 minutes, 40 more for the exercises. **Hardware** two CPU cores, no network. **Afterwards** you can write the training loop of a codec and of a
# speech model, see in a curve when a model begins to learn by heart, and change a trained model without touching its weights.
#
# Each word of the field is in the [glossary](../notebooks/GLOSSARY.md), with a picture.

# %% setup

# %% [markdown]
# `EFFORT` decides how long everything trains. What is stored below was made with 1, which is *too little*: ten seconds each. With 25
# the codec and the language model take about five minutes each. Run it as it is first; then change the number and run it all again,
# during a break. These are the sounds to learn from: callers, with their silences cut out.

# %%
EFFORT = 1                        # 25: about five minutes each for the codec and the language model
import numpy as np
import torch
import personaplex_lite as pp
from personaplex_lite import viz

torch.set_num_threads(1)          # batches as small as ours gain nothing from a second one
sounds = [pp.audio.read(file) for file in sorted((pp.places.DATA / "duplex_mini").rglob("input.wav"))]
speech = torch.cat([frame for sound in sounds for frame, voiced in zip(
    pp.audio.frames(sound), viz.speaking(sound.numpy(), pp.audio.RATE)) if voiced])
print(len(sounds), "recordings,", len(speech) // pp.audio.FRAME, "frames of speech in them")
pp.audio.player(speech[:5 * pp.audio.RATE])

# %% [markdown]
# ## A codec
#
# The same class as `lite`'s codec, much smaller, and new: nothing in it knows what sound is. Two weights are scaled by hand, because
# sounds are small numbers, and a beginner who is loud has to learn silence first.

# %%
from personaplex_lite.model.config import MimiConfig, TransformerConfig
from personaplex_lite.model.mimi import Mimi

torch.manual_seed(0)
layer = TransformerConfig(64, layers=1, heads=4, hidden=128, context=50, kind="mimi", layer_scale=0.1)
codec = Mimi(MimiConfig(64, filters=4, bins=256, codebook_dim=32, codebooks_stored=8, transformer=layer))
with torch.no_grad():
    codec.encoder.first.weight.mul_(5)
    codec.decoder.last.weight.mul_(0.1)
size = lambda model: sum(p.numel() for p in model.parameters())
print(f"{size(codec):,} parameters, {codec.config.codebooks} codes of {codec.config.bins} a frame")

# %% [markdown]
# What is a mistake? The naive answer: the difference between the two waveforms. Here is a sentence as it is, then turned upside down,
# then a millisecond late. Can you hear which is which?

# %%
test = pp.audio.read("../data/questions/price.wav")      # not among the sounds to learn from
versions = {"as it is": test, "upside down": -test, "1 ms late": test.roll(24), "silence": 0 * test}
for name, sound in versions.items():
    difference = (sound - test).abs().mean() / test.abs().mean()
    print(f"{name:12} differs by {float(difference):.1f} of the sound's size")
pp.audio.player(torch.cat(list(versions.values())[:3]))

# %% [markdown]
# An ear cannot tell them apart, and the waveform calls them *worse than silence*. A network that is trained on this distance learns to say nothing.
# So codecs are compared by spectra: how much of each pitch there is, every few milliseconds.

# %%
def spectrum(sound):
    """float [n] -> how much of each pitch: float [257, moments]"""
    return torch.stft(sound, 512, 128, window=torch.hann_window(512), return_complex=True).abs()

def draw(sound, ax, title):
    viz.new_axes(ax, 1, 1).set_title(title, fontsize=8, color=viz.INK)
    ax.imshow((spectrum(sound) + 0.01).log(), origin="lower", aspect="auto", cmap="cividis",
              vmin=-4.6, vmax=2.5, extent=(0, len(sound) / pp.audio.RATE, 0, pp.audio.RATE / 2000))

print("pitches, moments:", list(spectrum(test).shape))
draw(test, ax := viz.new_axes(None, 9, 2), "the test sentence")
label = ax.set_xlabel("seconds · upward: kHz · yellow: much", color=viz.INK, fontsize=8)

# %% [markdown]
# **Exercise 1** ●●○, 10 minutes. Write the distance. Loudness is felt in ratios, so take the logarithm of both spectra, then the mean
# absolute difference. Whatever is below 0.01 counts as 0.01: nobody hears it, and log 0 is bad company.
#
# <details><summary>Hint</summary>`clamp(min=…)` first, `log()` second.</details>

# %%
def distance(ours, theirs):
    """two sounds float [n] -> float"""
    # solution
    a, b = (spectrum(sound).clamp(min=0.01).log() for sound in (ours, theirs))
    return float((a - b).abs().mean())
    # end

# %% [markdown]
# The check: against the same sum done in numpy, and on the three versions above.

# %%
pp.check.spectral_distance(distance)

# %% [markdown]
# The recipe's own distance takes four window sizes, in bands as wide as the ear's. Two more of its tricks are needed. *The quantiser
# comes late*: for a quarter of the steps there is none, then each codebook starts from k-means on what the ones before it have left over. And *entries
# do not learn from gradients*: each drifts towards the vectors that chose it.

# %%
from personaplex_lite.training.codec import Spectra, nearest_entries, start_books
from personaplex_lite.training.common import cosine, update
from tqdm import tqdm

class Pieces:
    """Random pieces of the speech; two at most, since more would not be faster."""
    def batch(self, size, samples, step):
        at = np.random.default_rng(step).integers(len(speech) - samples, size=min(size, 2))
        return torch.stack([speech[a:a + samples] for a in at])[:, None], None

pieces, spectra = Pieces(), Spectra()
print("a batch:", list(pieces.batch(2, 12 * pp.audio.FRAME, step=0)[0].shape))

# %% [markdown]
# And we want to hear the test sentence on the way, at first without the quantiser.

# %%
@torch.no_grad()
def through(quantised):
    """The test sentence, in and out of the codec as it is now -> sound, its distance to the original"""
    latent = nearest_entries(codec.rvq, codec.latent(test[None, None]), "fixed" if quantised else "none")[0]
    sound = codec.synthesise(latent)[0, 0, :len(test)]
    return sound, float(spectra(sound[None], test[None], range(4)))

print("an untrained codec answers with", *through(False)[0].shape, "samples")

# %% [markdown]
# The whole training. The decoder gets the quantised latent, what it makes of it is compared with what went in, and the commitment asks
# the encoder to stay near the entries.

# %%
def train_codec(steps, peak=3e-3):
    """Yields the loss of each step."""
    adam = torch.optim.AdamW(codec.parameters(), peak, betas=(0.8, 0.99), weight_decay=1e-3)
    for step in tqdm(range(steps), leave=False, mininterval=10):
        if step == steps // 4:
            start_books(codec, pieces)
        mode = "none" if step < steps // 4 else "half" if step < 0.6 * steps else "all"  # of a batch
        wav, _ = pieces.batch(2, 12 * pp.audio.FRAME, step)
        latent, _, commitment = nearest_entries(codec.rvq, codec.latent(wav), mode)
        loss = spectra(codec.synthesise(latent)[:, 0], wav[:, 0], [step % 4, (step + 1) % 4])
        update(codec, adam, loss + 0.1 * commitment, cosine(step, steps, peak, warmup=30), world=1)
        yield float(loss.detach())

# %% [markdown]
# Let it run. Grey is the loss of each batch, blue the distance of the test sentence.

# %%
steps, curve, stages = 200 * EFFORT, [], {0: through(False)}
for step, loss in enumerate(train_codec(steps), 1):
    curve.append(loss)
    if step % (steps // 4) == 0:
        stages[step] = through(quantised=step > steps // 4)
ax = viz.new_axes(None, 9, 2)
ax.plot(range(1, steps + 1), curve, color=viz.INK, lw=0.5)
ax.plot(list(stages), [far for _, far in stages.values()], "o-", color=viz.AGENT)
ax.axvline(steps // 4, color=viz.INK, ls=":")
ax.set_xlabel("steps · upward: distance · dotted: the quantiser comes", color=viz.INK, fontsize=8)
print("nearer to the sentence than at first:", stages[steps][1] < 0.8 * stages[0][1])

# %% [markdown]
# Where the quantiser comes in, the blue curve makes no progress for a while: being discrete has a price. Here are the five stages as spectra
# and then as sounds, one after the other, and the original last.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 6, figsize=(11, 2), sharey=True, layout="constrained", facecolor="none")
for ax, (step, (sound, _)) in zip(axes, stages.items()):
    draw(sound, ax, f"{step} steps" + ", with codes" * (step > steps // 4))
draw(test, axes[-1], "the original")
axes[0].set_ylabel("kHz", color=viz.INK, fontsize=8)
print("the sentence is now", list(codec.encode(test).shape), "integers below", codec.config.bins)
pp.audio.player(torch.cat([*(sound for sound, _ in stages.values()), test]))

# %% [markdown]
# Ten seconds give noise in the rhythm of the sentence. **Five minutes** (`EFFORT = 25`, 5 000 steps) gave, when we tried it on one core of
# a busy machine, a distance of 0.54 and a sentence that can be understood: whisper tiny.en heard "i would like to know how much the diary
# passed", nine words of ten (one sentence, one seed). Above 8 kHz it stayed dark. The sounds to learn from were stored at 16 kHz, and a codec
# knows what it has heard.
#
# ## A language model that overhears
#
# A speech model needs conversations on the grid. We have none, but we have somebody who talks: `lite`. It is given five of the six roles
# that ship, is asked the six recorded questions, and we write down all that passes, rows and all. The sixth role is held out.

# %%
import json

agent = pp.load()                                        # or the 7B: then the pupil learns from that
asked = json.loads((pp.places.QUESTIONS / "questions.json").read_text())
ask = [pp.audio.read("../data/questions/" + a["file"]) for a in asked]
longest = (max(map(len, ask)) // pp.audio.FRAME + 38) * pp.audio.FRAME      # three seconds to answer
question = torch.stack([torch.nn.functional.pad(sound, (0, longest - len(sound))) for sound in ask])
print("questions, samples:", list(question.shape))

# %% [markdown]
# Every talk is a row of one batch: they run at the same time and know nothing of each other.

# %%
def overhear(cases):
    """(question, role, seed) each -> frames int64 [b, 17, t]"""
    who = [pp.Persona(asked[role]["voice"], asked[role]["role"]) for _, role, _ in cases]
    chat = agent.chat(who, seed=[seed for *_, seed in cases], progress=False)
    sound = question[[q for q, *_ in cases]].split(pp.audio.FRAME, dim=1)
    return torch.stack([chat.step(piece).codes for piece in sound], -1)

cases = [(n % 6, n // 6 % 5, n) for n in range(12 * EFFORT)] + [(q, 5, 0) for q in range(6)]
frames = torch.cat([overhear(cases[i:i + 18]) for i in range(0, len(cases), 18)]).to(agent.device)
talks, unseen = frames[:-6], frames[-6:]
print("talks, rows, frames:", list(talks.shape), "and held out:", list(unseen.shape))
ax = viz.plot_grid(talks[0], agent.text.words(talks[0, 0].tolist()), silence=agent.lm.config.silence)

# %% [markdown]
# The pupil is the package's own class, with everything smaller, and it has half the depth steps, since it need not guess what the user
# will say. It gets no persona either: it must find out everything from the talks.

# %%
from copy import deepcopy
from dataclasses import replace
from personaplex_lite.model.grid import delay
from personaplex_lite.model.lm import LM

torch.manual_seed(0)
pupil = LM(replace(agent.lm.config, temporal=TransformerConfig(96, 3, 4, 192, 200),
                   depth=TransformerConfig(48, 1, 4, 96, 8), depth_steps=8)).to(agent.device)
print(f"{size(pupil):,} parameters; {size(pupil) / size(agent.lm):.0%} of its teacher's")

# %% [markdown]
# Its loss is the surprise at the next token, −log p. But most tokens say that nothing is said: PAD in the text row, silence in the agent's
# sound. A model that is right about silence alone is right nearly all the time, and never speaks. So they weigh less.
#
# **Exercise 2** ●●○, 10 minutes. Write the weighted mean of the surprise: each target's −log p times its weight, over the sum of the
# weights.
#
# <details><summary>Hint 1</summary>`torch.log_softmax(logits, -1)` has a log p for every token; `gather(-1, target[:, None])` picks.
# </details>
# <details><summary>Hint 2</summary>What `gather` picks has the shape [n, 1], the weights [n].</details>

# %%
def weighted(logits, target, weight):
    """float [n, v], int64 [n], float [n] -> float"""
    # solution
    surprise = -torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0]
    return (surprise * weight).sum() / weight.sum()
    # end

# %% [markdown]
# The check: against the recipe's, with weights of all sizes.

# %%
pp.check.weighted_loss(weighted)

# %% [markdown]
# Two of these make the loss: one for the text row, one for the agent's eight rows, which the depth transformer works out from the hidden
# vector and the word. `delay` puts each row where the model will meet it.

# %%
from personaplex_lite.training.lm import cross_entropy

def losses(lm, frames):
    """frames int64 [b, 17, t] -> loss of the text row, loss of the agent's codes"""
    c, columns = lm.config, delay(frames, lm.config).mT                      # [b, 1 + t, 17]
    hidden, then = lm.hidden(columns[:, :-1]).flatten(0, 1), columns[:, 1:].flatten(0, 1)
    word, codes = then[:, 0], then[:, c.agent]
    text = cross_entropy(lm.text_head(hidden), word, torch.where(word == c.pad, 0.3, 2.0))
    whole = (codes < c.audio_vocab).all(-1)                                  # without the start tokens
    guess = lm.depth(hidden[whole], word[whole], codes[whole])
    weight = torch.where(codes[whole] == torch.tensor(c.silence, device=codes.device), 0.1, 1.0)
    return text, cross_entropy(guess.flatten(0, 1), codes[whole].flatten(), weight.flatten())

# %% [markdown]
# Train, and every few steps ask for the loss on the six talks that it never sees.

# %%
steps, every, peak = 100 * EFFORT, 5 * EFFORT, 3e-3
adam = torch.optim.AdamW(pupil.parameters(), peak, betas=(0.9, 0.95), weight_decay=0.02)
curve, pupils = [], {}
for step in tqdm(range(steps), leave=False, mininterval=10):
    if step in (0, steps // 8, steps // 4):
        pupils[step] = deepcopy(pupil)
    loss = sum(losses(pupil, talks[np.random.default_rng(step).permutation(len(talks))[:6]]))
    if step % every == 0:
        curve.append((float(loss.detach()), float(sum(losses(pupil, unseen)).detach())))
    update(pupil, adam, loss, cosine(step, steps, peak, warmup=10), world=1)
pupils[steps] = pupil
print(len(curve), "evaluations; the loss has fallen to a tenth:", curve[-1][0] < curve[0][0] / 10)

# %% [markdown]
# Which of the two curves would you trust?

# %%
def two_curves(points, every, names, unit):
    ax = viz.new_axes(None, 9, 2.2)
    for values, colour, name in zip(zip(*points), (viz.AGENT, viz.USER), names):
        ax.plot(np.arange(len(values)) * every, values, color=colour, label=name)
    ax.set_xlabel(f"steps · upward: {unit}", color=viz.INK, fontsize=8)
    ax.legend(frameon=False, labelcolor=viz.INK)

two_curves(curve, every, ("talks it learns from", "held-out talks"), "loss of text and codes")
held = [unseen_loss for _, unseen_loss in curve]
print("the held-out loss has risen again:", held[-1] > 1.1 * min(held))

# %% [markdown]
# The blue curve says: excellent. The orange one says: you should have stopped long ago. Listen to the same question, answered by the
# pupil at four moments.

# %%
greedy = replace(agent.sampling, text_temperature=0.0)

def answer(pupil, sound):
    chat = pp.Agent(pupil, agent.mimi, agent.text, sampling=greedy).chat(seed=0, progress=False)
    return chat.run(sound, progress=False, wait=3).pcm

parade = [answer(pupil, ask[0]) for pupil in pupils.values()]
print("the pupil after", *pupils, "steps")
pp.audio.player(torch.cat(parade))

# %% [markdown]
# If the last one is good, then as a recording is good: the pupil has learnt its talks by heart (it has memorised them). So ask it something that nobody has asked
# before.

# %%
stranger = sounds[6][:5 * pp.audio.RATE]
said = answer(pupil, stranger)
print("it was asked for", len(stranger) // pp.audio.RATE, "seconds")
pp.audio.player(said)

# %% [markdown]
# **Exercise 3** ●●○, 10 minutes. *Early stopping*: give up when `patience` evaluations in a row have brought nothing better, and keep the
# best one until then. Return its index. (If patience never runs out, the best of all.)
#
# <details><summary>Hint</summary>Walk through the losses and remember the index of the best; stop when you are `patience` beyond it.
# </details>

# %%
def keep(losses, patience):
    """float each, int -> index of the evaluation to keep"""
    # solution
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        elif i - best >= patience:
            break
    return best
    # end

# %% [markdown]
# The check: on curves that fall, rise, and fall again.

# %%
pp.check.early_stopping(keep)

# %% [markdown]
# **Five minutes** here are 300 talks instead of 12, and 2 500 steps. When we tried it (with the first `lite`, one seed), the held-out loss came
# down to 3.8, where 12 talks had reached 5.8, was lowest after a twentieth of the steps, and rose to 9.6 while that of the known talks
# fell to 0.02. Each of the six questions got an answer of the right kind, "we open at nine in the morning", with a fact of somebody else's:
# nobody had told the pupil a role. To the stranger it said "we name dollars know that costs six". More data helped; more steps on the
# same data did not.
#
# ## How the real recipe went
#
# `lite` was trained by the same loops, only longer and with speech that a synthesiser made for it; `docs/training-log.md` keeps what was
# tried. Its tables are all that we need for a picture.

# %%
import re

log = (pp.places.DOCS / "training-log.md").read_text(encoding="utf-8")
tables = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
          for block in re.findall(r"(?:^\|.*\n)+", log, re.M)]

def column(table, name):
    """The numbers below the heading that begins so; "1 350" is one number, "1.85 × .4" is 1.85."""
    at = [heading.startswith(name) for heading in table[0]].index(True)
    return [float(row[at].split("×")[0].replace(" ", "")) for row in table[2:]]

print("the codec's table has", *next(table for table in tables if "spectra" in table[0])[0], sep=" | ")

# %% [markdown]
# On the left the codec, in the middle what its semantic code knows of phonemes, on the right the language model: its first talks (blue) and
# what followed (orange). Where one ends and the other begins there is a cliff.

# %%
made = next(table for table in tables if "spectra" in table[0])
heart, cured = [table for table in tables if "semantic CE" in table[0]][:2]
figure, axes = plt.subplots(1, 3, figsize=(11, 2.6), layout="constrained", facecolor="none")
for ax, title, table, name, colour in (
        (axes[0], "codec: distance of the spectra", made, "spectra", viz.AGENT),
        (axes[1], "codec: phonemes, nats", made, "phoneme", viz.AGENT),
        (axes[2], "", cured, "semantic", viz.USER),
        (axes[2], "language model: semantic code, nats", heart, "semantic", viz.AGENT)):
    viz.new_axes(ax, 1, 1).plot(column(table, "step"), column(table, name), "o-", color=colour, ms=3)
    ax.set_title(title, fontsize=8, color=viz.INK)
    ax.set_xlabel("steps", color=viz.INK, fontsize=8)
print("nats, either side of the cliff:", column(heart, "semantic")[-1], column(cured, "semantic")[0])

# %% [markdown]
# Just before the cliff the blue curve looked excellent: .99 of the user's words were heard, .92 of the facts were right. Then the model was
# left to itself, and answered 4 of 18 questions. It had learnt its clips by heart, as your pupil has. The cure (orange) was more clips,
# more ways to ask, and `blur`, which spoils some of what the model reads; which of the three it was, nobody knows, they came together.
# The loss went *up*, and what was heard came back honestly. So believe a curve only on what was held out, and a speech model only when
# it speaks.
#
# **Exercise 4** ●○○, 5 minutes. Nats are hard to feel. A model that hesitates between n equally likely tokens has the loss ln n. What is n
# for a loss in nats?
#
# <details><summary>Hint</summary>Which function undoes the natural logarithm?</details>

# %%
def choices(nats):
    """a loss -> how many equally likely tokens feel the same"""
    # solution
    return np.exp(nats)
    # end

# %% [markdown]
# The check: on coins, dice, and the codebook.

# %%
pp.check.choices(choices)

# %% [markdown]
# ## Another voice for lite, with a few thousand numbers
#
# To change a trained model you need not train it all. *LoRA* adds to a weight W the product of two thin matrices, B·A, and learns only
# those. This is the whole of it: B starts at zero, so at first nothing is changed, and whatever it learns has at most `rank` directions.

# %%
from torch import nn

class LowRank(nn.Module):
    """weight [..., out, in] -> weight + B·A"""
    def __init__(self, weight, rank):
        super().__init__()
        *steps, out, inner = weight.shape
        self.a = nn.Parameter(torch.randn(*steps, rank, inner).to(weight) * inner ** -0.5)
        self.b = nn.Parameter(torch.zeros(*steps, out, rank).to(weight))
    def forward(self, weight):
        return weight + self.b @ self.a

# %% [markdown]
# It is added to one weight only. The temporal transformer decides *what* is said, so leave that alone; the depth transformer decides how it
# sounds, and `inputs` is the door through which the hidden vector enters each of its steps.

# %%
door = agent.lm.depth.inputs
torch.manual_seed(0)
adapter = LowRank(door.weight, rank=2)
print(f"for the weights {list(door.weight.shape)} it has {size(adapter):,} numbers,",
      f"{size(adapter) / size(agent.lm):.1%} of the model's")

# %% [markdown]
# The voice to learn: somebody tells a story of twenty seconds.

# %%
folder = pp.places.DATA / "duplex_mini/v1_0/icc_backchannel/2"
tale = pp.audio.read(folder / "input.wav")
told = json.loads((folder / "transcription.json").read_text())[0]["item"]
words = [(item["text"], *item["timestamp"]) for item in told]
print(len(words), "words; it begins:", *(word for word, *_ in words[:7]))
pp.audio.player(tale[:6 * pp.audio.RATE])

# %% [markdown]
# It goes where the *agent* speaks. The recipe's `Dialogue` lays it on the grid: first the prompt of a persona with another voice, then the
# story in the agent's rows, its words in the text row just before they sound. What should win, the prompt or the adapter?

# %%
from personaplex_lite.training.dialogue import Clip, Dialogue

c, persona = agent.lm.config, pp.Persona("NATF0", asked[0]["role"])
voice, role = agent.voice(persona.voice).codes.numpy(), agent.text.role(persona.role)
codes = agent.mimi.encode(tale)[0].cpu().numpy()
talk = Dialogue(c, agent.text, total=voice.shape[1] + len(role) + 12 + codes.shape[1])
talk.prompt(voice, role)
talk.frames[c.user, talk.t:] = np.array(c.silence)[:, None]
record = {"words": words, "seconds": len(tale) / pp.audio.RATE, "slots": {}}
talk.place(c.agent, Clip(codes, 0.0, record), talk.t)
print("written:", agent.text.say(talk.frames[0, talk.t:].tolist())[:60], "…")

# %% [markdown]
# The loss is the one you know, over the frames in which the story sounds. Since the temporal transformer stays as it is, its hidden vectors are
# computed once.

# %%
columns = delay(torch.from_numpy(talk.frames)[None], c).mT.to(agent.device)     # [1, 1 + t, 17]
with torch.no_grad():
    hidden, then = agent.lm.hidden(columns[:, :-1])[0], columns[0, 1:]
spoken = torch.from_numpy(talk.speaks).nonzero()[:, 0]
learnt, kept = spoken.split([len(spoken) * 4 // 5, -(-len(spoken) // 5)])        # the end is held out

def voice_loss(at):
    target = then[at, c.agent]
    guess = agent.lm.depth(hidden[at], then[at, 0], target)
    return torch.nn.functional.cross_entropy(guess.flatten(0, 1).float(), target.flatten())

print(len(learnt), "frames to learn from,", len(kept), "held out")

# %% [markdown]
# How does `lite` sound before? We put the words into its mouth, token by token, so that before and after say the same.

# %%
said = [(c.epad, *agent.text.encode(word), c.pad) for word in asked[0]["answer"].split()]
line = [token for tokens in said for token in tokens]

def speak():
    """`line` in the persona's voice -> codes int64 [17, t], sound float [n]"""
    chat = agent.chat(persona, seed=0, progress=False)
    frames = [chat.step(torch.zeros(pp.audio.FRAME), text=token) for token in line + 8 * [c.pad]]
    return torch.stack([f.codes for f in frames], -1), torch.cat([f.pcm for f in frames])

before, sound_before = speak()
print(asked[0]["answer"])
pp.audio.player(sound_before)

# %% [markdown]
# Train the adapter, and nothing else.

# %%
from torch.nn.utils import parametrize

original = {name: p.clone() for name, p in agent.lm.named_parameters()}
agent.lm.requires_grad_(False)
parametrize.register_parametrization(door, "weight", adapter)        # from now on the weight is W + B·A
adam, steps, track = torch.optim.AdamW(adapter.parameters()), 30, []
for step in range(steps):
    loss = voice_loss(learnt)
    track.append((float(loss.detach()), float(voice_loss(kept).detach())))
    update(adapter, adam, loss, cosine(step, steps, 1e-2, warmup=5), world=1)
two_curves(track, 1, ("beginning of the story", "its end, held out"), "nats a code")
print("both have fallen:", track[-1][0] < track[0][0], track[-1][1] < track[0][1])

# %% [markdown]
# Here the held-out curve falls as well: so few numbers have to learn what all frames of the story have in common. (When the curves part, even
# they begin to learn the rest by heart.) The same persona, the same words, the same dice, first without and then with the adapter:

# %%
after, sound_after = speak()
print("the same words:", bool((after[0] == before[0]).all()))
print("the same codes:", bool((after[1:9] == before[1:9]).all()))
pp.audio.player(torch.cat([sound_before, sound_after]))

# %% [markdown]
# It is a step towards the teller, not the teller: with the first `lite` a judge of voices (GE2E, this one sentence) gave 0.64 before and 0.70
# after, and 0.84 to the story itself through the codec.
#
# And the weights? They were never touched. Take the adapter out, and it is the old model, bit for bit. (Leave it in for good with
# `leave_parametrized=True`, which adds B·A to W, and it costs nothing at run time.)

# %%
parametrize.remove_parametrizations(door, "weight", leave_parametrized=False)
print("weights as before:", all(torch.equal(original[n], p) for n, p in agent.lm.named_parameters()))
print("codes as before:", bool((speak()[0] == before).all()))

# %% [markdown]
# The paper saw the same on the large model: with a quarter of the data the voice was nearly as good as with all of it (speaker similarity
# 0.54 of 0.57), while the role still gained. A voice is cheap, a role is not.
#
# **Exercise 5** ●●●, 15 minutes. Somebody trained *all* of W and gives you W' − W. Squeeze this difference into a LoRA of the given rank, as
# well as any can.
#
# <details><summary>Hint 1</summary>`u, s, v = torch.linalg.svd(d, full_matrices=False)` writes d as `u @ s.diag() @ v`, the most
# important directions first.</details>
# <details><summary>Hint 2</summary>Keep the first `rank` columns of u, values of s, rows of v. Where you put s does not matter.
# </details>

# %%
def squeeze(difference, rank):
    """float [out, in] -> B float [out, rank], A float [rank, in]"""
    # solution
    u, s, v = torch.linalg.svd(difference, full_matrices=False)
    return u[:, :rank] * s[:rank], v[:rank]
    # end

# %% [markdown]
# The check: no pair of this rank may come nearer than yours.

# %%
pp.check.squeeze(squeeze)

# %% [markdown]
# ## What we left out
#
# What makes `lite` more than a parrot: thousands of clips from synthesisers with exact word times, roles to copy facts from, a helper that
# writes down what the user says, phonemes distilled into the first codebook, bf16, several processes, checkpoints to resume from. And
# what makes the 7B more than `lite`: an adversary for the codec, all that Moshi had heard before, 3 467 hours of talk on
# top, and eight A100. A LoRA of *it* needs a GPU; we have not tried.
#
# **Where next?** [`training/codec.py`](../personaplex_lite/training/codec.py) and [`training/lm.py`](../personaplex_lite/training/lm.py) are these loops grown up,
# [the training log](../docs/training-log.md) is their diary, and [the README](../README.md) has the four commands. Then measure what you
# made: [`08_evaluate`](08_evaluate.ipynb).
