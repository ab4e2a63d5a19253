"""What works on this machine, and what to choose: `personaplex-lite doctor [--device cuda] [--report FILE]`.

Nothing is downloaded. The shipped `lite` must say here what it said where it was made; a captured frame must
equal the eager one; small weights must equal the matrix that they stand for. Then one and two layers of the
7B, made of noise, are timed, and what 32 would take is worked out from the difference.
"""
from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from . import kernels, places
from .agent import Agent, load
from .model import quantize
from .model.config import LMConfig, personaplex_7b
from .model.lm import LM
from .model.units import FRAME_SECONDS
from .talk.persona import Persona
from .weights.checkpoint import empty_lm
from .weights.plan import FLOATS, count, free_memory, half

PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "soundfile", "soxr", "anywidget", "jupyterlab",
            "ipykernel", "triton")
GOLDEN = places.LITE / "golden.json"        # what `lite` said where it was made
READ = 2**29                                # bytes that are read to measure the memory's bandwidth
ROUNDS = 5
NEAR = {"int8": 0.02, "int4": 0.15}         # largest relative error of a product that rounding explains


@dataclass(frozen=True)
class Finding:
    """One line of the report. mark: "ok", "FAULT", "slow", "no room", or nothing for what is only told."""
    what: str
    found: str
    mark: str = ""

    def __str__(self) -> str:
        return f"  {self.what:28}{self.found}  {self.mark}".rstrip()


