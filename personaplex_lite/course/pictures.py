"""The glossary's pictures, a few kilobytes each.

    python -m personaplex_lite.course.pictures            notebooks/pictures/*.svg

What departs from the textbook: no drawing library, because a small picture is a few shapes written down. Grey
ink on nothing can be read on white and on black; blue is the agent, orange the user, as everywhere.
"""
from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "notebooks" / "pictures"
INK, AGENT, USER = "#7f7f7f", "#1f83d0", "#d9741a"
WIDTH, HEIGHT = 240, 96


def box(x, y, w, h, colour=INK, words="", fill=0.0):
    """A frame, or one filled so densely (0 to 1), with words in its middle."""
    look = f'fill="{colour}" fill-opacity="{fill}"' if fill else f'fill="none" stroke="{colour}"'
    inside = label(x + w / 2, y + h / 2 + 4, words, "#fff" if fill == 1 else colour) if words else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="2" {look}/>{inside}'


def label(x, y, words, colour=INK, at="middle", size=11):
    """Words around, from ("start") or up to ("end") a point on their base line."""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{at}" font-size="{size}">{words}</text>'


def line(x1, y1, x2, y2, colour=INK, dashed=False, width=1.5):
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    return (f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
            f'stroke-width="{width}"{dash}/>')


def arrow(x1, y1, x2, y2, colour=INK):
    length = math.hypot(x2 - x1, y2 - y1)
    u, v = 6 * (x2 - x1) / length, 6 * (y2 - y1) / length
    tip = f"{x2:g},{y2:g} {x2 - u - v / 2:.1f},{y2 - v + u / 2:.1f} {x2 - u + v / 2:.1f},{y2 - v - u / 2:.1f}"
    return line(x1, y1, x2 - u / 2, y2 - v / 2, colour) + f'<polygon points="{tip}" fill="{colour}"/>'


def curve(f, start, stop, step=3, colour=AGENT, width=2.0):
    """y = f(x)"""
    points = " ".join(f"{x:g},{f(x):.1f}" for x in range(start, stop + 1, step))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def sound(x, w, y, h, colour, seed=1):
    """Something like speech around the height y."""
    size = [h * (0.15 + 0.85 * abs(math.sin(i * 0.13 + seed) * math.sin(i * 0.041 * seed + 1)))
            for i in range(0, int(w), 3)]
    shape = "".join(f"M{x + 3 * i:g} {y - a:.0f}V{y + a:.0f}" for i, a in enumerate(size))
    return f'<path d="{shape}" stroke="{colour}" stroke-width="1.6"/>'


def cells(x, y, columns, rows, w, h, colour, pale=lambda column: False):
    """A piece of the grid: a cell a code, in five shades."""
    shades = defaultdict(str)
    for i in range(columns):
        for j in range(rows):
            look = (INK, 0.13) if pale(i) else (colour, 0.45 + 0.13 * ((i * 7 + j * 5 + i * j) % 5))
            shades[look] += f"M{x + i * w:g} {y + j * h:g}h{w - 1:g}v{h - 1:g}h-{w - 1:g}z"
    return "".join(f'<path d="{d}" fill="{c}" fill-opacity="{o:.2f}"/>' for (c, o), d in shades.items())


def bars(x, y, heights, colour, width=16, gap=6):
    """Bars that stand on the height y."""
    return "".join(box(x + i * (width + gap), y - h, width, h, colour, fill=1) for i, h in enumerate(heights))


def talk(agent, user, more=""):
    """Who speaks when: spans (start, length) of both."""
    names = label(4, 34, "agent", AGENT, "start") + label(4, 70, "user", USER, "start")
    return (names + "".join(sound(x, w, 30, 16, AGENT, x) for x, w in agent)
            + "".join(sound(x, w, 66, 16, USER, x) for x, w in user) + more)


def row(x, y, words, width=28, height=24):
    """The text row: words in blue, padding in grey."""
    return "".join(box(x + i * width, y, width - 2, height, AGENT if len(w) > 1 else INK, w)
                   for i, w in enumerate(words))


def wobble(x):
    return 48 - 30 * math.sin(x / 14) * math.cos(x / 61)


