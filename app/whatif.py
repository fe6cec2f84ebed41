"""What if: the same question about the clip without its sound, mirrored, or about a part of it.

The two answers stand side by side, with what each rests on; what to make of the difference is said
in words that claim no more than two answers can show.
"""

from __future__ import annotations

import html
from dataclasses import replace

from app.markup import percent
from app.panel import lights, panel
from app.reply import changes_of, small_print
from app.room import Turn
from app.seen import Shown
from app.viewing import PLAYER
from avqa_llm.errors import AVQAError
from avqa_llm.media.changes import Cut


def wanted(
    mute: bool, blank: bool, mirror: bool, start_s: float | None, end_s: float | None
) -> Cut:
    """The change that the controls say.

    Raises:
        AVQAError: nothing would change, or nothing would be left.
    """
    if mute and blank:
        raise AVQAError("Without sound and picture nothing is left to ask about: keep one of them.")
    cut = Cut(
        start_s=start_s or None,
        end_s=end_s or None,
        mirrored=bool(mirror),
        sound=not mute,
        picture=not blank,
    )
    if cut.is_whole:
        raise AVQAError("Choose what to change first: the sound, the picture, the sides or a part.")
    return cut


def changed(turn: Turn, cut: Cut) -> Turn:
    """The question of a turn about its clip, changed. Raises AVQAError without an answer to it."""
    if turn.answer is None or turn.media is None:
        raise AVQAError("Ask a question first: then it can be asked again about a changed clip.")
    return replace(turn, cut=cut, answer=None, steps=())


def side_by_side(before: Turn, before_look: Shown, after: Turn, after_look: Shown) -> str:
    """Both answers with their evidence, as HTML."""
    return (
        '<section class="av-compare" aria-label="The same question, twice" aria-live="polite">'
        f"<p><strong>{html.escape(before.question)}</strong></p>"
        f'<p class="av-verdict">{html.escape(verdict(before, after))}</p>'
        '<div class="av-sides">'
        f"{_side('As it is', before, before_look)}"
        f"{_side(', '.join(changes_of(after)).capitalize(), after, after_look)}"
        "</div></section>"
    )


def _side(title: str, turn: Turn, look: Shown) -> str:
    assert turn.answer is not None
    evidence = panel(turn.answer, look, player=PLAYER, starts_s=turn.cut.start_s or 0.0)
    chance = turn.answer.probability
    sure = "" if chance is None else f" <span>{html.escape(percent(chance))} sure</span>"
    return (
        f'<article class="av-side"><h3>{html.escape(title)}</h3>'
        f'<p class="av-said"><strong>{html.escape(turn.answer.answer)}</strong>{sure}</p>'
        f"{lights(turn.answer)}<details><summary>What it rests on</summary>{evidence}</details>"
        f"<p><small>{small_print(turn)}</small></p></article>"
    )


def verdict(before: Turn, after: Turn) -> str:
    """What the two answers show, and no more."""
    assert before.answer is not None and after.answer is not None
    what = ", ".join(changes_of(after))
    old, new = before.answer, after.answer
    if old.answer != new.answer:
        return (
            f"Another answer {what}: “{new.answer}” instead of “{old.answer}”. What was changed"
            " mattered to this answer."
        )
    if old.probability is None or new.probability is None:
        return f"The same answer {what}: “{new.answer}”. How sure the model is, it does not say."
    by = new.probability - old.probability
    if abs(by) < 0.02:
        return (
            f"The same answer {what}, as sure as before ({percent(new.probability)}): as far"
            " as two answers show, it did not depend on what was changed."
        )
    how = "surer" if by > 0 else "less sure"
    return (
        f"The same answer {what}, but {how}: {percent(old.probability)} before,"
        f" {percent(new.probability)} after."
    )
