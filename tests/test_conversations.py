"""Whole conversations: alone or in a batch, saved, restored, forked, paused, seeded, and for a long time."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

import personaplex_lite as pp
from personaplex_lite.model.lm import LM
from personaplex_lite.talk.persona import Voice
from personaplex_lite.weights.checkpoint import official_tensors

VOICE = Voice(codes=torch.arange(8 * 4).view(8, 4), name="mine")
PERSONAS = [pp.Persona(role="you"), pp.Persona(), pp.Persona(VOICE, "me")]    # prompts: 17, 0 and 21 frames


def chat(agent, persona=PERSONAS[0], seed=7, **options):
    return agent.chat(persona, seed, **options)


def talk(session, sounds, **options):
    return [session.step(sound, **options) for sound in sounds]


def equal(one, two, start=0):
    """The same frames, to the last bit."""
    one, two = one[start:], two[start:]

    def same(a, b):
        if a is None or b is None:
            return a is b
        return torch.equal(a.codes, b.codes) and torch.equal(a.pcm, b.pcm) and a.t == b.t
    return len(one) == len(two) and all(map(same, one, two))


def test_first_frames(tiny_agent, sounds):
    frames = talk(chat(tiny_agent, pp.Persona()), sounds[:5, 0])
    assert frames[:2] == [None, None] and [f.t for f in frames[2:]] == [2, 3, 4]
    prompted = talk(chat(tiny_agent), sounds[:5, 0])
    assert [f.t for f in prompted] == [0, 1, 2, 3, 4]
    assert prompted[0].pcm.shape == (1920,) and prompted[0].codes.shape == (17,)


def rows_of_batch(session, sounds, schedule, reset):
    """What each row of a batch says, frame by frame; a row takes its own next sound when it is active."""
    said, heard = [[] for _ in range(3)], [0, 0, 0]
    for step in range(45):
        if step == reset:
            session.reset(0, PERSONAS[2], seed=99)
            said[0].append("reset")
        active = schedule(step)
        frame = session.step(torch.stack([sounds[heard[row], row] for row in range(3)]), active=active)
        for row in active.nonzero()[:, 0].tolist():
            heard[row] += 1
            said[row].append(frame and (frame.codes[row], frame.pcm[row], frame.t[row]))
    return said


def test_batch_equals_its_rows(tiny_agent, sounds):
    """Prompts of different lengths, one row starts late, one pauses, one is reset; each has its dice."""
    def schedule(step):
        return torch.tensor([True, step >= 4, not 10 <= step < 15])
    said = rows_of_batch(tiny_agent.chat(PERSONAS, seed=[5, 6, 7]), sounds, schedule, reset=30)
    for row in range(3):
        alone, i = chat(tiny_agent, PERSONAS[row], 5 + row), 0
        for theirs in said[row]:
            if theirs == "reset":
                alone = chat(tiny_agent, PERSONAS[2], 99)
                continue
            frame, i = alone.step(sounds[i, row]), i + 1
            if frame is not None:
                assert torch.equal(frame.codes, theirs[0]) and frame.t == theirs[2]
                torch.testing.assert_close(frame.pcm, theirs[1], atol=2e-5, rtol=1e-4)
        assert i == (45, 41, 40)[row]


def test_batch_equals_its_rows_when_users_are_imagined(tiny_agent):
    """A row that paused after a step without a user still owes that user's delayed codes, and what was given
    while it paused is not for it.
    """
    codes = torch.randint(0, 32, (35, 2, 8))
    batch = tiny_agent.chat([pp.Persona()] * 2, seed=[1, 2])
    alone = [chat(tiny_agent, pp.Persona(), i) for i in (1, 2)]
    # is there a user; does the first row move, does the second
    turns = [(0, 1, 1), (1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    for step in range(35):
        user, *active = turns[step % 7]
        frame = batch.step(codes[step] if user else None, active=torch.tensor(active).bool())
        for row in (r for r in range(2) if active[r]):
            single = alone[row].step(codes[step, row] if user else None)
            if single is not None:
                assert torch.equal(single.codes, frame.codes[row]) and (single.codes >= 0).all(), (step, row)


def test_save_and_restore(tiny_agent, sounds):
    session = chat(tiny_agent)
    talk(session, sounds[:10, 0])
    here = session.save()
    one = talk(session, sounds[10:50, 0])
    session.restore(here)
    two = talk(session, sounds[10:50, 0])
    assert equal(one, two)
    other = chat(tiny_agent, pp.Persona(), seed=1)      # a moment may be restored elsewhere, too
    other.restore(here)
    assert equal(one, talk(other, sounds[10:50, 0]))


def test_save_in_the_middle_of_an_imagined_user(tiny_agent, sounds):
    session = chat(tiny_agent)
    talk(session, [None] * 5)
    here = session.save()
    one = talk(session, sounds[:20, 0])
    session.restore(here)
    assert equal(one, talk(session, sounds[:20, 0]))


def test_restore_refuses_a_batch(tiny_agent):
    session = chat(tiny_agent)
    with pytest.raises(ValueError, match="another model or batch"):
        session.restore(tiny_agent.chat([pp.Persona()] * 2).save())


def test_fork(tiny_agent, sounds):
    session = chat(tiny_agent)
    talk(session, sounds[:10, 0])
    twin, stranger, told = session.fork(), session.fork(seed=8), session.fork(persona=PERSONAS[2])
    assert told.step(sounds[10, 0]).t == 0
    one = talk(session, sounds[10:50, 0])
    assert equal(one, talk(twin, sounds[10:50, 0]))
    assert not equal(one, talk(stranger, sounds[10:50, 0]))
    assert twin.agent.lm is session.agent.lm
    moved = {t.data_ptr() for t in session.state.tensors().values() if t.numel()}
    assert not moved & {t.data_ptr() for t in twin.state.tensors().values() if t.numel()}


def test_one_seed_is_one_conversation(tiny_agent, sounds):
    torch.manual_seed(1)
    one = talk(chat(tiny_agent), sounds[:40, 0])
    torch.manual_seed(2)
    session, noise, two = chat(tiny_agent), chat(tiny_agent, seed=100), []
    for sound in sounds[:40, 0]:
        noise.step(sound)                               # another conversation, and other dice, in between
        torch.rand(3)
        two.append(session.step(sound))
    assert equal(one, two)
    assert not equal(one, talk(chat(tiny_agent, seed=8), sounds[:40, 0]))
    greedy = [talk(chat(tiny_agent, seed=seed, greedy=True), sounds[:20, 0]) for seed in (1, 2)]
    assert equal(*greedy)


def test_guessing_the_user_changes_nothing(tiny_agent, sounds):
    plain, curious = (talk(chat(tiny_agent, predict_user=p, trace=True), sounds[:30, 0])
                      for p in (False, True))
    assert equal(plain, curious)
    assert plain[5].trace.audio_logits.shape[1] == 8 and curious[5].trace.audio_logits.shape[1] == 16
    assert len(curious[5].trace.entropy()) == 17 and len(curious[5].trace.top(3)) == 3


def test_the_model_can_imagine_the_user(tiny_agent):
    frames = talk(chat(tiny_agent), [None] * 40)
    codes = torch.stack([f.codes for f in frames])
    assert (codes >= 0).all() and (codes[2:, 1:] < 32).all() and codes[5:, 9:].unique().numel() > 5


def test_forced_tokens_are_said(tiny_agent):
    session = chat(tiny_agent)
    (agent, user), text = torch.randint(0, 32, (2, 10, 8)), torch.randint(0, 60, (10,))
    frames = [session.step(u, a, t) for u, a, t in zip(user, agent, text)]
    said = torch.stack([f.codes for f in frames])[1:]       # one column later, when the delayed codes are in
    assert torch.equal(said, torch.cat([text[:, None], agent, user], 1)[:9])


def test_memory_stays_where_it_is(tiny_agent, sounds):
    session = chat(tiny_agent)

    def addresses():
        return [t.data_ptr() for t in session.state.tensors().values()]
    before = addresses()
    talk(session, sounds[:25, 0])
    here = session.save()
    talk(session, sounds[25:50, 0])
    session.restore(here)
    session.reset(0, PERSONAS[2], seed=3)
    session.state.reset()
    assert addresses() == before


def test_memory_stays_constant(tiny_agent):
    session = chat(tiny_agent, trace=True)
    sound = torch.randn(1920) * 0.1

    def measure(frames):
        for _ in range(frames):
            session.step(sound)
        gc.collect()
        kept = gc.get_objects()
        return session.state.nbytes, sum(issubclass(type(o), torch.Tensor) for o in kept), len(kept)
    measure(10)
    first, last = measure(10), measure(3 * tiny_agent.lm.config.temporal.context)
    assert first[:2] == last[:2] and abs(last[2] - first[2]) < 20


def test_weights_stay_as_they_are(tiny_agent, sounds):
    before = {n: t.clone() for n, t in official_tensors(tiny_agent.lm).items()}
    talk(chat(tiny_agent), sounds[:5, 0])
    assert all(torch.equal(before[n], t) for n, t in official_tensors(tiny_agent.lm).items())


def test_progress_is_shown_while_a_long_persona_is_read(tiny_agent, capsys):
    chat(tiny_agent, PERSONAS[2])
    assert "reading the persona" in capsys.readouterr().err
    chat(tiny_agent, PERSONAS[2], progress=False)
    chat(tiny_agent, PERSONAS[0])                       # 17 frames: over before a bar could be read
    assert not capsys.readouterr().err


def test_prompt_is_heard_and_not_said(tiny_agent, sounds):
    """The role and the voice change what follows; a reset row begins like a new conversation."""
    plain, told = (talk(chat(tiny_agent, p, 7), sounds[:20, 0]) for p in (PERSONAS[0], PERSONAS[2]))
    assert not equal(plain, told, 2)
    session = chat(tiny_agent, pp.Persona(), 1)
    talk(session, sounds[:10, 1])
    session.reset(0, PERSONAS[2], seed=7)
    assert equal(told, talk(session, sounds[:20, 0]))


def test_run_and_stream_agree(tiny_agent, sounds):
    wav = sounds[:6, 0].flatten()[:-500]
    reply = chat(tiny_agent).run(wav, wait=0.4, progress=False)
    frames = list(chat(tiny_agent).stream(wav, wait=0.4))
    assert len(frames) == 11 and equal(reply.frames, frames)
    assert reply.pcm.shape == reply.user.shape == (11 * 1920,) and reply.codes.shape == (17, 11)


def test_a_batch_run_equals_the_single_runs(tiny_agent, sounds):
    """Recordings of different lengths, none of whole frames; one row has no prompt."""
    wavs = [sounds[:n, row].flatten()[:-300] for row, n in enumerate((20, 3, 9))]
    for wait in (0, 0.4):
        replies = tiny_agent.chat(PERSONAS, [5, 6, 7]).run(wavs, wait=wait, progress=False)
        for row, (wav, reply) in enumerate(zip(wavs, replies)):
            alone = chat(tiny_agent, PERSONAS[row], 5 + row).run(wav, wait=wait, progress=False)
            assert np.array_equal(alone.codes, reply.codes)
            assert [f.t for f in alone.frames] == [f.t for f in reply.frames]
            assert alone.words == reply.words and torch.equal(alone.user, reply.user)
            torch.testing.assert_close(alone.pcm, reply.pcm, atol=2e-5, rtol=1e-4)


def test_an_answer_of_a_batch_ends_when_it_has_been_quiet(tiny_agent, sounds, monkeypatch):
    monkeypatch.setattr("personaplex_lite.talk.session.PATIENCE", 2)
    lm = LM(tiny_agent.lm.config).eval().requires_grad_(False)
    lm.load_state_dict(tiny_agent.lm.state_dict())
    lm.text_head.weight.zero_()                             # any of the likeliest tokens, PAD among them
    agent = replace(tiny_agent, lm=lm, sampling=pp.SamplingConfig(text_top_k=4))
    wavs = [sounds[:n, row].flatten() for row, n in enumerate((4, 2, 9))]
    replies = agent.chat(PERSONAS, [5, 6, 7]).run(wavs, progress=False)
    lengths = [len(reply.frames) for reply in replies]
    alone = [chat(agent, PERSONAS[row], 5 + row).run(wavs[row], progress=False) for row in range(3)]
    assert lengths == [len(reply.frames) for reply in alone] and len(set(lengths)) == 3, lengths
    assert all(np.array_equal(one.codes, two.codes) for one, two in zip(alone, replies))
    assert len(chat(agent).run([wavs[0]], wait=0, progress=False)) == 1
    with pytest.raises(ValueError, match="2 sound"):
        agent.chat(PERSONAS, [5, 6, 7]).run(wavs[:2])


def test_eight_depth_steps_need_a_user(tiny_agent, sounds):
    """Moshiko's shape: it talks, but cannot imagine who it talks to."""
    config = tiny_agent.lm.config
    config = replace(config, depth_steps=8, depth=replace(config.depth, context=8))
    session = chat(replace(tiny_agent, lm=LM(config).eval().requires_grad_(False)))
    first = session.step(sounds[0, 0])
    with pytest.raises(ValueError, match="no depth steps for the user"):
        session.step()
    assert first is not None and session.step(sounds[1, 0]).t == 1


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), True, 3.0, "3", None, 2**63, -(2**63) - 1])
def test_a_seed_is_a_whole_number_of_any_kind(tiny_agent, seed):
    chat = tiny_agent.chat(seed=3)
    if isinstance(seed, np.integer):
        assert tiny_agent.chat(seed=seed).seeds == [3] == tiny_agent.chat([pp.Persona()], [seed]).seeds
        return
    for call in (lambda: tiny_agent.chat(seed=seed), lambda: chat.reset(0, pp.Persona(), seed)):
        with pytest.raises(ValueError, match="whole number"):
            call()
    if seed is not None:                                    # a fork's None: the same seed goes on
        with pytest.raises(ValueError, match="whole number"):
            chat.fork(seed)
    assert chat.seeds == [3] and int(chat.state.seed) == 3


def test_who_it_is_travels_with_the_conversation(tiny_agent):
    anna, peter = pp.Persona(role="you are anna"), pp.Persona(role="you are peter")
    chat = tiny_agent.chat(anna, seed=1, progress=False)
    assert (chat.fork().personas, chat.fork().seeds) == ([anna], [1])
    other = chat.fork(seed=2, persona=peter, progress=False)
    assert (other.personas, other.seeds, chat.personas) == ([peter], [2], [anna])
    chat.reset(0, peter, 5, progress=False)
    assert (chat.personas, chat.seeds) == ([peter], [5])
