"""OpenAI's protocol as far as it is spoken here, and what is added to it under `avqa`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avqa_llm.serving.refusals import Refusal

URL = r"^(data:|file-|https?://)"
Model = Annotated[str, Field(min_length=1, max_length=200)]
Choices = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=256)
]


class _Asked(BaseModel):
    """Types are those of JSON: a number in quotes is no number."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Link(_Asked):
    url: Annotated[str, Field(pattern=URL)]
    """A data: URL (base64), the id of an upload, or a link to a host that is allowed."""


class _Recording(_Asked):
    data: Annotated[str, Field(min_length=1)]
    """Base64."""
    format: Annotated[str, Field(max_length=32)] = ""
    """Not believed: what it is shows itself."""


class _FileId(_Asked):
    file_id: Annotated[str, Field(min_length=1, max_length=200)]


class TextPart(_Asked):
    """Words."""

    type: Literal["text"]
    text: str


class VideoPart(_Asked):
    """A video, with its sound."""

    type: Literal["video_url"]
    video_url: _Link


class AudioPart(_Asked):
    """A sound; of a video its sound alone."""

    type: Literal["audio_url"]
    audio_url: _Link


class InputAudioPart(_Asked):
    """A sound in the request."""

    type: Literal["input_audio"]
    input_audio: _Recording


class FilePart(_Asked):
    """An upload: `{"type": "file", "file": {"file_id": …}}`, or `file_id` beside `type`."""

    type: Literal["file"]
    file: _FileId | None = None
    file_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None


Part = Annotated[
    TextPart | VideoPart | AudioPart | InputAudioPart | FilePart, Field(discriminator="type")
]


class Message(_Asked):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None


class StreamOptions(_Asked):
    """How a stream is written."""

    include_usage: bool | None = None


class StructuredOutputs(_Asked):
    """vLLM's field; of it the closed choice alone."""

    model_config = ConfigDict(strict=True, extra="forbid")
    choice: Choices


class Options(_Asked):
    """What this server can do that OpenAI's protocol has no word for."""

    model_config = ConfigDict(strict=True, extra="forbid")
    choices: Choices | None = None
    """Answers to choose from; absent: the closed answers of the model."""
    open: bool = False
    """Free text instead of a choice."""
    mute: bool = False
    """Answer as if there were no sound."""
    blank: bool = False
    """Answer as if there were no picture."""


class ChatRequest(_Asked):
    """A question about the last video or sound of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: Model
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stop: str | list[str] | None = None
    structured_outputs: StructuredOutputs | None = None
    avqa: Options | None = None


class AdapterRequest(_Asked):
    """An adapter to be served from now on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    folder: Annotated[str, Field(min_length=1, max_length=500)]
    """Below the folder that the server was given for adapters."""


# -- replies ------------------------------------------------------------------------------------


class Error(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """OpenAI's error object."""

    error: Error


class TokenLogprob(BaseModel):
    """A token with the runners-up in its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[dict[str, Any]]


class Logprobs(BaseModel):
    """Of an open answer its tokens; of a chosen answer the whole as one."""

    content: list[TokenLogprob]


class Usage(BaseModel):
    """Tokens that entered and left the language model."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None


class Said(BaseModel):
    """The answer as a message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """The only choice."""

    index: int = 0
    message: Said
    logprobs: Logprobs | None
    finish_reason: str


class ChatReply(BaseModel):
    """An answer; `avqa` holds what it rests on."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    avqa: dict[str, Any]
    """answer, label, probability, alternatives, evidence, consumed, steps, record, pace,
    warnings, timings (seconds)."""


class ModelCard(BaseModel):
    """A served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "avqa"
    root: str | None = None
    """The base of an adapter."""
    avqa: dict[str, Any] = {}


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class FileCard(BaseModel):
    """An upload."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    avqa: dict[str, Any] = {}
    """What the file says about itself: container, seconds, streams."""


class FileList(BaseModel):
    """Uploads of the sender, in pages."""

    object: Literal["list"] = "list"
    data: list[FileCard]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """Something is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


class Health(BaseModel):
    """Whether questions can be answered."""

    model_config = ConfigDict(extra="allow")
    status: str


# -- what is wrong with a request -----------------------------------------------------------------

_PICTURE = (
    "pictures alone are not taken: send the video or the sound (video_url, audio_url, "
    "input_audio or file)"
)


def refused(error: ValidationError) -> Refusal:
    """The first fault of a request, in words, without repeating what was sent."""
    faults = error.errors(include_url=False, include_input=False, include_context=True)
    deep = [fault for fault in faults if fault["loc"][-1:] != ("str",)]  # of `str | list[Part]`
    fault = max(deep or faults, key=lambda fault: len(fault["loc"]))
    where = [str(step) for step in fault["loc"] if "[" not in str(step) and step != "str"]
    field, said = ".".join(where)[:200], fault["msg"]
    if fault["type"] == "union_tag_invalid":
        tag = str(fault.get("ctx", {}).get("tag", ""))
        if tag in ("image_url", "input_image", "image"):
            said = _PICTURE
        else:
            said = "the type of a part is text, video_url, audio_url, input_audio or file"
    elif fault["type"] == "json_invalid":
        said = "the body is no JSON, or nested too deeply"
    elif field == "n":
        said = "one answer is given to a question: leave n away or give 1"
    message = f"{field}: {said}" if field else said
    return Refusal(400, message[:500], code="invalid_request", param=field or None)
