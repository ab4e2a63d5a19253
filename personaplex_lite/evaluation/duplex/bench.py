"""Full-Duplex-Bench as numbers: word times, voice segments and annotations in, values out. No model, no file.

The first half is the benchmark (arXiv 2503.04721) as its public code computes it, oddities included, tested
against that code's own outputs; the second half is what it does not see. What departs from the official code:
where it raises an exception, a Value is None and says why. What departs from the paper: the official code,
which lets a backchannel have two words (paper: fewer) and counts silence as JSD 1 (paper: left out).

How the official numbers mislead, and what stands beside them here:

Take-over rate (TOR). "More than three words, or a second from first word to last, anywhere in the file." Who
never stops talking takes every turn: TOR 1.0, the best score. Two "mm-hmm" five seconds apart take over in a
pause. Among backchannels the last segment decides alone. -> `any_take_over`, `any_turn`: each run by itself.

Latency. From the user's end to the first word in the file, cut at zero, take-overs only. Who talks over the
user, or said "yeah" long before, has latency 0, the best score. -> `floor_transfers`: signed, every change.

Interruption. Only what is heard after the user has finished interrupting counts: talking on through it is
TOR 1.0, latency 0. (The card says "until the agent stops"; it is not measured.) -> `yield_time`, `yielded`.

Backchannel. Since 2026-02-22 (r2) frequency counts any piece of voice up to three seconds, so a six-second
speech in three pieces is three. People's own timing is nearly flat: JSD rewards more and longer sounds rather
than well placed ones. -> `overlap_share`, `speech_rate`: how much is said over the user, and how fast.

    words     : (text, start, end) each, seconds; `from_chunks` reads the official json. None: time unknown.
    segments  : (start, end) each, seconds, in order: where a voice is heard.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

TURN_SECONDS, TURN_WORDS = 1.0, 3       # a take-over lasts so long, or has more words
BACKCHANNEL_WORDS, LONGEST = 2, 3.0     # in a voice segment; one longer than that ends the scan
BIN = 0.2                               # seconds, of the histogram of backchannels
BREATH = 0.3                            # seconds: a shorter silence does not end a run of speech
RATING = re.compile(r"Analysis:(.*?)\nI would rate the AI's response as (\d+)", re.S)


@dataclass(frozen=True)
class Value:
    """A number over n samples, or None with the reason. A mean has a population `std`, 95 % `low`, `high`."""
    value: float | None
    n: int = 1
    reason: str = ""
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def json(self) -> dict:
        return {k: v for k, v in asdict(self).items() if k in ("value", "n") or v not in (None, "")}


def undefined(reason: str) -> Value:
    return Value(None, 0, reason)


def from_chunks(chunks: Iterable[dict]) -> list[tuple]:
    """The official output.json's "chunks" -> words."""
    return [(c["text"], *c["timestamp"]) for c in chunks]


# The benchmark

def take_over(words: Sequence[tuple], last_start: bool = False) -> Value:
    """1 if the agent takes the turn, 0 if it says nothing, or up to three words within less than a second.

    last_start : a last word without an end ends at its start (so in pause handling; elsewhere: no value).
    """
    if not words:
        return Value(0)
    start, end = words[0][1], words[-1][2]
    end = words[-1][1] if end is None and last_start else end
    if start is None or end is None:
        return undefined("the first or the last word has no time")
    return Value(int(end - start >= TURN_SECONDS or len(words) > TURN_WORDS))


def pause_handling(words: Sequence[tuple]) -> dict[str, Value]:
    """One file in which the user pauses and goes on; lower is better. Where the pause is, nobody looks."""
    return {"TOR": take_over(words, last_start=True)}


def turn_taking(words: Sequence[tuple], user_end: float) -> dict[str, Value]:
    """One file in which the user stops at second `user_end`; words of the whole file."""
    taken = take_over(words)
    late = Value(max(0.0, words[0][1] - user_end)) if taken.value else None
    return {"TOR": taken, "latency": late or undefined(taken.reason or "no take-over")}


def user_interruption(words: Sequence[tuple], interrupt_end: float, replies: Sequence[str] = ()) -> dict:
    """One file in which the user interrupts until `interrupt_end`; words of what is heard after that.

    replies : what the judge said, until one could be read; as officially, each counts the take-over again.
    """
    figures = turn_taking(words, interrupt_end)
    if not figures["TOR"].value:
        return figures | {"score": figures["latency"]}
    ratings = [parsed[1] for parsed in map(parse_rating, replies) if parsed]
    why = "no judge" if not replies else "the judge's answer could not be read"
    score = Value(ratings[0]) if ratings else undefined(why)
    return figures | {"TOR": Value(1, max(1, len(replies))), "score": score}


