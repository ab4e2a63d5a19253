"""Quantised weights: how far they lie from the originals, and that every way to multiply by them agrees.

The bounds come from the formats: half a step for the nearest number, and 2^-8 for what bf16 scales round off.
"""
from dataclasses import replace

import pytest
import torch
from torch import nn

import personaplex_lite as pp
from personaplex_lite import kernels
from personaplex_lite.model import quantize
from personaplex_lite.model.config import NO_INPUT, UNGIVEN
from personaplex_lite.model.depth import PerStep
from personaplex_lite.model.lm import LM
from personaplex_lite.model.quantize import GROUP, KINDS, QuantLinear

OUT, INNER, PARTS = 48, 96, 3


def matrix(out=OUT, inner=INNER, spread=0.05):
    return torch.randn(out, inner) * spread + 0.02


def exact(q, scale):
    """What the numbers stand for, no rounding on the way."""
    return quantize.dequantise(q, scale.float())


def off(a, b):
    """How far a lies from b, as a share of b."""
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.fixture(scope="module")
def models():
    """A small LM with widths that int4 takes, as it is and quantised: {None, "int8", "int4"} -> LM."""
    config = pp.config.tiny()[0]
    config = replace(config, temporal=replace(config.temporal, dim=64, hidden=96),
                     depth=replace(config.depth, dim=32, hidden=64))
    torch.manual_seed(0)
    plain = LM(config).eval().requires_grad_(False)
    return {None: plain} | {kind: quantised(plain, kind) for kind in KINDS}


def quantised(plain, kind):
    model = LM(plain.config)
    quantize.prepare(model, kind)
    weights = plain.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            for part, weight in enumerate(weights.pop(f"{name}.weight").view(-1, *module.shape)):
                module.fill(weight, part)
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys and all(n.endswith((".q", ".scale")) for n in left.missing_keys)
    return model.eval().requires_grad_(False)


def test_int8_is_within_half_a_step_of_its_row():
    w = matrix() * torch.logspace(-3, 1, OUT)[:, None]         # rows of very different sizes
    q, scale = quantize.quantise(w, "int8")
    assert q.dtype == torch.int8 and scale.dtype == torch.bfloat16 and scale.shape == (OUT,)
    assert ((exact(q, scale) - w).abs() <= 0.501 * scale.float()[:, None]).all()
    assert (q.abs().amax(1) >= 126).all()                        # the whole range is used


