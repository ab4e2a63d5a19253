"""Full-Duplex-Bench as numbers: word times, voice segments and annotations in, values out. No model, no file.

The first half is the benchmark (arXiv 2503.04721) as its public code computes it, oddities included, tested
against that code's own outputs; the second half is what it does not see. Where the official code raises an
exception, a Value is None and says why. Where that code is not what the paper says, ours is the code: it lets
a backchannel have two words (paper: fewer) and counts silence as JSD 1 (paper: left out).

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
from typing import Any

import numpy as np

TURN_SECONDS = 1.0                      # a take-over lasts so long,
TURN_WORDS = 3                          # or has more words
BACKCHANNEL_WORDS = 2                   # in a voice segment that is no turn
LONGEST = 3.0                           # seconds: a longer voice segment ends the scan
BIN = 0.2                               # seconds, of the histogram of backchannels
BREATH = 0.3                            # seconds: a shorter silence does not end a run of speech
NONE = 1e-10                            # stands in an empty bin: its logarithm exists
SIDES_95 = 1.96                         # standard deviations of a normal distribution that hold 95 % of it
RATING = re.compile(r"Analysis:(.*?)\nI would rate the AI's response as (\d+)", re.S)

Word = tuple[str, Any, Any]             # text, start, end: seconds, or None
Span = tuple[float, float]              # start, end: seconds


@dataclass(frozen=True)
class Value:
    """A number over n samples, or None with the reason. A mean has a population `std`, 95 % `low`, `high`."""
    value: float | None
    n: int = 1
    reason: str = ""
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def json(self) -> dict[str, Any]:
        """As a file holds it: without what it does not have."""
        fields = asdict(self)
        return {name: field for name, field in fields.items()
                if name in ("value", "n") or field not in (None, "")}


def undefined(reason: str) -> Value:
    """A number that cannot be had, and why."""
    return Value(None, 0, reason)


def from_chunks(chunks: Iterable[dict]) -> list[Word]:
    """The official output.json's "chunks" -> words."""
    return [(chunk["text"], *chunk["timestamp"]) for chunk in chunks]


# The benchmark

def take_over(words: Sequence[Word], last_start: bool = False) -> Value:
    """1 if the agent takes the turn, 0 if it says nothing, or up to three words within less than a second.

    last_start : a last word without an end ends at its start (so in pause handling; elsewhere: no value).
    """
    if not words:
        return Value(0)
    start = words[0][1]
    _, last, end = words[-1]
    if end is None and last_start:
        end = last
    if start is None or end is None:
        return undefined("the first or the last word has no time")
    long = end - start >= TURN_SECONDS
    return Value(int(long or len(words) > TURN_WORDS))


def pause_handling(words: Sequence[Word]) -> dict[str, Value]:
    """One file in which the user pauses and goes on; lower is better. Where the pause is, nobody looks."""
    return {"TOR": take_over(words, last_start=True)}


def turn_taking(words: Sequence[Word], user_end: float) -> dict[str, Value]:
    """One file in which the user stops at second `user_end`; words of the whole file."""
    taken = take_over(words)
    if not taken.value:
        return {"TOR": taken, "latency": undefined(taken.reason or "no take-over")}
    begins = words[0][1]
    return {"TOR": taken, "latency": Value(max(0.0, begins - user_end))}


def user_interruption(words: Sequence[Word], interrupt_end: float,
                      replies: Sequence[str] = ()) -> dict[str, Value]:
    """One file in which the user interrupts until `interrupt_end`; words of what is heard after that.

    replies : what the judge said, until one could be read; as officially, each counts the take-over again.
    """
    figures = turn_taking(words, interrupt_end)
    if not figures["TOR"].value:
        return figures | {"score": figures["latency"]}
    ratings = [parsed[1] for parsed in map(parse_rating, replies) if parsed]
    if ratings:
        score = Value(ratings[0])
    else:
        score = undefined("the judge's answer could not be read" if replies else "no judge")
    return figures | {"TOR": Value(1, max(1, len(replies))), "score": score}


def parse_rating(reply: str) -> tuple[str, int] | None:
    """(analysis, rating) out of a judge's reply, the last of several; None if it is not in the form."""
    found = RATING.findall(reply)
    if not found:
        return None
    analysis, rating = found[-1]
    return analysis.strip(), int(rating)


