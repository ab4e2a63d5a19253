"""Long talks: what leaves the ring, what stays, who is told. And the common step, which may be captured."""
import warnings
from dataclasses import replace

import pytest
import torch

import personaplex_lite as pp
from personaplex_lite.model.lm import LM
from personaplex_lite.model.transformer import Transformer

FRAMES = torch.randn(80, 1920, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture(scope="module")
def agent(tiny_agent):
    """tiny, with room for a persona: it remembers 40 frames."""
    lm = tiny_agent.lm.config
    torch.manual_seed(0)
    model = LM(replace(lm, temporal=replace(lm.temporal, context=40))).eval().requires_grad_(False)
    return replace(tiny_agent, lm=model)


def persona(n=1):
    return pp.Persona(pp.Voice(codes=torch.arange(8)[:, None].expand(8, n) % 32))


def spoken(chat, frames=FRAMES):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.stack([f.codes for x in frames if (f := chat.step(x)) is not None])


def test_pinned_steps_stay_in_the_ring_and_the_rest_goes_round():
    config = pp.config.tiny()[0].temporal
    model = Transformer(config)
    state = model.new_state(1, pinning=True)
    for t in range(3 * config.context):
        with torch.no_grad():
            model(torch.randn(1, 1, config.dim), torch.tensor([t]), state)
        if t == 4:
            state.pin(None, torch.tensor([5]))
        seen = sorted(state.pos[0][state.pos[0] >= 0].tolist())
        if t >= config.context:
            assert seen == [*range(5), *range(t - (config.context - 5) + 1, t + 1)]


def test_a_row_that_is_not_pinned_keeps_what_it_had():
    state = Transformer(pp.config.tiny()[0].temporal).new_state(2, pinning=True)
    state.pin(None, torch.tensor([5, 6]))
    state.pin(torch.tensor([False, True]), torch.tensor([7, 8]))
    assert state.kept.tolist() == [5, 8]


def test_keeping_the_persona_changes_nothing_before_the_ring_is_full_and_something_after(agent):
    context = agent.lm.config.temporal.context
    chats = [agent.chat(persona(), greedy=True, keep_persona=keep, progress=False) for keep in (True, False)]
    begun = chats[0].calls[0]
    kept, forgot = (spoken(chat) for chat in chats)
    room = context - begun
    assert torch.equal(kept[:room], forgot[:room])
    assert not torch.equal(kept[room:], forgot[room:])


def test_with_nothing_pinned_a_pinning_ring_is_an_ordinary_one():
    torch.manual_seed(0)
    config = pp.config.tiny()[0].temporal
    model = Transformer(config)
    one, two = model.new_state(2), model.new_state(2, pinning=True)
    for t in range(2 * config.context):
        x, at = torch.randn(2, 1, config.dim), torch.tensor([t, t])
        with torch.no_grad():
            assert torch.allclose(model(x, at, one), model(x, at, two), atol=1e-6)


def test_a_persona_that_would_fill_the_ring_is_refused(agent):
    with pytest.raises(ValueError, match="keep_persona.*at most half"):
        agent.chat(persona(10), keep_persona=True)


def test_the_warning_comes_once_before_the_persona_is_lost(monkeypatch, agent):
    monkeypatch.setattr("personaplex_lite.talk.session.WARN", 5)
    chat = agent.chat(persona(), progress=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = []
        for x in FRAMES[:60]:
            chat.step(x)
            before.append(len(caught))
    assert len(caught) == 1 and "outgrows" in str(caught[0].message)
    told = before.index(1)
    assert chat.calls[0] - len(before) + told < agent.lm.config.temporal.context
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chat = agent.chat(persona(), keep_persona=True, progress=False)
        for x in FRAMES[:60]:
            chat.step(x)


def test_the_common_step_equals_the_traced_one(agent):
    """A traced session never takes the short way: both must say the same, prompt included."""
    fast, slow = (agent.chat(persona(5), seed=3, trace=trace, progress=False) for trace in (False, True))
    assert torch.equal(spoken(fast), spoken(slow))
    assert fast._round[1] is not None and slow._round[1] is None


def test_a_kept_persona_survives_save_and_fork(agent):
    chat = agent.chat(persona(), seed=5, keep_persona=True, progress=False)
    spoken(chat, FRAMES[:30])
    other = chat.fork()
    assert torch.equal(spoken(chat, FRAMES[30:]), spoken(other, FRAMES[30:]))
