"""A GPU's rules, kept on a CPU: a frame that was recorded once must be right when only its kernels run again,
and a frame at full size must never ask the host.

`Tape` is a CUDA graph made of aten calls: Python runs once, then the calls alone are repeated. Each rule is
shown to find the fault that it is there for (`PLANTS`).
"""
import contextlib
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import personaplex_lite as pp
from personaplex_lite.model import checks, quantize, transformer
from personaplex_lite.model.config import SamplingConfig, TransformerConfig, personaplex_7b, tiny
from personaplex_lite.model.lm import LM
from personaplex_lite.model.mimi import Mimi
from personaplex_lite.weights.checkpoint import empty_lm

ASKS_THE_HOST = torch.ops.aten._local_scalar_dense.default


def tensors(tree):
    """Every tensor in a nest of tuples, lists and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Tape(TorchDispatchMode):
    """Keeps every aten call that computes something; `replay` runs the calls again, into the same memory."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert op is not ASKS_THE_HOST, "the host waits for a number: not allowed in a graph"
        out = op(*args, **kwargs)
        is_view = any(result.alias_info for result in op._schema.returns)
        if op._schema.is_mutable or not is_view:
            self.calls.append((op, args, kwargs, tensors(out)))
        return out

    @torch.no_grad()
    def replay(self):
        for op, args, kwargs, outs in self.calls:
            got = op(*args, **kwargs)
            for old, new in zip(outs, tensors(got)):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextlib.contextmanager
def record(tape, **_):
    tape.calls = []
    with tape:
        yield
    # on a card nothing has been computed yet
    for op, _, _, outs in tape.calls:
        for tensor in outs if not op._schema.is_mutable else ():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)


class Stream:
    def wait_stream(self, _):
        pass


@pytest.fixture
def card(monkeypatch):
    """torch.cuda as far as graphs.py needs it. Every tensor says is_cuda, so a GPU's branches are taken."""
    pretended = {"Stream": Stream, "current_stream": lambda *_: Stream(), "CUDAGraph": Tape, "graph": record,
                 "stream": lambda _: contextlib.nullcontext(), "device": lambda _: contextlib.nullcontext()}
    for name, what in pretended.items():
        monkeypatch.setattr(torch.cuda, name, what)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr(transformer.KVState, "used", lambda self, _: self.pos.shape[1])
    for check in ("sound", "codes"):                    # values are looked at on a CPU only
        monkeypatch.setattr(checks, check, lambda x, *_: x)


def agent(kind="f32"):
    """Random weights, small; large enough for int8 and int4."""
    torch.manual_seed(1)
    lm, mimi = tiny()
    if kind in quantize.KINDS:
        temporal, depth = TransformerConfig(32, 2, 2, 64, 24), TransformerConfig(32, 2, 2, 32, 16)
        lm = replace(lm, temporal=temporal, depth=depth)
    model = LM(lm).eval().requires_grad_(False)
    if kind in quantize.KINDS:
        small = LM(lm).eval().requires_grad_(False)
        quantize.prepare(small, kind)
        for (_, old), (_, new) in zip(model.named_modules(), small.named_modules()):
            if isinstance(new, quantize.QuantLinear):
                for part, matrix in enumerate(old.weight.view(-1, *new.shape)):
                    new.fill(matrix, part)
        model = small
    elif kind == "bf16":
        model = model.bfloat16()
    return pp.Agent(model, Mimi(mimi).eval().requires_grad_(False))


def sounds(rows, frames, seed=0):
    return 0.1 * torch.randn(frames, rows, 1920, generator=torch.Generator().manual_seed(seed))


def talk(chat, frames=16, seed=0):
    """Tokens of the frames that complete."""
    made = map(chat.step, sounds(chat.rows, frames, seed))
    return [frame.codes.clone() for frame in made if frame]


def interrupted(chat):
    """A talk with everything in it that a person does between two frames."""
    codes = talk(chat, 6)
    here = chat.save()
    codes += talk(chat, 4, seed=1)
    chat.restore(here)
    codes += talk(chat, 4, seed=2)
    codes += talk(chat.fork(seed=9), 5, seed=3)
    active = torch.tensor([row % 2 == 0 for row in range(chat.rows)])
    held = [chat.step(sound, active=active) for sound in sounds(chat.rows, 2, seed=4)]
    codes += [frame.codes.clone() for frame in held if frame]
    chat.step(torch.zeros(chat.rows, 8, dtype=torch.int64), text=5)
    codes += talk(chat, 3, seed=5)
    chat.sampling = SamplingConfig(0.5, 7, 0.3, 4)
    codes += talk(chat, 4, seed=6)
    chat.reset(chat.rows - 1, pp.Persona(), seed=4)
    return codes + talk(chat, 8, seed=7)


OPTIONS = [{}, {"rows": 3}, {"keep_persona": True}, {"ring": "official"}, {"trace": True},
           {"predict_user": True}, {"greedy": True}]


