"""The tab with evaluation runs: read a report, compare two runs, start a small one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.jobs import BENCHMARKS, MOST_CLIPS, MOST_QUESTIONS, Runner, SmallRun, State, ask
from app.markup import Html, tag
from app.runs import (
    REPORT,
    RESULTS,
    EvaluationError,
    finished,
    folder_of,
    printed,
    problem,
    read_run,
    report_frame,
    summary,
)
from avqa_llm.errors import AVQAError

LOOK_S = 0.5
"""How often a run is looked at while somebody waits for it."""
INTERRUPTED = 130
HINT = "Start a small run below, or one with `python -m eval run --out {runs}/NAME`."


def evaluation_tab(runs: Path, models: Sequence[str] = ("tiny",)) -> None:
    """Build the tab's components; call it inside a `gr.Tab`.

    Args:
        runs: the folder whose subfolders are runs; nothing outside of it is read or written.
        models: presets or model directories that a run may be started with.
    """
    import gradio as gr

    runner, names = Runner(runs, models), finished(runs)
    first = names[0] if names else None
    with gr.Row():
        chosen = gr.Dropdown(names, value=first, label="Finished run")
        other = gr.Dropdown(names, value=None, label="Compare with")
    about = gr.HTML(show_run(runs, first))
    with gr.Row():
        opened = gr.Button("Open its report", variant="primary")
        compared = gr.Button("Compare the two")
        again = gr.Button("Look for new runs")
    shown = gr.HTML()
    with gr.Accordion("Start a small run", open=not names):
        with gr.Row():
            benchmark = gr.Dropdown(list(BENCHMARKS), value=BENCHMARKS[0], label="Benchmark")
            model = gr.Dropdown(list(models), value=models[0], label="Model")
            name = gr.Textbox(label="Name of the run", placeholder="first-try", max_lines=1)
        with gr.Row():
            clips = gr.Slider(1, MOST_CLIPS, 4, step=1, label="Clips")
            questions = gr.Slider(10, MOST_QUESTIONS, 100, step=10, label="Questions at most")
        with gr.Row():
            started = gr.Button("Start", variant="primary")
            stopped = gr.Button("Stop", variant="stop")
        progress = gr.HTML(progress_bar(None))
    private: dict[str, Any] = {"api_visibility": "private"}

    def look_again() -> tuple[Any, Any]:
        return gr.update(choices=finished(runs)), gr.update(choices=finished(runs))

    def run(name: str, benchmark: str, model: str, clips: int, questions: int) -> Iterator[Html]:
        yield from watched(runner, name, benchmark, model, clips, questions)

    chosen.change(lambda name: show_run(runs, name), chosen, about, **private)
    again.click(look_again, None, [chosen, other], **private)
    opened.click(lambda name: open_report(runs, name), chosen, shown, **private)
    compared.click(lambda *two: compare(runs, *two), [chosen, other], shown, **private)
    wanted = [name, benchmark, model, clips, questions]
    watching = started.click(
        run, wanted, progress, show_progress="hidden", concurrency_limit=None, **private
    )
    watching.then(look_again, None, [chosen, other], **private)
    stopped.click(lambda: stop(runner), None, progress, show_progress="hidden", **private)


# -- what the buttons do -----------------------------------------------------------------------


def show_run(runs: Path, name: str | None) -> Html:
    """A run in a few figures, or a sentence."""
    try:
        if not name:
            return tag("p", "No finished run yet. ", HINT.format(runs=runs.name), class_="av-soft")
        return summary(read_run(runs, name))
    except AVQAError as error:
        return problem(error)


def open_report(runs: Path, name: str | None) -> Html:
    """The report of a run, written first where there is none or results are newer."""
    try:
        folder = _chosen(runs, name, "Finished run")
        report, results = folder / REPORT, folder / RESULTS
        if not report.exists() or report.stat().st_mtime < results.stat().st_mtime:
            ask(["report", str(folder)])
        return report_frame(runs, folder.name)
    except AVQAError as error:
        return problem(error)


def compare(runs: Path, first: str | None, second: str | None) -> Html:
    """Two runs side by side, with the paired difference of the second to the first."""
    try:
        folders = [_chosen(runs, first, "Finished run"), _chosen(runs, second, "Compare with")]
        if folders[0] == folders[1]:
            raise EvaluationError(f"{folders[0].name!r} twice: choose two different runs")
        text = ask(["table", *map(str, folders)])
        return printed(text.replace(f"{folders[0].parent}/", ""))
    except AVQAError as error:
        return problem(error)


def _chosen(runs: Path, name: str | None, field: str) -> Path:
    if not name:
        raise EvaluationError(f"no run is chosen under {field!r}: choose one")
    folder = folder_of(runs.resolve(), name)
    if not (folder / RESULTS).is_file():
        raise EvaluationError(f"the run {name!r} is not finished or not there: look again")
    return folder


def watched(
    runner: Runner, name: str, benchmark: str, model: str, clips: int, questions: int
) -> Iterator[Html]:
    """Start a run and show how far it is until it is over.

    Whoever leaves the page lets it go on; `stop` ends it.
    """
    try:
        runner.start(
            SmallRun(
                name=name.strip(),
                benchmark=benchmark,
                model=model,
                clips=int(clips),
                questions=int(questions),
            )
        )
    except AVQAError as error:
        yield problem(error)
        return
    while (state := runner.state()) is not None and state.running:
        yield progress_bar(state)
        time.sleep(LOOK_S)
    yield progress_bar(state)


def stop(runner: Runner) -> Html:
    """Interrupt what runs."""
    runner.stop()
    return progress_bar(runner.state())


def progress_bar(state: State | None) -> Html:
    """How far a run is, as a bar and in words."""
    if state is None:
        return tag("p", "Nothing runs.", class_="av-soft")
    if not state.running:
        return _over(state)
    part = None if state.part is None else round(100 * state.part)
    bar = tag(
        "div",
        tag("i", style=f"width:{part or 0}%"),
        class_="av-track" if part is not None else "av-track av-busy",
        role="progressbar",
        aria_label=f"The run {state.name}",
        aria_valuemin=0,
        aria_valuemax=100,
        aria_valuenow=part,
    )
    said = tag("p", tag("strong", state.name), " ", state.line, class_="av-raw")
    return tag("div", bar, said, class_="av-panel av-progress")


def _over(state: State) -> Html:
    if state.status == 0:
        return tag("p", f"The run {state.name!r} is finished: choose it above.", role="status")
    if state.status == INTERRUPTED or (state.status or 0) < 0:
        text = f"The run {state.name!r} was stopped; started again by this name, it goes on."
        return tag("p", text, role="status")
    return problem(EvaluationError(f"The run {state.name!r} failed: {state.line}"))