def examine(device: str | None = None, report=None) -> list[Finding]:
    """Look at everything, print it as it comes, end with what to choose; `report`: also write markdown there.

    device : "cpu", "cuda", "cuda:1"; by default the first GPU, else the CPU. Raises ValueError for one that
    is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    stages = (machine, exactness, small_weights, full_size, memory)
    made: list[Finding] = []
    for stage in stages:
        print(stage.__doc__.splitlines()[0])
        for finding in stage(torch.device(device)):
            print(finding, flush=True)
            made.append(finding)
    made.append(Finding("so", advice(made, device)))
    print(made[-1])
    if report is not None:
        Path(report).write_text(page(made, device), encoding="utf-8")
    return made


def machine(device: torch.device):
    """What is here."""
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield Finding("processor", f"{cpu_name()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()}")
    for name, room in free_memory().items():
        yield Finding(f"memory free, {name}", "unknown" if room is None else f"{room / 1e9:.1f} GB")
    free = shutil.disk_usage(places.DATA).free
    yield Finding("disk free", f"{free / 1e9:.1f} GB (the 7B needs 17 for its download)")
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        known = f"{card.name}, {card.total_memory / 1e9:.1f} GB, capability {card.major}.{card.minor}"
        yield Finding("card", f"{known}, CUDA {torch.version.cuda}")
        yield Finding("16 bits in", half(device))
    else:
        yield Finding("card", "none used")
    yield Finding("packages", ", ".join(f"{name} {installed(name)}" for name in PACKAGES))
    yield Finding("microphone", "needs a page at https:// or localhost, in JupyterLab, Notebook or Colab")


def exactness(device: torch.device):
    """Does it compute the same here?"""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    agent = load(device=str(device))
    wanted = torch.tensor(golden["tokens"])                         # [17, t]
    began = time.perf_counter()
    got = golden_talk(agent, golden)
    seconds = time.perf_counter() - began
    same = (got == wanted).float().mean().item() if got.shape == wanted.shape else 0.0
    told = f"{same:.1%} of {wanted.numel()} tokens equal (f32)"
    yield Finding("lite says what it said", told, right(same == 1))
    speed = wanted.shape[1] * FRAME_SECONDS / seconds
    yield Finding("lite's speed", f"{speed:.1f} × real time, its persona read too",
                  "ok" if speed > 1 else "slow")
    if device.type == "cuda":
        yield from _captured(agent)


def _captured(agent: Agent):
    """A captured frame against the eager one, same sounds and seed."""
    sounds = 0.1 * torch.randn(12, 1920, generator=torch.Generator().manual_seed(0))
    said = []
    for trace in (False, True):                                     # a traced talk is never captured
        chat = agent.chat(seed=1, progress=False, trace=trace)
        said.append([frame.codes for frame in map(chat.step, sounds) if frame])
    same = all(map(torch.equal, *said))
    yield Finding("captured = eager", "equal" if same else "different", right(same))


def golden_talk(agent: Agent, about: dict) -> Tensor:
    """int64 [17, t]: the likeliest tokens of an answer to a shipped question."""
    persona = Persona(about["voice"], about["role"])
    chat = agent.chat(persona, seed=0, greedy=True, progress=False)
    reply = chat.run(places.QUESTIONS / about["question"], wait=about["wait"], progress=False)
    return torch.from_numpy(reply.codes)


def small_weights(device: torch.device):
    """Are int8 and int4 right here?"""
    yield Finding("products by", kernels.use(str(device)))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 512, generator=generator) * 0.05
    x = torch.randn(3, 512, generator=generator)
    for kind in quantize.KINDS:
        module = quantize.QuantLinear(kind, 256, 512).to(device)
        module.fill(weight.to(device))
        exact = x.double() @ weight.double().T
        got = module(x.to(device)).double().cpu()
        error = ((got - exact).norm() / exact.norm()).item()
        told = f"relative error {error:.4f}, of at most {NEAR[kind]}"
        yield Finding(f"{kind} product", told, right(error < NEAR[kind]))


def full_size(device: torch.device):
    """Would the 7B keep up? Layers of noise at full size, timed; codec and sampling not among them."""
    bandwidth = read_speed(device)
    yield Finding("memory is read at", f"{bandwidth / 1e9:.1f} GB/s")
    for kind in (half(device), *quantize.KINDS):
        temporal, depth, size = frame_time(kind, device)
        frame = temporal + depth
        floor = size / bandwidth
        told = (f"{1e3 * frame:.0f} ms a frame (temporal {1e3 * temporal:.0f}, depth {1e3 * depth:.0f}), "
                f"{frame / floor:.1f} × the time to read {size / 1e9:.1f} GB; estimated from 1 and 2 layers")
        yield Finding(f"7B, {kind}, keeps up", told, "ok" if frame < FRAME_SECONDS else "slow")


def frame_time(kind: str, device: torch.device) -> tuple[float, float, float]:
    """Seconds of the 7B's temporal and depth transformer for one frame, and the bytes that they read."""
    config, _ = personaplex_7b()
    one = stages(config, 1, kind, device)
    two = stages(config, 2, kind, device)
    whole = []
    for layers, first, second in zip((config.temporal.layers, config.depth.layers), one[:2], two[:2]):
        layer = max(0.0, second - first)
        whole.append(first + (layers - 1) * layer)
    return whole[0], whole[1], bytes_read(empty(config, kind, device))


@torch.no_grad()
def stages(config: LMConfig, layers: int, kind: str, device: torch.device) -> tuple[float, float]:
    """Seconds of the two transformers of `layers` layers each, medians."""
    small = replace(config, temporal=replace(config.temporal, layers=layers, context=64),
                    depth=replace(config.depth, layers=layers))
    lm = noise(small, kind, device)
    state = lm.new_state()
    t = torch.zeros(1, dtype=torch.int64, device=device)
    x = torch.randn(1, config.temporal.dim, device=device).to(lm.text_embed.dtype)
    codes = torch.full((1, config.rows - 1), -2, device=device)

    def think():
        lm.step(x, t, state)
        t.add_(1)

    def say():
        lm.depth.sample(x, t, codes, lambda k, logits: logits.argmax(-1), config.codebooks)
    return timed(think, device), timed(say, device)