def sound_pictures():
    """From air to integers."""
    yield ("sample", curve(wobble, 10, 230, 2, INK, 1), *(
        f'<circle cx="{x}" cy="{wobble(x):.1f}" r="2.4" fill="{USER}"/>' for x in range(10, 231, 11)))
    yield ("frame", sound(10, 220, 40, 28, USER), box(98, 8, 44, 64, AGENT), label(120, 88, "80 ms", AGENT),
           *(line(x, 8, x, 72, INK, True, 1) for x in range(10, 231, 44)))
    yield ("codec", sound(6, 50, 48, 26, USER), arrow(60, 48, 80, 48), box(82, 30, 76, 36, INK, "17 40 3 …"),
           arrow(160, 48, 180, 48), sound(184, 50, 48, 24, AGENT), label(70, 20, "encode"),
           label(172, 20, "decode"))
    yield ("latent", sound(6, 60, 54, 26, USER), arrow(72, 54, 104, 54), label(120, 14, "any numbers"),
           bars(112, 90, (40, 22, 60), INK, 6, 3), bars(152, 90, (52, 30, 34), INK, 6, 3),
           bars(192, 90, (20, 64, 44), INK, 6, 3))
    dots = [(24 + (i * 67) % 191, 10 + (i * 29) % 61) for i in range(15)]
    x, y = dots[9]
    yield ("codebook", *(f'<circle cx="{x}" cy="{y}" r="3" fill="{INK}"/>' for x, y in dots),
           f'<circle cx="{x}" cy="{y}" r="5" fill="{AGENT}"/>', arrow(x + 24, y + 16, x + 5, y + 3, USER),
           label(120, 92, "nearest: entry 9", AGENT))
    yield ("codes", sound(10, 216, 20, 14, USER), label(120, 94, "⋮ 8 integers a frame"), *(
        label(28 + 44 * i, 50 + 14 * j, (i * 71 + j * 113 + 17) % 256, AGENT)
        for i in range(5) for j in range(3)))
    yield ("rvq", arrow(64, 24, 90, 48), arrow(136, 54, 162, 66), label(164, 22, "what is left over"), *(
        bars(x, 80, (rest,), INK, 18) + bars(x + 22, 80, (named,), AGENT, 18)
        + label(x + 20, 94, f"book {i + 1}", AGENT)
        for i, (x, rest, named) in enumerate(((20, 64, 34), (92, 30, 18), (164, 12, 8)))))
    yield ("semantic", box(10, 6, 220, 22, AGENT, "1 semantic: what is said", 1),
           *(box(10, 34 + 7 * i, 220, 5, AGENT, fill=0.25) for i in range(7)),
           label(120, 94, "2–8 acoustic: how it sounds"))
    yield ("streaming", label(52, 26, "past"), label(118, 26, "now", AGENT), label(186, 26, "not there yet"),
           *(box(10 + 44 * i, 34, 40, 28, AGENT, fill=full) for i, full in enumerate((0.25, 0.25, 1, 0, 0))))


def grid_pictures():
    """The 17 rows, and how they are laid out in time."""
    yield "agent_user", talk([(60, 70), (180, 50)], [(120, 56)])
    yield "full_duplex", talk([(60, 40), (130, 100)], [(80, 70), (210, 20)])
    yield ("grid", cells(42, 2, 16, 1, 12, 9, AGENT, lambda i: i % 4 != 1),
           cells(42, 14, 16, 8, 12, 5, AGENT, lambda i: i < 9),
           cells(42, 56, 16, 8, 12, 5, USER, lambda i: i > 6),
           label(38, 10, "text", AGENT, "end", 9), label(38, 37, "agent", AGENT, "end", 9),
           label(38, 79, "user", USER, "end", 9))
    yield "text_row", row(10, 20, ("|", "we", "·", "|", "open", "·"), 37), sound(76, 146, 70, 16, AGENT)
    yield ("padding", row(24, 24, ("·", "·", "·", "|", "we", "·"), 32),
           label(24, 74, "· PAD: nothing", INK, "start"),
           label(120, 74, "| EPAD: word to come", INK, "start"))
    yield ("inner_monologue", box(20, 10, 90, 28, AGENT, "word"), arrow(112, 26, 138, 40),
           box(140, 22, 90, 60, AGENT, "its sound"), label(66, 66, "first what to say,"),
           label(66, 80, "then how it sounds"))
    yield ("delay", label(36, 23, "semantic", AGENT, "end", 8), label(36, 63, "acoustic", AGENT, "end", 8), *(
        box(40 + 30 * (i + (j > 0)), 10 + 20 * j, 28, 18, AGENT if i == 2 else INK, str(i), float(i == 2))
        for j in range(4) for i in range(5)))
    yield ("forced", cells(12, 26, 12, 6, 10, 10, INK), cells(133, 26, 10, 6, 10, 10, AGENT),
           line(131, 8, 131, 90, INK, True), label(71, 18, "given"), label(182, 18, "the model’s own", AGENT))


