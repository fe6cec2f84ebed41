"""The corners of the page: what if, record, speak, rate, save."""

from __future__ import annotations

from typing import Any, Literal

import gradio as gr

from app.handlers import Handlers
from app.rating import ASK_FIRST, CONSENT
from app.room import Room
from app.voice import MISSING

AT_ONCE = 64
"""Events of one kind under way at the same time; more wait."""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
SAVE_JS = """(name, text) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def what_if(
    handlers: Handlers, room: gr.State, visibility: Literal["public", "undocumented"]
) -> gr.HTML:
    """The latest question again, about the clip as it was not."""
    with gr.Accordion("What if? Ask the same about the clip, changed", open=False):
        with gr.Row():
            mute = gr.Checkbox(label="Mute the sound", min_width=140)
            blank = gr.Checkbox(label="Hide the picture", min_width=140)
            mirror = gr.Checkbox(label="Swap left and right", min_width=140)
        with gr.Row():
            start_s = gr.Number(label="Only from (seconds)", value=None, min_width=120)
            end_s = gr.Number(label="to (seconds; 0: the end)", value=None, min_width=120)
        with gr.Row():
            again = gr.Button("Ask again", variant="primary", elem_id="again", scale=3)
            stop = gr.Button("Stop", scale=1, min_width=80)
        compared = gr.HTML("", elem_id="compared")
    asked = again.click(
        handlers.what_if,
        [mute, blank, mirror, start_s, end_s, room],
        [compared],
        api_name="what_if",
        api_visibility=visibility,
        concurrency_limit=AT_ONCE,
    )
    stop.click(None, None, None, cancels=[asked], api_visibility="private")
    return compared


def more(handlers: Handlers, chat: gr.ChatInterface, room: gr.State, *, voice: bool) -> None:
    """Other ways in, and ways out."""
    with gr.Accordion("Record · Speak · Rate · Save", open=False, elem_id="more"), gr.Tabs():
        with gr.Tab("Record"):
            _camera(handlers, chat)
        with gr.Tab("Speak"):
            _microphone(handlers, chat, voice)
        with gr.Tab("Rate"):
            _ratings(handlers, chat, room)
        with gr.Tab("Save"):
            _exports(handlers, room)


def _camera(handlers: Handlers, chat: gr.ChatInterface) -> None:
    camera = gr.Video(
        sources=["webcam"], include_audio=True, label="Your recording", elem_id="camera"
    )
    gr.Markdown("When it is recorded, it lies ready beside your question.")
    camera.input(handlers.added, [camera, chat.textbox], [chat.textbox], **QUIET)


def _microphone(handlers: Handlers, chat: gr.ChatInterface, voice: bool) -> None:
    if not voice:
        gr.Markdown(MISSING)
        return
    microphone = gr.Audio(sources=["microphone"], type="filepath", label="Your question")
    heard = gr.Markdown("", elem_id="heard")
    microphone.stop_recording(
        handlers.spoken, [microphone, chat.textbox], [chat.textbox, heard], **QUIET
    )


def _ratings(handlers: Handlers, chat: gr.ChatInterface, room: gr.State) -> None:
    """Thumbs on answers, if a visitor agrees."""

    async def rate(
        history: list[Any], correction: str, mine: Room, event: gr.LikeData
    ) -> tuple[str, str]:
        said = await handlers.rate(history, event.index, event.liked, correction, mine)
        return said, correction if said == ASK_FIRST else ""

    agrees = gr.Checkbox(label=CONSENT, elem_id="consent")
    right = gr.Textbox(
        label="What the right answer is, for a thumb down (may stay empty)",
        max_length=500,
        elem_id="correction",
    )
    said = gr.Markdown("", elem_id="rated")
    agrees.input(handlers.agree, [agrees, room], [said], **QUIET)
    chat.chatbot.like(rate, [chat.chatbot, right, room], [said, right], **QUIET)


def _exports(handlers: Handlers, room: gr.State) -> None:
    with gr.Row(elem_id="exports"):
        name = gr.Textbox(visible="hidden", label="name")
        text = gr.Textbox(visible="hidden", label="text")
        for label, make in (("JSON", handlers.json), ("Markdown", handlers.markdown)):
            button = gr.Button(f"Save the conversation as {label}", size="sm")
            made = button.click(make, [room], [name, text], **QUIET)
            made.then(None, [name, text], None, js=SAVE_JS)