def chats(options, kind):
    """The same conversation twice: captured, and eager."""
    options = dict(options)
    rows = options.pop("rows", 1)
    nobody = [pp.Persona()] * rows
    made = [agent(kind).chat(nobody, list(range(rows)), progress=False, **options) for _ in "12"]
    made[1]._steady = lambda: False
    return made


@pytest.mark.parametrize("kind", ["f32", "bf16", *quantize.KINDS])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_replayed_is_what_is_computed(card, options, kind):
    captured, eager = chats(options, kind)
    ours, wanted = interrupted(captured), interrupted(eager)
    assert len(ours) == len(wanted) and all(map(torch.equal, ours, wanted))
    never = options.keys() & {"trace", "predict_user"}          # these take the eager road
    assert never or captured._round[1].__name__ == "replay"


PLANTS = {
    "item": lambda x, columns: x * (1 + 0 * int(columns.max())),
    "a host's tensor": lambda x, columns: x + torch.zeros(x.shape[-1], dtype=x.dtype),
    "a host's index": lambda x, columns: x[torch.arange(len(x))],
    "made of a number": lambda x, columns: x + torch.tensor(0.0, device=x.device),
    "a counter": lambda x, columns: x * (1 + 0.05 * count()),
    "a boolean mask": lambda x, columns: x + columns[columns >= 0].sum() * 0,
    "a branch": lambda x, columns: x * 2 if (columns > 5).all() else x,
}
CALLS = []


def count():
    CALLS.append(1)
    return len(CALLS)


def full_size_frame(monkeypatch, kind):
    """One frame of the 7B on "meta", where there are no values: whatever needs one raises."""
    monkeypatch.setattr(quantize, "product", lambda kind, x, q, scale: x.new_empty(len(x), q.shape[0]))
    lm, mimi = personaplex_7b()
    with torch.device("meta"):
        codec = Mimi(mimi)
    chat = pp.Agent(empty_lm(lm, torch.bfloat16, kind), codec).chat(pp.Persona(), progress=False)
    monkeypatch.setattr(torch, "tensor", None)          # that, too, is a copy from the host
    with Strict():
        return chat._listen_and_speak(torch.empty(1, 1, 1920, device="meta"))


class Strict(TorchDispatchMode):
    """No tensor of the host's, and none made from Python numbers: either would be a copy to the card."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        assert all(t.is_meta for t in tensors((args, kwargs, out))), op
        return out


@pytest.mark.parametrize("kind", [None, *quantize.KINDS])
def test_a_full_size_frame_never_asks_the_host(monkeypatch, kind):
    assert full_size_frame(monkeypatch, kind).shape == (1, 1920 + 17)


def both_rules(monkeypatch, request):
    """Raises where one of the two rules finds something."""
    with monkeypatch.context() as patch:
        full_size_frame(patch, None)
    request.getfixturevalue("card")
    captured, eager = chats({}, "f32")
    assert all(map(torch.equal, talk(captured), talk(eager))), "the replayed tokens differ"


@pytest.mark.parametrize("plant", [*PLANTS, "moved state"])
def test_each_planted_fault_is_found(monkeypatch, request, plant):
    if plant == "moved state":
        real = transformer.KVState.claim

        def claim(self, positions, active):
            object.__setattr__(self, "pos", self.pos.clone())
            return real(self, positions, active)
        monkeypatch.setattr(transformer.KVState, "claim", claim)
    else:
        real = LM.embed
        monkeypatch.setattr(LM, "embed", lambda self, columns: PLANTS[plant](real(self, columns), columns))
    with pytest.raises((AssertionError, RuntimeError, TypeError, NotImplementedError)):
        both_rules(monkeypatch, request)


def test_without_a_plant_nothing_is_found(monkeypatch, request):
    both_rules(monkeypatch, request)


def test_a_failed_capture_leaves_the_talk_as_it_was(card, monkeypatch):
    captured, eager = chats({}, "f32")

    @contextlib.contextmanager
    def full(*_, **__):
        yield
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(torch.cuda, "graph", full)
    with pytest.warns(UserWarning, match="one kernel at a time"):
        ours = talk(captured)
    assert all(map(torch.equal, ours, talk(eager)))


def test_a_capture_knows_its_card_its_stream_and_its_mode(card, monkeypatch):
    seen = {}

    @contextlib.contextmanager
    def graph(tape, **options):
        seen.update(options)
        with record(tape):
            yield
    monkeypatch.setattr(torch.cuda, "graph", graph)
    entered = contextlib.nullcontext()
    monkeypatch.setattr(torch.cuda, "device", lambda which: seen.update(card=which) or entered)
    talk(chats({}, "f32")[0])
    assert isinstance(seen["stream"], Stream) and seen["capture_error_mode"] == "thread_local"
    assert seen["card"] == torch.device("cpu")


def test_new_temperatures_of_the_same_values_need_no_new_graph(card):
    chat = chats({}, "f32")[0]
    talk(chat)
    graph = chat._round[1]
    chat.sampling = replace(chat.sampling)
    talk(chat)
    assert chat._round[1] is graph