def model_pictures():
    """One step, and what is remembered between steps."""
    yield ("embedding", label(30, 52, "token 3", AGENT), arrow(56, 48, 78, 48), arrow(146, 49, 168, 49),
           *(box(82, 8 + 12 * i, 60, 10, AGENT if i == 3 else INK, fill=float(i == 3)) for i in range(7)),
           bars(176, 80, (20, 50, 34, 62, 12), AGENT, 8, 3))
    yield ("temporal", box(186, 6, 46, 22, AGENT, "hidden"), *(
        box(8 + 38 * i, 60, 30, 26, INK, f"t−{4 - i}" if i < 4 else "t") + arrow(24 + 38 * i, 58, 204, 30)
        for i in range(5)))
    yield ("depth", box(4, 34, 40, 24, INK, "hidden"), arrow(46, 46, 56, 46),
           label(130, 82, "code by code, within one frame"),
           *(box(58 + 37 * i, 34, 27, 24, AGENT, "1234…"[i], 1) for i in range(5)),
           *(arrow(86 + 37 * i, 46, 94 + 37 * i, 46) for i in range(4)))
    yield ("sampling", bars(20, 78, (60, 34, 20, 10, 6), AGENT), bars(148, 78, (72, 16, 5), AGENT),
           line(14, 78, 130, 78), line(142, 78, 226, 78), label(72, 93, "warm"), label(182, 93, "cool"))
    yield ("dice", *(label(40, 24 + 28 * i, f"seed {seed}") + arrow(70, 20 + 28 * i, 94, 20 + 28 * i)
                     + cells(100, 10 + 28 * i, 11, 2, 10, 10, (AGENT, USER)[seed])
                     for i, seed in enumerate((0, 0, 1))))
    yield ("surprise", line(10, 84, 230, 84), label(128, 20, "you cut in", USER, "start"),
           curve(lambda x: 80 - 58 * math.exp(-((x - 116) / 9) ** 2), 10, 230, 4, USER))
    seen = [0] * 5 + [0.25] * 6 + [1]
    yield ("context", label(52, 28, "forgotten"), label(160, 28, "remembered", AGENT),
           *(box(6 + 19 * i, 36, 16, 24, AGENT if full else INK, fill=full) for i, full in enumerate(seen)))
    around = [(60 + 36 * math.cos(0.628 * i - 1.2), 48 + 36 * math.sin(0.628 * i - 1.2)) for i in range(10)]
    yield ("ring", label(116, 42, "the newest takes", INK, "start"),
           label(116, 58, "the oldest’s place", INK, "start"), *(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="{AGENT}" fill-opacity="{0.15 + 0.085 * i:.2f}"/>'
        for i, (x, y) in enumerate(around)))
    yield ("state", box(16, 14, 90, 56, INK, "weights"), box(134, 14, 90, 56, AGENT, "state"),
           label(61, 88, "shared, never change"), label(180, 88, "one a conversation", AGENT))
    yield ("fork", arrow(10, 48, 110, 48), arrow(112, 46, 220, 18, AGENT), arrow(112, 50, 220, 78, USER),
           label(60, 40, "one past"), label(182, 52, "two futures"))


