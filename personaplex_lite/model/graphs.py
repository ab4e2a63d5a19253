"""One frame as one CUDA graph: the thousands of small kernels of a step are launched by a single call.

What departs from the textbook: nothing in the models knows about it. States never move and time is a tensor
(the three rules of state.py), so a step recorded once is right for every later one. On a CPU there is nothing
to record: `capture` gives the function back, and that eager twin is what the tests compare.
"""
from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from .state import State

WARM_UP = 3                 # calls before recording: kernels are chosen, compiled, and take their memory
ONE = threading.Lock()      # one capture at a time, whichever thread asks


def capture(step: Callable[[Tensor], Tensor], example: Tensor, state: State) -> Callable[[Tensor], Tensor]:
    """step(x) -> tensor, changing nothing but `state` in place -> the same function, replayed from a graph.

    example : a tensor of the shape, type and device of every later x. The state is left as it was. Where a
    graph cannot be had (out of memory, say), one warning comes and `step` itself.
    """
    if not example.is_cuda:
        return step
    before = state.snapshot()
    given = example.clone()      # the address that every replay reads from
    graph = torch.cuda.CUDAGraph()
    with ONE, torch.cuda.device(example.device), torch.no_grad():
        # A stream of our own on the tensors' card: torch's default one belongs to everybody.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    step(given)
            # Other threads may use the card meanwhile: only this one is watched.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                result = step(given)
        except RuntimeError as error:
            warnings.warn(f"no CUDA graph: frames are launched one kernel at a time ({error})", stacklevel=2)
            return step
        finally:
            # Undo what warming up has done to the state, also after a failure.
            torch.cuda.current_stream().wait_stream(side)
            state.restore(before)

    def replay(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return result
    return replay