def backchannel(words: Sequence[Word] | None, segments: Sequence[Span], seconds: float,
                listeners: Sequence[float] | None = None, revision: str = "r2",
                before: Value | None = None) -> dict[str, Value]:
    """One file in which the user tells a long story; segments of the agent's voice, `seconds` in all.

    listeners : when people murmured, a weight per bin, any number of bins (icc_gt_distribution.json).
    before : the previous file's take-over, which the official loop repeats where words are missing (None).
    """
    if words is None:
        taken: Value = before or undefined("no transcript")
        events: list[Span] = []
    else:
        taken, events = scan(words, segments, revision)
    often = Value(len(events) / seconds) if seconds > 0 else undefined("an empty file")
    unlike = undefined("no listeners to compare with")
    if listeners is not None:
        unlike = Value(listener_divergence(events, seconds, listeners))
    return {"TOR": taken, "frequency": often, "JSD": unlike}


def scan(words: Sequence[Word], segments: Sequence[Span],
         revision: str = "r2") -> tuple[Value, list[Span]]:
    """-> the take-over of a backchannel file, and the segments that count as backchannels.

    revision : "r2", in force since 2026-02-22, or "r1", by which the published rows were made. Raises
    ValueError if it is another.
    """
    if revision not in ("r1", "r2"):
        raise ValueError(f"revision={revision!r}: r1 or r2")
    taken = Value(0)
    events: list[Span] = []
    for start, end in segments:
        if end - start > LONGEST:
            return Value(1), events
        turn = is_turn(words, start, end)
        taken = Value(int(turn))                    # the last segment decides
        if turn and revision == "r1":
            events = []
        else:
            events.append((start, end))
    return taken, events


def is_turn(words: Sequence[Word], start: float, end: float) -> bool:
    """Whether a voice segment is more than a backchannel: a second long, or more than two words touch it."""
    if end - start >= TURN_SECONDS:
        return True
    touching = [word for word in words if _touches(word[1], word[2], start, end)]
    return len(touching) > BACKCHANNEL_WORDS


def _touches(first: float | None, last: float | None, start: float, end: float) -> bool:
    """The official overlap rule for a word; one without an end only counts at the segment's end."""
    if first is None or (last is None and first < end):
        return False
    if last is None:
        last = np.inf
    inside = first >= start and last <= end
    leaves = first <= end and last > end
    enters = first <= start and last > start
    return inside or leaves or enters


def histogram(events: Sequence[Span], seconds: float) -> np.ndarray:
    """Events -> float64 [int(seconds / 0.2) + 1], summing to 1: each event adds 1 to every bin it touches."""
    counts = np.zeros(int(seconds / BIN) + 1)
    for start, end in events:
        counts[int(start / BIN):int(end / BIN) + 1] += 1
    filled = counts + NONE
    return filled / filled.sum()


def listener_divergence(events: Sequence[Span], seconds: float, listeners: Sequence[float]) -> float:
    """How far the agent's murmurs lie from people's: 0 to 0.8326 (sqrt ln 2), and 1 for silence."""
    if not events:
        return 1.0
    mine = histogram(events, seconds)
    # the listeners' bins, stretched or squeezed to as many as ours
    new = np.linspace(0, 1, len(mine))
    old = np.linspace(0, 1, len(listeners))
    return jensen_shannon(mine, np.interp(new, old, listeners))


def jensen_shannon(p: Sequence[float] | np.ndarray, q: Sequence[float] | np.ndarray) -> float:
    """The Jensen-Shannon *distance* of two histograms: square root of the divergence, in nats."""
    p = np.asarray(p, float) / np.sum(p)
    q = np.asarray(q, float) / np.sum(q)
    middle = (p + q) / 2
    both = np.sum([_divergence(p, middle), _divergence(q, middle)])
    return float(np.sqrt(max(0.0, both / 2)))


