"""Pictures of a conversation: the token grid, and who speaks when.

They sit on white paper and on dark notebooks alike (transparent ground, grey ink). Blue is always the agent,
orange always the user, a pair that colour-blind eyes tell apart. matplotlib is imported only to draw.
"""
from __future__ import annotations

import numpy as np

FRAME_RATE = 12.5                       # grid columns a second
INK, AGENT, USER = "#7f7f7f", "#1f83d0", "#d9741a"
SHADES = {AGENT: ["#1a5596", AGENT, "#7fd0e8"], USER: ["#94390f", USER, "#f5cf6b"]}
PAD, EPAD = 3, 0


def to_numpy(x) -> np.ndarray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def new_axes(ax, width: float, height: float):
    """The caller's axes, or a new figure's; either way stripped to grey ink on nothing."""
    if ax is None:
        import matplotlib.pyplot as plt
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
        ax.figure.patch.set_alpha(0)
    ax.patch.set_alpha(0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.tick_params(colors=INK, length=0, labelsize=8)
    return ax


def put_words(ax, words, bottom: float, lane_height: float, lanes: int = 4) -> float:
    """Each (word, start seconds, …) above its time, in the lowest lane that has room; returns the top."""
    inches = ax.figure.get_figwidth() * ax.get_position().width
    letter = 0.075 * np.ptp(ax.get_xlim()) / inches              # seconds that a letter covers
    free, top = [-np.inf] * lanes, 0
    for word, start, *_ in words:
        lane = next((i for i in range(lanes) if free[i] <= start), int(np.argmin(free)))
        free[lane] = max(free[lane], start + letter * (len(word) + 1))
        top, y = max(top, lane + 1), bottom + lane * lane_height
        ax.text(start, y, word, color=AGENT, fontsize=8, va="bottom", clip_on=True)
        ax.plot([start, start], [bottom - 0.1 * lane_height, y], color=AGENT, lw=0.5, alpha=0.6)
    return bottom + top * lane_height


def colours(tokens: np.ndarray, colour: str, quiet: np.ndarray) -> np.ndarray:
    """[rows, T] ids -> [rows, T, 4]: a shade for each id and row; quiet cells pale, unset ones clear."""
    from matplotlib.colors import LinearSegmentedColormap
    row = np.arange(len(tokens))[:, None]
    rgba = LinearSegmentedColormap.from_list("", SHADES[colour])((tokens * 0.6180339887 + row * 0.37) % 1)
    rgba[quiet] = (0.5, 0.5, 0.5, 0.13)
    rgba[tokens < 0] = 0
    return rgba


def plot_grid(tokens, text_words=None, ax=None, silence=None):
    """The [17, T] token grid: agent text, agent audio 1–8, user audio 1–8, a column every 80 ms.

    text_words : (word, start seconds, …) each, written above the text row
    silence    : the 8 codes of silence (the checkpoint's config knows them), drawn pale as PAD and EPAD are
    """
    tokens = to_numpy(tokens)
    if tokens.ndim != 2 or len(tokens) != 17:
        raise ValueError(f"a token grid has the shape [17, frames], this one has {list(tokens.shape)}")
    seconds = tokens.shape[1] / FRAME_RATE
    ax = new_axes(ax, min(16, max(6, 1.3 * seconds)), 4.2)
    quiet = np.zeros(tokens.shape, bool)
    quiet[0] = (tokens[0] == PAD) | (tokens[0] == EPAD)
    if silence is not None:
        quiet[1:] = tokens[1:] == np.tile(to_numpy(silence), 2)[:, None]
    ticks = {}
    for name, top, rows, colour in (("text", 0, slice(0, 1), AGENT), ("agent ", 2, slice(1, 9), AGENT),
                                    ("user ", 10.5, slice(9, 17), USER)):
        height = 1.5 if name == "text" else rows.stop - rows.start
        ax.imshow(colours(tokens[rows], colour, quiet[rows]), extent=(0, seconds, top + height, top),
                  aspect="auto", interpolation="nearest")
        labels = ["agent text"] if name == "text" else [f"{name}{i + 1}" for i in range(8)]
        ticks |= {top + height * (i + 0.5) / len(labels): label for i, label in enumerate(labels)}
    ax.set_yticks(list(ticks), ticks.values())
    ax.set_xlim(0, seconds)
    ax.set_ylim(18.6, put_words(ax, text_words or (), bottom=-0.2, lane_height=-1))
    ax.set_xlabel("seconds · a column is 80 ms · pale cells are padding or silence", color=INK, fontsize=8)
    return ax


def speaking(pcm: np.ndarray, rate: int, floor: float = 0.01, bridge: int = 3) -> np.ndarray:
    """Which 80 ms frames hold sound above −40 dB; gaps of up to `bridge` frames inside speech are filled."""
    size = int(rate / FRAME_RATE)
    frames = np.pad(pcm, (0, -len(pcm) % size)).reshape(-1, size)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(1)) > floor)
    busy = np.zeros(len(frames), bool)
    busy[loud] = True
    for a, b in zip(loud, loud[1:]):
        busy[a:b] |= b - a <= bridge + 1
    return busy