def noise(config: LMConfig, kind: str, device: torch.device) -> LM:
    """A language model of random numbers; nothing that it says means anything."""
    lm = empty(config, kind, device).to_empty(device=device).eval().requires_grad_(False)
    for name, tensor in lm.state_dict().items():
        if not tensor.is_floating_point():
            tensor.random_(0, 100)
        else:
            tensor.normal_(std=1e-3 if name.endswith("scale") else tensor.shape[-1] ** -0.5)
    return lm


def empty(config: LMConfig, kind: str, device: torch.device) -> LM:
    """The same without numbers, which takes no memory."""
    dtype = FLOATS.get(kind) or FLOATS[half(device)]
    return empty_lm(config, dtype, kind if kind in quantize.KINDS else None)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: the median of a few, after two that are not counted."""
    seconds = []
    for _ in range(2 + ROUNDS):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return median(seconds[2:])


def read_speed(device: torch.device) -> float:
    """Bytes a second at which memory is read."""
    block = torch.ones(READ // 4, device=device)
    return READ / timed(block.sum, device)


def bytes_read(model: LM) -> float:
    """Bytes of a frame's weights: the transformers and heads; the depth steps for the user are left out."""
    drawn = model.config.codebooks / model.config.depth_steps
    size = 0.0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "embed" not in name:                 # a table is only looked up
            size += tensor.nbytes * (drawn if name.startswith("depth.") else 1)
    return size


def memory(device: torch.device):
    """Does the 7B fit? As `plan` counts it."""
    config, mimi = personaplex_7b()
    numbered = device.type == "cpu" or device.index is not None
    free = free_memory().get(str(device) if numbered else f"{device}:0")
    for kind in (half(device), *quantize.KINDS):
        need = count(config, mimi, kind)
        room = "unknown" if free is None else f"{free / 1e9:.1f} free"
        told = f"{need.total / 1e9:.1f} GB for one talk, {room}"
        yield Finding(f"7B, {kind}, fits", told, "ok" if need.fits(free) else "no room")


def advice(made: list[Finding], device: str) -> str:
    """The last line: what works, what to choose."""
    faults = [finding.what for finding in made if finding.mark == "FAULT"]
    good = {finding.what for finding in made if finding.mark == "ok"}
    if faults:
        return f"something is wrong here: {', '.join(faults)}. Please send this report"
    for kind in ("bf16", "fp16", *quantize.KINDS):
        if {f"7B, {kind}, keeps up", f"7B, {kind}, fits"} <= good:
            return f"the 7B fits and should keep up: pp.load(…, device={device!r}, weights={kind!r})"
    fits = [kind for kind in ("bf16", "fp16", *quantize.KINDS) if f"7B, {kind}, fits" in good]
    large = f"fits as {fits[0]}, but would be slower than real time" if fits else "does not fit"
    return f"`lite` works here; the 7B {large}"


def page(made: list[Finding], device: str) -> str:
    """The report as markdown: for docs/gpu.md, or for a bug report. It names no user and no secret."""
    title = f"# personaplex-lite doctor, version {places.VERSION}, device {device}"
    lines = [title, "", "| | | |", "|---|---|---|"]
    for finding in made:
        lines.append(f"| {finding.what} | {finding.found} | {finding.mark} |")
    return "\n".join(lines) + "\n"


def right(so: bool) -> str:
    """The mark of something that must be so."""
    return "ok" if so else "FAULT"


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    told = Path("/proc/cpuinfo")
    if told.exists():
        for line in told.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def installed(package: str) -> str:
    """A package's version, "none" if it is not here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def write_golden(agent: Agent) -> None:
    """Keep what `lite` says now, for `exactness`; tools/ship.py calls it when weights are shipped."""
    entries = json.loads((places.QUESTIONS / "questions.json").read_text(encoding="utf-8"))
    asked = entries[0]
    about = {"question": asked["file"], "voice": asked["voice"], "role": asked["role"], "wait": 3.0}
    tokens = golden_talk(agent, about).tolist()
    GOLDEN.write_text(json.dumps(about | {"tokens": tokens}) + "\n", encoding="utf-8")