def _divergence(x: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """The terms of the Kullback-Leibler divergence, in nats; an empty bin adds nothing."""
    ratio = np.where(x > 0, x, 1) / np.maximum(middle, 1e-300)
    return np.where(x > 0, x * np.log(ratio), 0)


def speaker_similarity(a: np.ndarray | None, b: np.ndarray | None) -> Value:
    """Cosine of two speaker embeddings (None: nobody was heard). Only of one and the same instrument."""
    if a is None or b is None:
        return undefined("too little voice to recognise anybody")
    cosine = np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
    return Value(float(cosine))


# What it does not see

def runs(segments: Iterable[Span], breath: float = BREATH) -> list[Span]:
    """Voice segments -> runs of speech, joined across overlaps and silences shorter than `breath` seconds."""
    joined: list[Span] = []
    for start, end in sorted(segments):
        if joined and start - joined[-1][1] < breath:
            begun, until = joined[-1]
            joined[-1] = (begun, max(until, end))
        else:
            joined.append((start, end))
    return joined


def any_take_over(words: Sequence[Word], silence: float = 1.0) -> Value:
    """1 if any stretch of words is a take-over by itself; a second of silence ends a stretch."""
    if any(None in word[1:] for word in words):
        return undefined("a word has no time")
    stretches: list[list[Word]] = []
    until = -np.inf
    for word in words:
        _, start, end = word
        if start - until >= silence:
            stretches.append([])
        stretches[-1].append(word)
        until = end
    return Value(max((take_over(stretch).value for stretch in stretches), default=0))


def any_turn(words: Sequence[Word], segments: Sequence[Span]) -> Value:
    """1 if any voice segment of a backchannel file is more than a backchannel, be it the last or not."""
    turns = [is_turn(words, start, end) for start, end in segments]
    return Value(int(any(turns)))


def yield_time(agent: Sequence[Span], interrupt_start: float) -> Value:
    """Seconds from the start of the interruption until the agent is silent. None if it was not speaking.

    An agent that happens to be done by itself counts, too: compare with how long it speaks otherwise.
    """
    for start, end in runs(agent):
        if start <= interrupt_start < end:
            return Value(end - interrupt_start)
    return undefined("the agent was not speaking when interrupted")


def yielded(agent: Sequence[Span], interrupt_start: float, within: float = 0.5) -> Value:
    """1 if the agent fell silent within so many seconds of being interrupted."""
    time = yield_time(agent, interrupt_start)
    if time.value is None:
        return time
    return Value(int(time.value <= within))


def floor_transfers(user: Sequence[Span], agent: Sequence[Span]) -> list[float]:
    """Seconds from the end of the user's speech to the agent's, for each change of speaker; < 0: overlap.

    What begins and ends while the other one speaks (a backchannel) takes no floor. Swap the arguments for
    the other direction. (Heldner & Edlund 2010, doi 10.1016/j.wocn.2010.08.002)
    """
    user = runs(user)
    agent = runs(agent)

    def within(run: Span, others: list[Span]) -> bool:
        return any(start <= run[0] and run[1] <= end for start, end in others)
    turns = [(*run, "user") for run in user if not within(run, agent)]
    turns += [(*run, "agent") for run in agent if not within(run, user)]
    turns.sort()
    late = []
    for (_, end, before), (start, _, now) in zip(turns, turns[1:]):
        if (before, now) == ("user", "agent"):
            late.append(start - end)
    return late


def overlap_share(user: Sequence[Span], agent: Sequence[Span]) -> Value:
    """Seconds in which both speak, as a share of those in which the agent does."""
    user = runs(user, 0)
    agent = runs(agent, 0)
    overlaps = [min(end, until) - max(start, begun) for begun, until in user for start, end in agent]
    both = sum(max(0, seconds) for seconds in overlaps)
    spoken = _seconds(agent)
    return Value(both / spoken) if spoken else undefined("the agent said nothing")


def _seconds(spans: Iterable[Span]) -> float:
    """How long they are together."""
    return sum(end - start for start, end in spans)


def speech_rate(words: Sequence[Word], segments: Sequence[Span]) -> Value:
    """Words a second of voice."""
    spoken = _seconds(runs(segments, 0))
    return Value(len(words) / spoken) if spoken else undefined("no voice")


# Many samples

def mean(values: Iterable[Value], seed: int = 0, draws: int = 2000) -> Value:
    """Mean, spread and 95 % interval of the values that there are; none at all: None, with their reasons.

    The interval is the bootstrap's. Where all values are equal that says nothing: 0 or 1 get Wilson's.
    """
    values = list(values)
    # a value over n samples counts n times
    counted = [value.value for value in values if value.value is not None for _ in range(value.n)]
    if not counted:
        reasons = {value.reason for value in values} - {""}
        return undefined("; ".join(sorted(reasons)) or "no samples")
    x = np.array(counted, float)
    low, high = _interval(x, seed, draws)
    return Value(float(x.mean()), len(x), "", float(x.std()), low, high)


def _interval(x: np.ndarray, seed: int, draws: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the mean of float [n]; none where all are equal and neither 0 nor 1."""
    if x.min() < x.max():
        picks = np.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
        low, high = np.percentile(x[picks].mean(1), [2.5, 97.5]).tolist()
        return low, high
    margin = SIDES_95 ** 2 / (len(x) + SIDES_95 ** 2)
    if x[0] == 0:
        return 0.0, margin
    if x[0] == 1:
        return 1 - margin, 1.0
    return None, None


def summary(samples: Sequence[dict[str, Value]], seed: int = 0) -> dict[str, Value]:
    """Figures of each file -> the mean of each, by name."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    means = {}
    for name in names:
        values = [sample[name] for sample in samples if name in sample]
        means[name] = mean(values, seed)
    return means