def plot_talk(agent_pcm, user_pcm, words=(), ax=None, rate: int = 24_000):
    """Both voices over time, the agent's words above its own; between, who speaks when (overlaps grey)."""
    sounds = [to_numpy(pcm).astype(np.float32).reshape(-1) for pcm in (agent_pcm, user_pcm)]
    length = max(len(pcm) for pcm in sounds)
    sounds = [np.pad(pcm, (0, length - len(pcm))) for pcm in sounds]
    ax = new_axes(ax, min(16, max(6, 1.3 * length / rate)), 3.2)
    bin_size = max(1, length // 3000)
    for pcm, middle, band, colour in zip(sounds, (1.4, -1.4), (0.14, -0.14), (AGENT, USER)):
        bins = np.pad(pcm, (0, -length % bin_size)).reshape(-1, bin_size) / max(0.1, np.abs(pcm).max())
        at = np.arange(len(bins)) * bin_size / rate
        ax.fill_between(at, middle + bins.min(1), middle + bins.max(1) + 0.01, color=colour, lw=0)
        ax.broken_barh(spans(speaking(pcm, rate)), (band - 0.09, 0.18), color=colour, lw=0)
    both = speaking(sounds[0], rate) & speaking(sounds[1], rate)
    ax.broken_barh(spans(both), (-2.4, 4.8), color=INK, alpha=0.25, lw=0)
    ax.set_xlim(0, length / rate)
    ax.set_ylim(-2.5, put_words(ax, words, bottom=2.55, lane_height=0.45))
    ax.set_yticks([1.4, 0, -1.4], ["agent", "who speaks", "user"])
    ax.set_xlabel("seconds · grey where both speak", color=INK, fontsize=8)
    return ax


def spans(busy: np.ndarray) -> list[tuple[float, float]]:
    """Runs of True as (start, length) in seconds."""
    edges = np.flatnonzero(np.diff(np.r_[0, busy.astype(np.int8), 0])) / FRAME_RATE
    return [(a, b - a) for a, b in edges.reshape(-1, 2)]


def plot_reply(reply, path=None):
    """A Reply: both voices over time with the agent's words, above its grid; path: where to save it."""
    import matplotlib.pyplot as plt
    figure, (above, below) = plt.subplots(2, 1, figsize=(11, 6.5), height_ratios=(1, 1.4),
                                          layout="constrained", facecolor="none")
    plot_talk(reply.pcm, reply.user[:len(reply.pcm)], reply.words, ax=above)
    plot_grid(reply.codes, ax=below, silence=reply.config.silence)
    if path is not None:
        figure.savefig(path, dpi=110)
        plt.close(figure)
    return figure
