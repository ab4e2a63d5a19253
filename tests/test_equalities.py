"""The parts: piece by piece equals all at once, a batch equals its rows, and memory stays where it is.

Whole conversations are in test_conversations.py. Transformers see 10 steps back and streams run for 40 and
more, so every ring is overwritten several times.
"""

import pytest
import torch

from personaplex_lite.model.config import UNGIVEN, TransformerConfig, tiny
from personaplex_lite.model.conv import CausalConv1d, CausalConvTranspose1d
from personaplex_lite.model.depth import Depth
from personaplex_lite.model.grid import delay, undelay
from personaplex_lite.model.transformer import Transformer

SIZES = [1, 2, 5, None]      # steps in a chunk; None: all at once


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def chunks(x, size, dim=-1):
    return x.split(size or x.shape[dim], dim)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pad", ["constant", "replicate"])
@pytest.mark.parametrize("kernel, stride", [(1, 1), (7, 1), (4, 2), (2, 2), (8, 4)])
def test_convolution_streams(kernel, stride, pad, size):
    conv, x = CausalConv1d(3, 4, kernel, stride, pad=pad), torch.randn(2, 3, 37 * stride)
    state = conv.new_state(2)
    streamed = torch.cat([conv(piece, state) for piece in chunks(x, size and size * stride)], -1)
    close(streamed, conv(x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel, stride", [(2, 1), (4, 2), (2, 2), (8, 4)])
def test_transposed_convolution_streams(kernel, stride, groups, size):
    conv, x = CausalConvTranspose1d(4, 4, kernel, stride, groups), torch.randn(2, 4, 37)
    conv.bias.data.normal_()
    state = conv.new_state(2)
    close(torch.cat([conv(piece, state) for piece in chunks(x, size)], -1), conv(x))


def test_convolution_refuses_half_a_stride():
    conv = CausalConv1d(1, 1, 4, 2)
    with pytest.raises(ValueError, match="multiples of 2"):
        conv(torch.zeros(1, 1, 3), conv.new_state(1))


def transformer(kind):
    config = TransformerConfig(16, 2, 2, 32, 10, kind, layer_scale=0.5)
    return Transformer(config).eval().requires_grad_(False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["lm", "mimi"])
def test_transformer_streams(kind, size):
    """Rows stand at different steps, as conversations do."""
    model, x, start = transformer(kind), torch.randn(2, 47, 16), torch.tensor([0, 1000])
    state, done, streamed = model.new_state(2, size or 47), 0, []
    for piece in chunks(x, size, 1):
        streamed.append(model(piece, start + done, state))
        done += piece.shape[1]
    close(torch.cat(streamed, 1), model(x, start))


def test_transformer_forgets_beyond_its_context():
    """Two layers of 10 steps: what lies 19 steps back cannot matter, 18 does."""
    model, start, x = transformer("lm"), torch.zeros(1, dtype=torch.int64), torch.randn(1, 30, 16)
    for back, same in ((19, True), (18, False)):
        other = x.clone()
        other[:, 29 - back] += 10
        assert torch.equal(model(x, start)[:, 29], model(other, start)[:, 29]) == same


@pytest.mark.parametrize("size", SIZES)
def test_codec_streams(tiny_agent, size):
    mimi, frames = tiny_agent.mimi, 23
    wav = torch.randn(2, 1, 1920 * frames) * 0.3
    ears, again, mouth = (make(2, size or frames) for make in (mimi.new_ears, mimi.new_ears, mimi.new_mouth))
    pieces = chunks(wav, size and 1920 * size)
    with torch.no_grad():
        close(torch.cat([mimi.latent(piece, again) for piece in pieces], 1), mimi.latent(wav))
    codes = torch.cat([mimi.encode(piece, ears) for piece in pieces], -1)
    assert codes.unique(dim=-1).shape[-1] > 5, "a codec that says one thing proves nothing"
    assert torch.equal(codes, mimi.encode(wav))
    codes = torch.randint(0, 32, (2, 8, frames))
    close(torch.cat([mimi.decode(piece, mouth) for piece in chunks(codes, size)], -1), mimi.decode(codes))


def test_language_model_streams(tiny_agent):
    lm, n = tiny_agent.lm, 4 * tiny_agent.lm.config.temporal.context
    columns = torch.stack([torch.randint(-1, top + 1, (2, n)) for top in lm.config.initial], -1)
    state = lm.new_state(2)
    with torch.no_grad():
        hidden = lm.hidden(columns)
        for t in range(n):
            h, text = lm.step(lm.embed(columns[:, t]), torch.full((2,), t), state)
            close(h, hidden[:, t])
            close(text, lm.text_head(hidden[:, t]))


@pytest.mark.parametrize("steps", [8, 16])
def test_depth_draws_from_the_logits_it_trains(steps):
    depth, n = Depth(tiny()[0]).requires_grad_(False), 5
    hidden, text, logits = torch.randn(n, 32), torch.randint(0, 60, (n,)), []

    def draw(k, row):
        logits.append(row)
        return torch.randint(0, 32, (n,))
    forced = torch.where(torch.rand(n, 16) < 0.5, torch.randint(0, 32, (n, 16)), UNGIVEN)
    drawn = depth.sample(hidden, text, forced, draw, steps)
    told = torch.where(forced[:, :steps] == UNGIVEN, drawn, forced[:, :steps])
    close(torch.stack(logits, 1), depth(hidden, text, told))


def schedule(step):
    """Which of three rows move: the second starts late, the third pauses."""
    return torch.tensor([True, step >= 4, not 6 <= step < 10])


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_codec_rows_are_independent(tiny_agent, way):
    """Against three streams of one row; the first row is reset after 12 frames."""
    mimi = tiny_agent.mimi
    new = mimi.new_ears if way == "encode" else mimi.new_mouth
    run = getattr(mimi, way)
    frames = torch.randn(30, 3, 1, 1920) if way == "encode" else torch.randint(0, 32, (30, 3, 8, 1))
    batch, single = new(3), [new(1) for _ in range(3)]
    for step, x in enumerate(frames):
        if step == 12:
            batch.reset(torch.tensor([True, False, False]))
            single[0] = new(1)
        active = schedule(step)
        out = run(x, batch, active)
        for row in active.nonzero()[:, 0].tolist():
            close(out[row], run(x[row:row + 1], single[row])[0])
    assert batch.t.tolist() == [36, 52, 52]


def test_transformer_rows_are_independent():
    model, x = transformer("lm"), torch.randn(40, 3, 1, 16)
    batch, single = model.new_state(3), [model.new_state(1) for _ in range(3)]
    t = torch.zeros(3, dtype=torch.int64)
    for step in range(40):
        if step == 12:
            batch.reset(torch.tensor([True, False, False]))
            single[0], t[0] = model.new_state(1), 0
        active = schedule(step)
        out = model(x[step], t, batch, active)
        for row in active.nonzero()[:, 0].tolist():
            close(out[row:row + 1], model(x[step, row:row + 1], t[row:row + 1], single[row]))
        t += active


def test_reset_touches_only_its_rows(tiny_agent):
    fresh, state = tiny_agent.mimi.new_ears(3), tiny_agent.mimi.new_ears(3)
    for tensor in state.tensors().values():
        tensor.fill_(1)
    before = state.snapshot()
    state.reset(torch.tensor([True, False, True]))
    for name, tensor, meta in state.slots():
        three = tensor, before[name], fresh.tensors()[name]
        now, then, empty = (x.movedim(meta["row_dim"], 0) for x in three)
        assert torch.equal(now[1], then[1]) and torch.equal(now[::2], empty[::2]), name
    state.reset()
    assert all(torch.equal(a, b) for a, b in zip(state.tensors().values(), fresh.tensors().values()))


def test_restore_refuses_another_batch(tiny_agent):
    one, two = tiny_agent.mimi.new_ears(1), tiny_agent.mimi.new_ears(2)
    tiny_agent.mimi.encode(torch.randn(2, 1, 1920), two)
    before = two.snapshot()
    with pytest.raises(ValueError, match="another model or batch"):
        two.restore(one.snapshot())
    assert all(torch.equal(before[n], t) for n, t in two.tensors().items())
    one.restore(tiny_agent.mimi.new_ears(1).snapshot())


def test_delay_and_back():
    config = tiny()[0]
    frames = torch.randint(0, 32, (2, 17, 20))
    grid = delay(frames, config)
    assert grid.shape == (2, 17, 21) and grid[0, :, 0].tolist() == list(config.initial)
    back = undelay(grid[..., 1:], config, fill=-7)
    late = torch.tensor(config.delays) > 0
    assert torch.equal(back[..., :-1], frames[..., :-1])
    assert torch.equal(back[:, ~late, -1], frames[:, ~late, -1])
    assert (back[:, late, -1] == -7).all()
