"""Pictures of a conversation: the token grid, and who speaks when.

They sit on white paper and on dark notebooks alike (transparent ground, grey ink). Blue is always the agent,
orange always the user, a pair that colour-blind eyes tell apart. matplotlib is imported only to draw.
"""
from __future__ import annotations

import numpy as np

from .model.units import FRAME_RATE, SAMPLE_RATE

INK = "#7f7f7f"
AGENT = "#1f83d0"
USER = "#d9741a"
SHADES = {AGENT: ["#1a5596", AGENT, "#7fd0e8"], USER: ["#94390f", USER, "#f5cf6b"]}
LOUD = 0.01                             # root mean square: from here on, −40 dB, somebody speaks
GOLDEN = 0.6180339887                   # neighbouring ids, this far apart in the shades, look different
PAD = 3                                 # the text token of "nothing is said"
EPAD = 0                                # the text token of "a word comes next"


def to_numpy(x) -> np.ndarray:
    """A tensor on any device, an array or a list as an array."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x)


def new_axes(ax, width: float, height: float):
    """The caller's axes, or a new figure's of so many inches; either way stripped to grey ink on nothing."""
    if ax is None:
        import matplotlib.pyplot as plt
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
        ax.figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.tick_params(colors=INK, length=0, labelsize=8)
    return ax


def width_of(seconds: float) -> float:
    """Inches for a picture of so many seconds."""
    return min(16, max(6, 1.3 * seconds))


def name_time(ax, text: str) -> None:
    """Write under the time axis what it shows."""
    ax.set_xlabel(text, color=INK, fontsize=8)


def put_words(ax, words, bottom: float, lane_height: float, lanes: int = 4) -> float:
    """Write each (word, start seconds, …) above its time, in the lowest lane with room. Returns the top."""
    inches = ax.figure.get_figwidth() * ax.get_position().width
    letter = 0.075 * np.ptp(ax.get_xlim()) / inches              # seconds that a letter covers
    free_from = [-np.inf] * lanes                                # seconds: where each lane has room again
    used = 0
    for word, start, *_ in words:
        # the lowest lane with room; if none has, the one that is free soonest
        roomy = [lane for lane in range(lanes) if free_from[lane] <= start]
        lane = roomy[0] if roomy else int(np.argmin(free_from))
        free_from[lane] = max(free_from[lane], start + letter * (len(word) + 1))
        used = max(used, lane + 1)

        # plain text: matplotlib would read what stands between two `$` as mathematics
        y = bottom + lane * lane_height
        ax.text(start, y, word, color=AGENT, fontsize=8, va="bottom", clip_on=True, parse_math=False)
        stem = [bottom - 0.1 * lane_height, y]
        ax.plot([start, start], stem, color=AGENT, lw=0.5, alpha=0.6)
    return bottom + used * lane_height


def colours(tokens: np.ndarray, colour: str, quiet: np.ndarray) -> np.ndarray:
    """[rows, T] ids -> [rows, T, 4]: a shade for each id and row; quiet cells pale, unset ones clear."""
    from matplotlib.colors import LinearSegmentedColormap
    row = np.arange(len(tokens))[:, None]
    shades = LinearSegmentedColormap.from_list("", SHADES[colour])
    rgba = shades((tokens * GOLDEN + row * 0.37) % 1)
    rgba[quiet] = (0.5, 0.5, 0.5, 0.13)
    rgba[tokens < 0] = 0
    return rgba


def plot_grid(tokens, text_words=None, ax=None, silence=None):
    """The [17, T] token grid: agent text, agent audio 1–8, user audio 1–8, a column every 80 ms.

    text_words : (word, start seconds, …) each, written above the text row
    silence    : the 8 codes of silence (the checkpoint's config knows them), drawn pale as PAD and EPAD are
    Returns the axes. Raises ValueError for another shape.
    """
    tokens = to_numpy(tokens)
    if tokens.ndim != 2 or len(tokens) != 17:
        raise ValueError(f"a token grid has the shape [17, frames], this one has {list(tokens.shape)}")
    seconds = tokens.shape[1] / FRAME_RATE
    ax = new_axes(ax, width_of(seconds), 4.2)
    quiet = quiet_cells(tokens, silence)

    # three blocks, from above: the name of each row, which rows of the grid, where it begins, how high it is
    eight = range(1, 9)
    blocks = [
        (["agent text"], slice(0, 1), 0, 1.5, AGENT),
        ([f"agent {i}" for i in eight], slice(1, 9), 2, 8, AGENT),
        ([f"user {i}" for i in eight], slice(9, 17), 10.5, 8, USER),
    ]
    ticks = {}
    for names, rows, top, height, colour in blocks:
        picture = colours(tokens[rows], colour, quiet[rows])
        extent = (0, seconds, top + height, top)
        ax.imshow(picture, extent=extent, aspect="auto", interpolation="nearest")
        for i, name in enumerate(names):
            middle = top + height * (i + 0.5) / len(names)
            ticks[middle] = name
    ax.set_yticks(list(ticks), ticks.values())
    ax.set_xlim(0, seconds)
    top = put_words(ax, text_words or (), bottom=-0.2, lane_height=-1)
    ax.set_ylim(18.6, top)
    name_time(ax, "seconds · a column is 80 ms · pale cells are padding or silence")
    return ax


def quiet_cells(tokens: np.ndarray, silence=None) -> np.ndarray:
    """bool [17, T]: where the text is padding, and, if its 8 codes are known, where there is silence."""
    quiet = np.zeros(tokens.shape, bool)
    quiet[0] = (tokens[0] == PAD) | (tokens[0] == EPAD)
    if silence is not None:
        both = np.tile(to_numpy(silence), 2)                     # [16]: the agent's rows and the user's
        quiet[1:] = tokens[1:] == both[:, None]
    return quiet


def speaking(pcm: np.ndarray, rate: int, floor: float = LOUD, bridge: int = 3) -> np.ndarray:
    """bool [frames]: which frames of 80 ms hold sound.

    pcm : float32 [n] at `rate` Hz. floor : the root mean square from which a frame counts, −40 dB.
    bridge : gaps of up to so many frames inside speech are filled.
    """
    size = int(rate / FRAME_RATE)
    frames = np.pad(pcm, (0, -len(pcm) % size)).reshape(-1, size)
    loudness = np.sqrt((frames**2).mean(1))
    loud = np.flatnonzero(loudness > floor)
    busy = np.zeros(len(frames), bool)
    busy[loud] = True
    for one, following in zip(loud, loud[1:]):
        if following - one <= bridge + 1:
            busy[one:following] = True
    return busy


def plot_talk(agent_pcm, user_pcm, words=(), ax=None, rate: int = SAMPLE_RATE):
    """Both voices over time, the agent's words above its own; between, who speaks when (overlaps grey).

    agent_pcm, user_pcm : float32 [n] at `rate` Hz; the shorter one ends in silence
    words               : (word, start seconds, …) each
    Returns the axes.
    """
    agent = to_numpy(agent_pcm).astype(np.float32).reshape(-1)
    user = to_numpy(user_pcm).astype(np.float32).reshape(-1)
    length = max(len(agent), len(user))
    agent = np.pad(agent, (0, length - len(agent)))
    user = np.pad(user, (0, length - len(user)))
    ax = new_axes(ax, width_of(length / rate), 3.2)

    # a voice is a wave and, nearer the middle, a band where it speaks
    agent_speaks = speaking(agent, rate)
    user_speaks = speaking(user, rate)
    plot_wave(ax, agent, rate, middle=1.4, colour=AGENT)
    plot_wave(ax, user, rate, middle=-1.4, colour=USER)
    ax.broken_barh(spans(agent_speaks), (0.05, 0.18), color=AGENT, lw=0)
    ax.broken_barh(spans(user_speaks), (-0.23, 0.18), color=USER, lw=0)
    ax.broken_barh(spans(agent_speaks & user_speaks), (-2.4, 4.8), color=INK, alpha=0.25, lw=0)

    ax.set_xlim(0, length / rate)
    top = put_words(ax, words, bottom=2.55, lane_height=0.45)
    ax.set_ylim(-2.5, top)
    ax.set_yticks([1.4, 0, -1.4], ["agent", "who speaks", "user"])
    name_time(ax, "seconds · grey where both speak")
    return ax


def plot_wave(ax, pcm: np.ndarray, rate: int, middle: float, colour: str) -> None:
    """float32 [n] as at most 3 000 bars from the lowest to the highest sample, around y = middle."""
    size = max(1, len(pcm) // 3000)                              # samples in a bar
    loudest = max(0.1, np.abs(pcm).max())
    bars = np.pad(pcm, (0, -len(pcm) % size)).reshape(-1, size) / loudest
    seconds = np.arange(len(bars)) * size / rate
    low = middle + bars.min(1)
    high = middle + bars.max(1) + 0.01
    ax.fill_between(seconds, low, high, color=colour, lw=0)


def spans(busy: np.ndarray) -> list[tuple[float, float]]:
    """bool [frames] -> each run of True as (start, length) in seconds."""
    closed = np.r_[0, busy.astype(np.int8), 0]                   # so that every run begins and ends
    edges = np.flatnonzero(np.diff(closed)) / FRAME_RATE
    return [(start, end - start) for start, end in edges.reshape(-1, 2)]


def plot_reply(reply, path=None):
    """A Reply: both voices over time with the agent's words, above its grid.

    path : where to save the picture. Returns the figure.
    """
    import matplotlib.pyplot as plt
    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 6.5), height_ratios=(1, 1.4),
                                          layout="constrained", facecolor="none")
    user = reply.user[:len(reply.pcm)]
    plot_talk(reply.pcm, user, reply.words, ax=above)
    plot_grid(reply.codes, ax=below, silence=reply.config.silence)
    if path is not None:
        figure.savefig(path, dpi=110)
        plt.close(figure)
    return figure
