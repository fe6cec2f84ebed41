"""The page: what stands where, and which event reaches which handler."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.clips import SAMPLES
from app.handlers import NOTHING_YET, Handlers
from app.rating import ASK_FIRST, CONSENT
from app.room import Room
from app.talk import Wish
from app.viewing import PLAYER, player
from app.voice import MISSING

STYLE = (Path(__file__).resolve().parent / "page.css").read_text(encoding="utf-8")

TITLE = "Ask a video, with its sound"
AT_ONCE = 64
"""Turns under way at the same time; more wait."""
EXPIRES_EVERY_S = 600
HINT = "Drop a video here, then ask: Which instrument comes in first?"
SAVE_JS = """(name, text) => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'text/plain'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the page offers."""

    models: tuple[str, ...]
    voice: bool
    runs: Path | None = None
    """Folder of evaluation runs; None: no such tab."""
    expires_s: int = 7200
    """Uploads that are older are deleted."""


def build(handlers: Handlers, offer: Offer) -> gr.Blocks:
    """The page, not yet served."""
    cache = (EXPIRES_EVERY_S, offer.expires_s)
    with gr.Blocks(title=TITLE, fill_width=True, delete_cache=cache) as page:
        gr.HTML(
            f'<header class="av-top"><h1>{TITLE}</h1><p>An answer comes with what it rests on. Know'
            " how far it can be trusted.</p></header>"
        )
        room = gr.State(Room())
        with gr.Tabs():
            with gr.Tab("Ask"), gr.Row(equal_height=False, elem_id="columns"):
                with gr.Column(scale=5, min_width=320, elem_id="conversation"):
                    model, options = _choice(offer)
                    chat, stands = _chat(handlers, [model, *options, room])
                    about = gr.Markdown(handlers.about(offer.models[0]), elem_id="about")
                    model.change(handlers.chosen_model, [model, room], [about], **QUIET)
                    _entries(handlers, offer, chat)
                    _ratings(handlers, chat, room)
                    _exports(handlers, room)
                with gr.Column(scale=6, min_width=320, elem_id="evidence"):
                    film = gr.HTML(player(None), elem_id=PLAYER)
                    compared = _what_if(handlers, room)
                    proof = gr.HTML(NOTHING_YET, elem_id="proof")
            if offer.runs is not None:
                from app.evaluations import evaluation_tab

                with gr.Tab("Evaluate"):
                    evaluation_tab(offer.runs)
        _events(handlers, chat, stands, model, room, film, proof, compared)
    return page


def _choice(offer: Offer) -> tuple[gr.Dropdown, list[gr.Checkbox]]:
    """Which model answers, and how."""
    with gr.Row(elem_id="choice", equal_height=True):
        model = gr.Dropdown(
            list(offer.models),
            value=offer.models[0],
            label="Model",
            interactive=True,
            scale=3,
            min_width=120,
        )
        free = gr.Checkbox(label="Free words", scale=2, min_width=110)
        twice = gr.Checkbox(
            label="Look twice",
            info="An agent looks again where it helps.",
            scale=3,
            min_width=150,
        )
    return model, [free, twice]


def _chat(handlers: Handlers, inputs: list[Any]) -> tuple[gr.ChatInterface, gr.State]:
    """The conversation, and a number that changes whenever an answer stands."""
    stands = gr.State(0.0)
    told = gr.JSON(visible=False, label="answer")

    async def chat(
        message: dict[str, Any],
        history: list[Any],
        model: str,
        free: bool,
        twice: bool,
        room: Room,
    ) -> AsyncIterator[tuple[str, dict[str, Any], float]]:
        """Ask a question about a video with its sound.

        Args:
            message: the question as `text`, and in `files` the clip it is about; a further
                question about the same clip needs no file.
            history: kept by the page.
            model: which model answers.
            free: answer in free words, not with one of the closed answers.
            twice: let an agent look again where it helps.
            room: kept by the page.
        """
        wish = Wish(model=model, open_ended=bool(free), twice=bool(twice))
        async for said in handlers.chat(message, history, wish, room):
            yield said

    interface = gr.ChatInterface(
        chat,
        multimodal=True,
        chatbot=gr.Chatbot(
            label="Conversation",
            elem_id="chatbot",
            height="56vh",
            min_height=300,
            buttons=["copy", "copy_all"],
            allow_tags=False,
            placeholder="**Drop a video**, record one, or begin with a sample.",
            layout="bubble",
        ),
        textbox=gr.MultimodalTextbox(
            label="Your question",
            placeholder=HINT,
            file_types=["video", "audio"],
            file_count="multiple",
            sources=["upload"],
            max_plain_text_length=2000,
            elem_id="question",
            stop_btn=True,
            html_attributes=gr.InputHTMLAttributes(autocorrect="off", spellcheck=True),
        ),
        additional_inputs=inputs,
        additional_outputs=[told, stands],
        examples=_examples(),
        example_labels=None,
        editable=True,
        concurrency_limit=AT_ONCE,
        api_name="chat",
        autofocus=False,
        show_progress="minimal",
        fill_height=False,
    )
    return interface, stands


def _examples() -> list[list[dict[str, Any]]]:
    rows = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    return [
        [{"text": row["questions"][-1]["question"], "files": [str(SAMPLES / row["file"])]}]
        for row in rows
    ]


def _entries(handlers: Handlers, offer: Offer, chat: gr.ChatInterface) -> None:
    """Other ways to bring a clip or a question: camera and microphone."""
    with gr.Accordion("Record a clip with camera and microphone", open=False):
        camera = gr.Video(
            sources=["webcam"], include_audio=True, label="Your recording", elem_id="camera"
        )
    camera.input(handlers.added, [camera, chat.textbox], [chat.textbox], **QUIET)
    with gr.Accordion("Ask by voice", open=False):
        if not offer.voice:
            gr.Markdown(MISSING)
            return
        microphone = gr.Audio(sources=["microphone"], type="filepath", label="Your question")
        heard = gr.Markdown("", elem_id="heard")
    microphone.stop_recording(
        handlers.spoken, [microphone, chat.textbox], [chat.textbox, heard], **QUIET
    )


def _what_if(handlers: Handlers, room: gr.State) -> gr.HTML:
    """The latest question again, about the clip as it was not."""
    with gr.Accordion("What if? Ask the same about the clip, changed", open=False):
        with gr.Row():
            mute = gr.Checkbox(label="Mute the sound")
            blank = gr.Checkbox(label="Hide the picture")
            mirror = gr.Checkbox(label="Swap left and right")
        with gr.Row():
            start_s = gr.Number(label="Only from (s)", value=None, minimum=0)
            end_s = gr.Number(label="to (s)", value=None, minimum=0)
        again = gr.Button("Ask again", variant="primary", elem_id="again")
        stop = gr.Button("Stop", visible=True, size="sm")
        compared = gr.HTML("", elem_id="compared")
    asked = again.click(
        handlers.what_if,
        [mute, blank, mirror, start_s, end_s, room],
        [compared],
        api_name="what_if",
        concurrency_limit=AT_ONCE,
    )
    stop.click(None, None, None, cancels=[asked], api_visibility="private")
    return compared


def _ratings(handlers: Handlers, chat: gr.ChatInterface, room: gr.State) -> None:
    """Thumbs on answers, if a visitor agrees."""

    async def rate(
        history: list[Any], correction: str, mine: Room, event: gr.LikeData
    ) -> tuple[str, str]:
        said = await handlers.rate(history, event.index, event.liked, correction, mine)
        return said, correction if said == ASK_FIRST else ""

    with gr.Accordion("Rate answers", open=False):
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


def _events(
    handlers: Handlers,
    chat: gr.ChatInterface,
    stands: gr.State,
    model: gr.Dropdown,
    room: gr.State,
    film: gr.HTML,
    proof: gr.HTML,
    compared: gr.HTML,
) -> None:
    async def drafted(message: object, name: str, mine: Room) -> Any:
        found = await handlers.drafted(message, name, mine)
        return gr.skip() if found is None else found

    async def chosen(history: list[Any], mine: Room, event: gr.SelectData) -> tuple[str, str]:
        return await handlers.chosen(history, event.index, mine)

    async def latest(mine: Room) -> tuple[str, str]:
        return await handlers.evidence(mine)

    chat.textbox.change(
        drafted,
        [chat.textbox, model, room],
        [film],
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    stands.change(latest, [room], [film, proof], **QUIET)
    chat.chatbot.select(chosen, [chat.chatbot, room], [film, proof], **QUIET)
    chat.chatbot.clear(handlers.cleared, [room], [film, proof, compared], **QUIET)