def talk_pictures():
    """Who one is, and how one behaves."""
    yield ("persona", box(10, 12, 90, 28, AGENT, "voice"), box(10, 54, 90, 28, AGENT, "role"),
           arrow(102, 26, 138, 42), arrow(102, 68, 138, 52), box(140, 30, 90, 34, AGENT, "persona", 1))
    yield "voice", sound(6, 76, 48, 30, AGENT, 2), arrow(88, 48, 110, 48), cells(116, 14, 11, 8, 11, 9, AGENT)
    yield ("role", box(8, 24, 224, 46, INK), label(120, 43, "you are anna and you work", AGENT),
           label(120, 60, "at sunny bakery we open at …", AGENT))
    parts = (6, 70, "voice"), (78, 22, ""), (102, 84, "role text"), (188, 22, "")
    yield ("hybrid_prompt", box(6, 50, 204, 18, USER, "440 Hz", 0.25), line(214, 8, 214, 88, INK, True),
           label(108, 88, "pale: silence"), label(228, 48, "talk"),
           *(box(x, 16, w, 26, AGENT if words else INK, words, 1 if words else 0.25)
             for x, w, words in parts))
    yield "turn", talk([(140, 80)], [(50, 80)])
    yield "pause", talk([], [(50, 60), (150, 70)]), label(130, 44, "wait"), line(130, 50, 130, 66)
    yield ("barge_in", talk([(46, 84)], [(118, 100)]), line(118, 10, 118, 88, USER, True),
           label(194, 34, "falls silent", AGENT))
    yield ("backchannel", talk([(112, 14), (186, 14)], [(46, 62), (128, 50), (200, 34)]),
           label(156, 14, "mm-hmm", AGENT))
    yield ("latency", talk([(160, 70)], [(46, 80)]), line(127, 48, 159, 48, INK, width=3),
           label(100, 18, "latency"), line(122, 20, 142, 44))
    yield ("tor", label(120, 94, "4 of 5 taken: 0.8"), *(sound(14 + 46 * i, 16, 66, 12, USER, i + 2)
           + (sound(32 + 46 * i, 16, 34, 12, AGENT, i + 2) if i != 2 else "") for i in range(5)))


def machine_pictures():
    """Speed, size, and learning."""
    yield ("real_time", label(120, 62, "blue keeps up, orange falls behind"),
           *(box(10 + 56 * i, 6, 52, 18, INK, "80 ms") + box(10 + 56 * i, 30, 30, 18, AGENT, fill=1)
             for i in range(4)), *(box(10 + 74 * i, 70, 72, 18, USER, fill=1) for i in range(3)))
    yield ("quantisation", label(52, 20, "16 bits"), label(164, 20, "4 bits", AGENT),
           curve(lambda x: 86 - 0.6 * x, 10, 110, 10, INK),
           curve(lambda x: 80 - 12 * ((x - 120) // 20), 130, 230, 1))
    yield ("checkpoint", box(8, 12, 224, 66, INK), *(
        box(16 + 54 * i, 28, 48, 34, AGENT, words)
        for i, words in enumerate(("config", "lm", "mimi", "voices"))))
    axes = line(14, 88, 230, 88) + line(14, 8, 14, 88)
    axes += curve(lambda x: 12 + 68 * (1 - math.exp(-(x - 14) / 45)), 14, 224)
    yield "loss", axes, label(190, 62, "steps →")
    yield ("held_out", axes, label(196, 16, "held out", USER), label(196, 68, "trained on", AGENT),
           curve(lambda x: 54 - 40 * math.exp(-(x - 14) / 30) - (x - 14) ** 2 / 1500, 14, 224, colour=USER))
    yield ("teacher_forcing", *(
        box(20 + 54 * i, 10, 40, 22, INK, given) + arrow(40 + 54 * i, 34, 40 + 54 * i, 60)
        + box(20 + 54 * i, 62, 40, 22, AGENT, guess)
        for i, (given, guess) in enumerate((("we", "open"), ("open", "at"), ("at", "six"), ("ten", "in")))))
    yield ("lora", box(10, 12, 72, 72, INK, "W, frozen"), label(100, 54, "+", INK, size=18),
           box(118, 12, 12, 72, AGENT, fill=1), box(136, 12, 72, 12, AGENT, fill=1),
           label(174, 58, "B · A, learnt", AGENT))


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for group in (sound_pictures, grid_pictures, model_pictures, talk_pictures, machine_pictures):
        for name, *shapes in group():
            head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
                    f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">')
            (OUT / f"{name}.svg").write_text("\n".join([head, *shapes, "</svg>\n"]), encoding="utf-8")


if __name__ == "__main__":
    main()