def parse_rating(reply: str) -> tuple[str, int] | None:
    """(analysis, rating) out of a judge's reply, the last of several; None if it is not in the form."""
    found = RATING.findall(reply)
    return (found[-1][0].strip(), int(found[-1][1])) if found else None


def backchannel(words: Sequence[tuple] | None, segments: Sequence[tuple], seconds: float,
                listeners: Sequence[float] | None = None, revision: str = "r2",
                before: Value | None = None) -> dict[str, Value]:
    """One file in which the user tells a long story; segments of the agent's voice, `seconds` in all.

    listeners : when people murmured, a weight per bin, any number of bins (icc_gt_distribution.json).
    before : the previous file's take-over, which the official loop repeats where words are missing (None).
    """
    taken, events = before or undefined("no transcript"), []
    if words is not None:
        taken, events = scan(words, segments, revision)
    often = Value(len(events) / seconds) if seconds > 0 else undefined("an empty file")
    unlike = Value(listener_divergence(events, seconds, listeners)) if listeners is not None else None
    return {"TOR": taken, "frequency": often, "JSD": unlike or undefined("no listeners to compare with")}


def scan(words: Sequence[tuple], segments: Sequence[tuple], revision: str = "r2") -> tuple[Value, list]:
    """-> the take-over of a backchannel file, and the segments that count as backchannels.

    revision : "r2", in force since 2026-02-22, or "r1", by which the published rows were made.
    """
    if revision not in ("r1", "r2"):
        raise ValueError(f"revision={revision!r}: r1 or r2")
    taken, events = Value(0), []
    for start, end in segments:
        if end - start > LONGEST:
            return Value(1), events
        taken = Value(int(is_turn(words, start, end)))                  # the last segment decides
        events = [] if revision == "r1" and taken.value else [*events, (start, end)]
    return taken, events


def is_turn(words: Sequence[tuple], start: float, end: float) -> bool:
    """Whether a voice segment is more than a backchannel: a second long, or more than two words touch it."""
    return end - start >= TURN_SECONDS or sum(_touches(*w[1:], start, end) for w in words) > BACKCHANNEL_WORDS


def _touches(a: float | None, b: float | None, start: float, end: float) -> bool:
    """The official overlap rule for a word (a, b); one without an end only counts at the segment's end."""
    if a is None or (b is None and a < end):
        return False
    b = np.inf if b is None else b
    return (a >= start and b <= end) or (a <= end and b > end) or (a <= start and b > start)


def histogram(events: Sequence[tuple], seconds: float) -> np.ndarray:
    """Events -> float64 [int(seconds / 0.2) + 1], summing to 1: each event adds 1 to every bin it touches."""
    counts = np.zeros(int(seconds / BIN) + 1)
    for start, end in events:
        counts[int(start / BIN):int(end / BIN) + 1] += 1
    return (counts + 1e-10) / (counts + 1e-10).sum()


def listener_divergence(events: Sequence[tuple], seconds: float, listeners: Sequence[float]) -> float:
    """How far the agent's murmurs lie from people's: 0 to 0.8326 (sqrt ln 2), and 1 for silence."""
    if not events:
        return 1.0
    mine = histogram(events, seconds)
    new, old = np.linspace(0, 1, len(mine)), np.linspace(0, 1, len(listeners))
    return jensen_shannon(mine, np.interp(new, old, listeners))


def jensen_shannon(p, q) -> float:
    """The Jensen-Shannon *distance* of two histograms: square root of the divergence, in nats."""
    p, q = (np.asarray(x, float) / np.sum(x) for x in (p, q))
    halves = [np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / np.maximum((p + q) / 2, 1e-300)), 0)
              for x in (p, q)]
    return float(np.sqrt(max(0.0, np.sum(halves) / 2)))


def speaker_similarity(a, b) -> Value:
    """Cosine of two speaker embeddings (None: nobody was heard). Only of one and the same instrument."""
    if a is None or b is None:
        return undefined("too little voice to recognise anybody")
    return Value(float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)))


# What it does not see

