"""What every check is made of: it prints one friendly line, never raises, and never tells the answer."""
from __future__ import annotations

import inspect
from functools import wraps


class NotYet(Exception):
    """What is still wrong, for the learner: where it differs and by how much, not what it should be."""


def check(test):
    """Make a checker of a test, which raises NotYet or returns what to say when all is right."""
    @wraps(test)
    def checked(*answers) -> None:
        try:
            takes = inspect.signature(test).parameters
            if len(answers) != len(takes):
                raise NotYet(f"this check takes {len(takes)} thing(s): {', '.join(takes)}")
            if any(answer is None or answer is ... for answer in answers):
                raise NotYet("fill in the cell above, run it, then come back")
            print(f"right: {test(*answers)}")
        except NotYet as why:
            print(f"not yet: {why}")
        except Exception as error:                            # an answer of a kind that nobody foresaw
            print(f"not yet: this answer cannot be compared ({type(error).__name__}: {error})")
    return checked


def call(answer, *inputs, **named):
    """What the learner's function returns. Raises NotYet if it stops with an error or returns nothing."""
    try:
        result = answer(*inputs, **named)
    except Exception as error:
        raise NotYet(f"it stops with {type(error).__name__}: {error}") from None
    if result is None or result is ...:
        raise NotYet("your function returns nothing yet")
    return result


def expect(truth, otherwise: str) -> None:
    """Raises NotYet(otherwise) unless it is true."""
    if not truth:
        raise NotYet(otherwise)


def same(result, wanted, what: str, near: float = 1e-5):
    """Compare numbers, arrays or tensors by shape and value. Raises NotYet with where they part."""
    import numpy as np
    import torch
    a, b = (x.detach().cpu().numpy() if torch.is_tensor(x) else np.asarray(x) for x in (result, wanted))
    expect(a.shape == b.shape, f"{what} has the shape {list(a.shape)}, expected {list(b.shape)}")
    if a.size == 0:
        return
    apart = np.abs(a.astype(float) - b.astype(float))
    if not apart.max() <= near:                               # nan, too
        worst = int(np.nan_to_num(apart, nan=np.inf).argmax())
        at = [int(i) for i in np.unravel_index(worst, apart.shape)]
        if a.dtype.kind in "iub":
            first = f", the first at {[int(i) for i in np.argwhere(apart > near)[0]]}" * bool(at)
            raise NotYet(f"{what}: {int((apart > near).sum())} of {a.size} differ{first}")
        shape = "has the right shape, but " * bool(at)
        raise NotYet(f"{what} {shape}is {apart.max():.3g} off" + f" at {at}" * bool(at))
