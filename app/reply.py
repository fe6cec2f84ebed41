"""An answer as a message of the chat: short, and nothing in it passes for markup."""

from __future__ import annotations

import html
import re

from app.markup import percent
from app.panel import lights
from app.room import Turn

_MARKS = re.compile(r"[\\`*\[\]#|~$]|(?<!\w)_|_(?!\w)|^[-+]|(?<=^\d)[.)]")
MOST_STEPS = 40
KINDS = {
    "measured": "measured",
    "model": "said by the model",
    "transcript": "transcribed",
    "plan": "plan",
}
READING = "_Listening and looking …_"


def plain(text: str) -> str:
    """Text of a model or a visitor, for Markdown and for HTML within it."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", escaped)


def said(turn: Turn) -> str:
    """The message of a turn: the answer, how sure, what reached the model, what to know."""
    if turn.answer is None:
        return plain(turn.said)
    answer = turn.answer
    sure = (
        f" · {html.escape(percent(answer.probability))} sure"
        if answer.probability is not None
        else ""
    )
    pieces = [f"**{plain(answer.answer)}**{sure}", lights(answer)]
    pieces += [f"- ⚠ {plain(warning)}" for warning in answer.warnings]
    if turn.steps:
        pieces.append(_steps(turn))
    pieces.append(f"<small>{small_print(turn)}</small>")
    return "\n\n".join(pieces)


def growing(turn: Turn) -> str:
    """The message while the answer is not there yet."""
    if turn.said:
        return plain(turn.said)
    return f"{READING}\n\n{_steps(turn)}" if turn.steps else READING


def small_print(turn: Turn) -> str:
    """Who answered, about what, how long it took."""
    name = "" if turn.media is None else f"{plain(turn.media.name)} · "
    changes = ", ".join(changes_of(turn))
    changed = f"{plain(changes)} · " if changes else ""
    times = {} if turn.answer is None else turn.answer.timing_s
    read_s = sum(times.get(key, 0.0) for key in ("decode", "encode", "clip"))
    took = f"answered in {turn.seconds:.2f} s" + (
        f", the clip itself was read in {read_s:.2f} s" if read_s >= 0.005 else ""
    )
    return f"{name}{changed}{plain(turn.model)} · {took}"


def changes_of(turn: Turn) -> list[str]:
    """What was done to the clip, in words."""
    cut, found = turn.cut, []
    if cut.is_part:
        end = "the end" if cut.end_s is None else f"{cut.end_s:g} s"
        found.append(f"from {cut.start_s or 0:g} s to {end}")
    found += ["mirrored"] if cut.mirrored else []
    found += [] if cut.sound else ["without sound"]
    found += [] if cut.picture else ["without picture"]
    return found


def _steps(turn: Turn) -> str:
    rows = "".join(
        f"<li><em>{plain(KINDS.get(step.kind, step.kind))}</em>"
        f"{'' if step.tool == step.kind else f' {plain(step.tool)}'}: {plain(step.result)}</li>"
        for step in turn.steps[:MOST_STEPS]
    )
    return f"<details open><summary>{len(turn.steps)} steps</summary><ol>{rows}</ol></details>"