def runs(segments: Iterable[tuple], breath: float = BREATH) -> list[tuple[float, float]]:
    """Voice segments -> runs of speech, joined across overlaps and silences shorter than `breath` seconds."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(segments):
        if joined and start - joined[-1][1] < breath:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def any_take_over(words: Sequence[tuple], silence: float = 1.0) -> Value:
    """1 if any stretch of words is a take-over by itself; a second of silence ends a stretch."""
    if any(None in word[1:] for word in words):
        return undefined("a word has no time")
    stretches: list[list] = []
    for word in words:
        if not stretches or word[1] - stretches[-1][-1][2] >= silence:
            stretches.append([])
        stretches[-1].append(word)
    return Value(max((take_over(stretch).value for stretch in stretches), default=0))


def any_turn(words: Sequence[tuple], segments: Sequence[tuple]) -> Value:
    """1 if any voice segment of a backchannel file is more than a backchannel, be it the last or not."""
    return Value(int(any(is_turn(words, start, end) for start, end in segments)))


def yield_time(agent: Sequence[tuple], interrupt_start: float) -> Value:
    """Seconds from the start of the interruption until the agent is silent. None if it was not speaking.

    An agent that happens to be done by itself counts, too: compare with how long it speaks otherwise.
    """
    for start, end in runs(agent):
        if start <= interrupt_start < end:
            return Value(end - interrupt_start)
    return undefined("the agent was not speaking when interrupted")


def yielded(agent: Sequence[tuple], interrupt_start: float, within: float = 0.5) -> Value:
    """1 if the agent fell silent within so many seconds of being interrupted."""
    time = yield_time(agent, interrupt_start)
    return time if time.reason else Value(int(time.value <= within))


def floor_transfers(user: Sequence[tuple], agent: Sequence[tuple]) -> list[float]:
    """Seconds from the end of the user's speech to the agent's, for each change of speaker; < 0: overlap.

    What begins and ends while the other one speaks (a backchannel) takes no floor. Swap the arguments for
    the other direction. (Heldner & Edlund 2010, doi 10.1016/j.wocn.2010.08.002)
    """
    user, agent = runs(user), runs(agent)

    def within(run, others):
        return any(a <= run[0] and run[1] <= b for a, b in others)
    turns = [(*run, "user") for run in user if not within(run, agent)]
    turns += [(*run, "agent") for run in agent if not within(run, user)]
    turns.sort()
    return [b[0] - a[1] for a, b in zip(turns, turns[1:]) if (a[2], b[2]) == ("user", "agent")]


def overlap_share(user: Sequence[tuple], agent: Sequence[tuple]) -> Value:
    """Seconds in which both speak, as a share of those in which the agent does."""
    user, agent = runs(user, 0), runs(agent, 0)
    both = sum(max(0, min(b, d) - max(a, c)) for a, b in user for c, d in agent)
    spoken = sum(b - a for a, b in agent)
    return Value(both / spoken) if spoken else undefined("the agent said nothing")


def speech_rate(words: Sequence[tuple], segments: Sequence[tuple]) -> Value:
    """Words a second of voice."""
    spoken = sum(b - a for a, b in runs(segments, 0))
    return Value(len(words) / spoken) if spoken else undefined("no voice")


# Many samples

def mean(values: Iterable[Value], seed: int = 0, draws: int = 2000) -> Value:
    """Mean, spread and 95 % interval of the values that there are; none at all: None, with their reasons.

    The interval is the bootstrap's. Where all values are equal that says nothing: 0 or 1 get Wilson's.
    """
    values, low, high = list(values), None, None
    x = np.array([v.value for v in values if v.value is not None for _ in range(v.n)], float)
    if not len(x):
        return undefined("; ".join(sorted({v.reason for v in values} - {""})) or "no samples")
    if x.min() < x.max():
        picks = np.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
        low, high = np.percentile(x[picks].mean(1), [2.5, 97.5]).tolist()
    elif x[0] in (0, 1):
        margin = 1.96 ** 2 / (len(x) + 1.96 ** 2)
        low, high = (0.0, margin) if x[0] == 0 else (1 - margin, 1.0)
    return Value(float(x.mean()), len(x), "", float(x.std()), low, high)


def summary(samples: Sequence[dict[str, Value]], seed: int = 0) -> dict[str, Value]:
    """Figures of each file -> the mean of each, by name."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: mean([s[name] for s in samples if name in s], seed) for name in names}
