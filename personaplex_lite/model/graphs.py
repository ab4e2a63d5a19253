"""One frame as one CUDA graph: the thousands of small kernels of a step are launched by a single call.

What departs from the textbook: nothing in the models knows about it. States never move and time is a tensor
(the three rules of state.py), so a step recorded once is right for every later one. On a CPU there is nothing
to record: `capture` gives the function back, and that eager twin is what the tests compare.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .state import State

WARM_UP = 3     # calls before recording: kernels are chosen, compiled and allocate what they need


def capture(step: Callable[[Tensor], Tensor], example: Tensor, state: State) -> Callable[[Tensor], Tensor]:
    """step(x) -> tensor, changing nothing but `state` in place -> the same function, replayed from a graph.

    example : a tensor of the shape, type and device of every later x; the state is left as it was.
    """
    if not example.is_cuda:
        return step
    before = state.snapshot()
    given = example.clone()      # the address that every replay reads from
    # Warm up beside the main stream, as torch asks for.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(WARM_UP):
            step(given)
    torch.cuda.current_stream().wait_stream(side)
    # Record one step; undo what warming up has done to the state.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        result = step(given)
    state.restore(before)

    def replay(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return result
    return replay
