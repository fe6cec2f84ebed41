"""The page: what stands where, and which event reaches which handler."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from app.clips import SAMPLES
from app.corners import AT_ONCE, QUIET, more, what_if
from app.evaluations import evaluation_tab
from app.handlers import NOTHING_YET, Handlers
from app.room import Room
from app.talk import Wish
from app.viewing import PLAYER, player

STYLE = (Path(__file__).resolve().parent / "page.css").read_text(encoding="utf-8")

TITLE = "Ask a video, with its sound"
EXPIRES_EVERY_S = 600
MOST_WAITING = 512
"""Events that wait for their turn; whoever comes then is told to come again."""
HINT = "Drop a video here, then ask: Which instrument comes in first?"
NEXT = "Ask on, or drop another video"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What the page offers."""

    models: tuple[str, ...]
    voice: bool
    runs: Path | None
    """Folder of evaluation runs; None: no such tab, since it lets visitors start runs here."""
    evaluated: tuple[str, ...] = ("tiny",)
    """Models that runs may be started with."""
    expires_s: int = 7200
    """Uploads that are older are deleted."""
    mcp: bool = False
    """Other programs are offered one tool that needs no conversation, and no endpoint beside it."""

    @property
    def visibility(self) -> Literal["public", "undocumented"]:
        """Of the conversation's endpoints. A tool cannot keep a conversation (Gradio 6.31)."""
        return "undocumented" if self.mcp else "public"


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
                    chat, stands = _chat(handlers, [model, *options, room], offer)
                    about = gr.Markdown(handlers.about(offer.models[0]), elem_id="about")
                    model.change(handlers.chosen_model, [model, room], [about], **QUIET)
                    more(handlers, chat, room, voice=offer.voice)
                with gr.Column(scale=6, min_width=320, elem_id="evidence"):
                    film = gr.HTML(player(None), elem_id=PLAYER)
                    compared = what_if(handlers, room, offer.visibility)
                    proof = gr.HTML(NOTHING_YET, elem_id="proof")
            if offer.runs is not None:
                with gr.Tab("Evaluate"):
                    evaluation_tab(offer.runs, offer.evaluated)
        _events(handlers, chat, stands, model, room, film, proof, compared)
        if offer.mcp:
            gr.api(handlers.ask_clip, api_name="ask_clip", concurrency_limit=AT_ONCE)
    return page.queue(max_size=MOST_WAITING, default_concurrency_limit=AT_ONCE)


def _choice(offer: Offer) -> tuple[gr.Dropdown, list[gr.Checkbox]]:
    """Which model answers, and how."""
    with gr.Row(elem_id="choice", equal_height=True):
        model = gr.Dropdown(
            list(offer.models),
            value=offer.models[0],
            label="Model",
            interactive=True,
            min_width=200,
        )
        free = gr.Checkbox(label="Free words", min_width=120)
        twice = gr.Checkbox(label="Look twice (agent)", min_width=120)
    return model, [free, twice]


class _Chat(gr.ChatInterface):
    """With a message for each file and one for the text: a message that has both cannot be edited.

    Gradio 6.31 fails in the browser there ("slice is not a function"); to be removed when a message
    with a file and a text can be edited in a plain `ChatInterface`.
    """

    def _message_as_message_dict(self, message: Any, role: Any) -> list[Any]:
        whole = super()._message_as_message_dict(message, role)
        found: list[Any] = []
        for one in whole:
            parts = one["content"] if isinstance(one["content"], list) else [one["content"]]
            found += [{**one, "content": part} for part in parts]
        return found


def _chat(handlers: Handlers, inputs: list[Any], offer: Offer) -> tuple[gr.ChatInterface, gr.State]:
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

    interface = _Chat(
        chat,
        multimodal=True,
        chatbot=gr.Chatbot(
            label="Conversation",
            show_label=False,
            elem_id="chatbot",
            height="56vh",
            min_height=300,
            buttons=["copy", "copy_all"],
            group_consecutive_messages=False,
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
        api_visibility=offer.visibility,
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

    async def latest(mine: Room) -> tuple[str, str, gr.MultimodalTextbox]:
        return *await handlers.evidence(mine), gr.MultimodalTextbox(placeholder=NEXT)

    chat.textbox.change(
        drafted,
        [chat.textbox, model, room],
        [film],
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    stands.change(latest, [room], [film, proof, chat.textbox], **QUIET)
    chat.chatbot.select(chosen, [chat.chatbot, room], [film, proof], **QUIET)
    chat.chatbot.clear(handlers.cleared, [room], [film, proof, compared], **QUIET)
