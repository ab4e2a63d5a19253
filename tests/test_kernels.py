"""The GPU's products with small weights, without a GPU: right in the interpreter, compiled for each card.

Both need Triton (`pip install -e '.[gpu-check]'`, Linux); where it is missing the end of the run says so.
"""
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from personaplex_lite import kernels
from personaplex_lite.model import quantize

triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not here: GPU kernels NOT checked")
SHAPES = [(64, 4096), (48, 2816), (16, 96)]         # outputs, inputs; the last ones fill no block
ROWS = [1, 2, 5, 16, 19]

INTERPRET = """
import json, sys, torch
from personaplex_lite.kernels import triton_products
from personaplex_lite.model import quantize
shapes, rows = json.loads(sys.argv[1])
errors = {}
torch.manual_seed(0)
for outputs, inputs in shapes:
    weight = torch.randn(outputs, inputs) * torch.randn(outputs, 1).exp()
    for kind in quantize.KINDS:
        q, scale = quantize.quantise(weight, kind)
        exact = quantize.dequantise(q, scale.double()).double()
        for name in ("float16", "bfloat16", "float32"):
            for n in rows:
                if name == "bfloat16" and n > 1:
                    continue            # the interpreter multiplies the bits of bf16 as if they were integers
                x = torch.randn(n, inputs).to(getattr(torch, name))
                got = triton_products.product(kind, x, q, scale)
                want = x.double() @ exact.T
                assert got.dtype == x.dtype and got.shape == want.shape
                error = (got.double() - want).norm() / want.norm()
                errors[f"{kind} {name} {n} {outputs}x{inputs}"] = float(error)
print(json.dumps(errors))
"""
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from personaplex_lite.kernels import triton_products as ours
for card in (75, 80, 90, 120):
    number = "*fp16" if card < 80 else "*bf16"
    for kind, stored in (("int8", "*i8"), ("int4", "*u8")):
        for name in (f"one_row_{kind}", f"rows_{kind}"):
            many = name.startswith("rows")
            types = {"x": number, "q": stored, "bits": "*i16", "y": number}
            types |= {"rows": "i32"} if many else {}
            types |= {"inputs": "i32", "outputs": "i32"}
            sizes = dict(zip(("BLOCK", "STEP"), ours.MANY if many else ours.ONE[kind]))
            sizes |= {"ROWS": ours.MOST_ROWS} if many else {}
            types |= dict.fromkeys(sizes, "constexpr")
            source = ASTSource(getattr(ours, name), types, constexprs=sizes)
            made = triton.compile(source, target=GPUTarget("cuda", card, 32))
            assert "bf16" not in made.asm["ptx"] or card >= 80, "a T4 has no bf16"
            print(f"sm_{card} {name} {len(made.asm['cubin'])}")
"""


def run(code, *args, **env):
    done = subprocess.run([sys.executable, "-c", code, *args], env={**os.environ, **env}, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@triton
@pytest.mark.slow
def test_in_the_interpreter_they_are_the_formula():
    errors = json.loads(run(INTERPRET, json.dumps([SHAPES, ROWS]), TRITON_INTERPRET="1"))
    assert len(errors) == len(SHAPES) * 2 * (2 * len(ROWS) + 1)
    for case, error in errors.items():
        assert error < {"float16": 5e-4, "bfloat16": 8e-3, "float32": 1e-6}[case.split()[1]], case


@triton
@pytest.mark.slow
def test_they_compile_for_every_card(tmp_path):
    said = run(COMPILE, TRITON_CACHE_DIR=str(tmp_path)).splitlines()
    assert len(said) == 16 and all(int(line.split()[-1]) > 1000 for line in said)


@pytest.fixture
def no_products():
    before = dict(quantize.FAST)
    kernels.use.cache_clear()
    yield
    quantize.FAST.clear()
    quantize.FAST.update(before)
    kernels.use.cache_clear()


def test_a_cpu_needs_none(no_products):
    assert kernels.use("cpu") == "torch" and not quantize.FAST


@pytest.mark.parametrize("kind", quantize.KINDS)
def test_the_compiled_formula_takes_scales_as_bits(kind):
    from personaplex_lite.kernels.compiled import from_bits
    q, scale = quantize.quantise(torch.randn(32, 64), kind)
    x = torch.randn(2, 64)
    assert torch.equal(from_bits(x, q, scale.view(torch.int16)), quantize.formula(x, q, scale))


def test_a_device_with_products_of_its_own_uses_them(no_products):
    module = quantize.QuantLinear("int8", 16, 32)
    module.fill(torch.randn(16, 32))
    quantize.FAST["cpu"] = lambda kind, x, q, scale: torch.full((len(x), len(q)), 7.0)
    assert (module(torch.randn(2, 32)) == 7).all()