def test_int4_is_within_half_a_step_of_its_group():
    w = matrix() * torch.logspace(-3, 1, INNER // GROUP).repeat_interleave(GROUP)
    q, scale = quantize.quantise(w, "int4")
    assert q.dtype == torch.uint8 and q.shape == (OUT, INNER // 2)
    assert scale.dtype == torch.bfloat16 and scale.shape == (INNER // GROUP, OUT, 2)
    step, middle = scale.float().repeat_interleave(GROUP, 0).permute(2, 1, 0)      # [o, i] each
    assert ((exact(q, scale) - w).abs() <= step * (0.5 + 15 / 256) + middle.abs() / 256).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_matrix_is_what_its_bits_allow(kind):
    w = matrix(256, 512)
    share = off(exact(*quantize.quantise(w, kind)), w)
    assert {"int8": 0.004, "int4": 0.05}[kind] < share < {"int8": 0.01, "int4": 0.10}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_and_constants_come_back(kind):
    for value in (0.0, -0.25):
        again = exact(*quantize.quantise(torch.full((16, 64), value), kind))
        assert torch.allclose(again, torch.full((16, 64), value), rtol=0.01, atol=1e-9)


def test_two_int4_numbers_share_a_byte_the_first_in_its_low_half():
    w = torch.zeros(16, GROUP)
    w[:, 0], w[:, 1] = -7.0, 8.0
    q, _ = quantize.quantise(w, "int4")
    assert q[:, 0].unique().tolist() == [0 | 15 << 4]


@pytest.mark.parametrize("rows", range(1, 6))
@pytest.mark.parametrize("parts", [1, PARTS])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_formula_and_plain_product_agree(kind, parts, rows):
    module, weights = QuantLinear(kind, OUT, INNER, parts), [matrix() for _ in range(parts)]
    for part, w in enumerate(weights):
        module.fill(w, part)
    x = torch.randn(parts, rows, INNER)
    y = module(x)
    assert y.dtype == x.dtype and y.shape == (parts, rows, OUT)
    for part, w in enumerate(weights):
        stored = quantize.quantise(w, kind)
        want = x[part].double() @ exact(*stored).double().T
        assert off(y[part], want) < 0.01
        assert off(quantize.formula(x[part].bfloat16(), *stored), want) < 0.01
        assert off(module.at(part, x[part]), want) < 0.01
        assert off(want, x[part] @ w.T) < {"int8": 0.02, "int4": 0.15}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_steps_than_parts_and_leading_dimensions(kind):
    module, x = QuantLinear(kind, OUT, INNER, PARTS), torch.randn(2, 4, INNER)
    for part in range(PARTS):
        module.fill(matrix(), part)
    assert module(x).shape == (2, 4, OUT)
    assert torch.equal(module(x)[1], module.at(1, x[1]))
    single = QuantLinear(kind, OUT, INNER)
    single.fill(matrix())
    assert off(single(x)[1], single(x[1])) < 0.01 and single(x).shape == (2, 4, OUT)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_numbers_put_later_are_the_ones_filled_now(kind):
    now, later = QuantLinear(kind, OUT, INNER, PARTS), QuantLinear(kind, OUT, INNER, PARTS)
    weights = [matrix() for _ in range(PARTS)]
    for part, w in enumerate(weights):
        now.fill(w, part)
    stored = [tuple(t.clone() for t in quantize.quantise(w, kind)) for w in weights]
    for part in (2, 0, 1):                                       # a part is put in its own place only
        later.put(*stored[part], part)
    assert torch.equal(now.q, later.q) and torch.equal(now.scale, later.scale)
    x = torch.randn(PARTS, 2, INNER)
    assert torch.equal(now(x), later(x)) and off(now(x)[0], now(x)[1]) > 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_change_of_type_leaves_the_scales_alone(kind, dtype):
    module = QuantLinear(kind, OUT, INNER)
    module.fill(matrix())
    q, scale, x = module.q.clone(), module.scale.clone(), torch.randn(2, INNER)
    before = module(x)
    nn.Sequential(module).to(dtype)
    assert module.scale.dtype == torch.bfloat16
    assert torch.equal(module.q, q) and torch.equal(module.scale, scale)
    assert module(x.to(dtype)).dtype == dtype and off(module(x.to(dtype)), before) < 0.01


def linears(model):
    """Names of a plain LM's maps that are to be quantised: all of the two transformers, heads apart."""
    return {name for name, m in model.named_modules() if isinstance(m, (nn.Linear, PerStep))
            and name.startswith(("temporal.", "depth.")) and name != "depth.heads"}


def test_the_names_of_what_is_quantised(models):
    layers, want = range(2), {"depth.inputs"}
    want |= {f"temporal.layers.{i}.{n}" for i in layers
             for n in ("attn.in_proj", "attn.out_proj", "mlp.linear_in", "mlp.linear_out")}
    want |= {f"depth.layers.{i}.{n}" for i in layers
             for n in ("in_proj", "out_proj", "linear_in", "linear_out")}
    assert linears(models[None]) == want
    for kind in KINDS:
        assert {n for n, m in models[kind].named_modules() if isinstance(m, QuantLinear)} == want


@pytest.mark.parametrize("kind", KINDS)
def test_lite_is_quantised_whole_and_smaller(kind):
    plain, small = pp.load().lm, pp.load(weights=kind).lm
    found = {n: m for n, m in small.named_modules() if isinstance(m, QuantLinear)}
    assert found.keys() == linears(plain)
    for name, module in found.items():
        weight = plain.get_submodule(name).weight
        bits = 8 * (module.q.nbytes + module.scale.nbytes) / weight.numel()
        assert bits < {"int8": 8.3, "int4": 5.01}[kind]
        x = torch.randn(1, weight.shape[-1])
        want = x @ weight.view(-1, *module.shape)[-1].T
        assert off(module.at(len(module.q) - 1, x), want) < {"int8": 0.02, "int4": 0.15}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_says_live_what_it_says_offline(models, kind):
    """The temporal part: 30 steps, past the context of 24. bf16 inside: equal up to its rounding."""
    model, other = models[kind], models[None]
    columns = torch.randint(NO_INPUT, 32, (2, 30, 17))
    state, offline = model.new_state(2), model.hidden(columns)
    live = [model.step(model.embed(columns[:, t]), torch.tensor([t, t]), state)[0] for t in range(30)]
    assert off(torch.stack(live, 1), offline) < 0.005
    assert off(other.hidden(columns), offline) > {"int8": 0.001, "int4": 0.01}[kind]    # it is quantised


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [8, 16])
def test_quantised_depth_steps_equal_the_teacher_forced_ones(models, kind, steps):
    depth = models[kind].depth
    hidden, text, audio = torch.randn(3, 64), torch.randint(60, (3,)), torch.randint(32, (3, 16))
    seen = []

    def draw(k, logits):
        seen.append(logits)
        return audio[:, k]
    depth.sample(hidden, text, torch.full((3, 16), UNGIVEN), draw, steps)
    assert off(torch.stack(seen, 1), depth(hidden, text, audio[:, :steps])) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_agent_talks(models, kind):
    chat = pp.Agent(models[kind]).chat(seed=1, progress=False)
    frames = [chat.step(torch.zeros(8, dtype=torch.int64)) for _ in range(12)]
    codes = torch.stack([f.codes for f in frames if f])
    assert len(codes) == 10 and ((codes >= 0) & (codes < 60)).all()


def test_what_cannot_be_held_is_refused_and_says_why():
    with pytest.raises(ValueError, match="multiples of 32, got 40"):
        quantize.quantise(torch.zeros(16, 40), "int4")
    for kind, inner in (("int4", 40), ("int8", 40), ("int3", 64), ("bf16", 64)):
        with pytest.raises(ValueError, match=rf"\[16, {inner}\] as {kind}: int8 or int4.*multiples of 32"):
            QuantLinear(kind, 16, inner)
    with pytest.raises(ValueError, match=r"as int4.*multiples of 32"):
        quantize.prepare(LM(pp.config.tiny()[0]), "int4")
    with pytest.raises(ValueError, match="weights='int3': one of f32, bf16, fp16, int8, int4"):
        pp.load(weights="int3")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs CUDA, not here")
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_on_cuda_the_kernel_is_the_formula(kind, rows):
    kernels.use("cuda")
    w, x = matrix(256, 512), torch.randn(rows, 512)
    module = QuantLinear(kind, 256, 512).cuda()
    module.fill(w.cuda())
    for dtype in (torch.float16, torch.float32):
        y = module(x.cuda().to(dtype)).cpu()
        want = x.double() @ exact(*quantize.quantise(w, kind)).double().T
        assert y.dtype == dtype and off(y, want) < 0.01
