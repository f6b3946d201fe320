"""The tasks: one record each, from which every room reads what it needs to know of one.

A new operation of OpenAI's wire is one record here, its name in `engine.schemas.tasks`, and its reply form in
`engine.dialects.openai.reply`. A task without a record has Hugging Face's form: `inputs` and `parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.core.media_access import Media
from engine.schemas.tasks import Task

Need = tuple[str, Any, str]
"""A field that a body must have, its types, and the types in words."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The facts of one task."""

    path: str | None = None
    """Its path on the OpenAI wire, below the version prefix; None: it is not on that wire."""
    aliases: tuple[str, ...] = ()
    """Further paths that a server of ours takes."""
    field: str = "inputs"
    """The field of a body that a task can't do without."""
    stands_in: str | None = None
    """A field that may replace it."""
    needs: tuple[Need, ...] = ()
    """Checks of a client's body."""
    files: tuple[str, ...] = ()
    """Fields that go as files of a form; the first is required."""
    messages: str | None = None
    """The field with messages whose parts may be media."""
    medium: Literal["audio", "image", "video"] | None = None
    """The kind of medium that `inputs` is, or names."""
    split: tuple[str, str] | None = None
    """The field with a list of texts and the field with their answers, if each text's answer is its own."""
    stream: Literal["choices", "events", "never"] = "never"
    """The form of a stream: choices of a chat, typed events, or none."""
    ends: tuple[str, ...] = ()
    """The typed events that end a stream."""
    client_streams: bool = False
    """A server of ours streams it."""
    reply_object: str | None = None
    """`object` of a whole reply, which then also names its model."""
    plain_replies: bool = False
    """Replies may be other than JSON: audio, or a transcript as text."""
    gives_images: bool = False
    """The answer is a list of images, `data` with `b64_json` or `url`."""
    text_in_and_out: bool = False
    """Prompt and answer are both text, so a count of one side alone can be completed."""
    output_limit: bool = True
    """The answer has a limit of tokens."""
    operation: str | None = None
    """`gen_ai.operation.name` of OpenTelemetry; None: the task's name."""


_TEXT_OR_LIST = (str, list)
_MESSAGES = (("messages", list, "a list of messages"),)
_FILE = (("file", (Media, dict, str), "a file"),)
_LIST = ("inputs", "outputs")

TASKS: dict[str, TaskRecord] = {
    "chat": TaskRecord(
        "/chat/completions", field="messages", needs=_MESSAGES, messages="messages", stream="choices",
        client_streams=True, reply_object="chat.completion", text_in_and_out=True, operation="chat",
    ),
    "completion": TaskRecord(
        "/completions", field="prompt", needs=(("prompt", _TEXT_OR_LIST, "a text or a list"),), stream="choices",
        client_streams=True, reply_object="text_completion", text_in_and_out=True, operation="text_completion",
    ),
    "embedding": TaskRecord(
        "/embeddings", field="input", needs=(("input", _TEXT_OR_LIST, "a text or a list"),), split=("input", "data"),
        reply_object="list", output_limit=False, operation="embeddings",
    ),
    # Not OpenAI's; its form is Cohere's and vLLM's: query, documents, top_n, return_documents.
    "rerank": TaskRecord(
        "/rerank", ("/v2/rerank", "/rerank"), "query",
        needs=(("query", str, "a text"), ("documents", list, "a list of texts")), split=("documents", "results"),
        reply_object="list", output_limit=False,
    ),
    "response": TaskRecord(
        "/responses", field="input", stands_in="prompt", messages="input", stream="events",
        ends=("response.completed", "response.incomplete"), client_streams=True, reply_object="response",
        text_in_and_out=True, operation="chat",
    ),
    "moderation": TaskRecord(
        "/moderations", field="input", needs=(("input", _TEXT_OR_LIST, "a text or a list"),), messages="input",
        output_limit=False,
    ),
    "image": TaskRecord(
        "/images/generations", field="prompt", needs=(("prompt", str, "a text"),), stream="events",
        ends=("image_generation.completed",), client_streams=True, gives_images=True, output_limit=False,
    ),
    "image-edit": TaskRecord(
        "/images/edits", field="prompt",
        needs=(("prompt", str, "a text"), ("image", (Media, list, dict, str), "a file")),
        files=("image", "mask", "markup"), stream="events", ends=("image_edit.completed",), client_streams=True,
        gives_images=True, output_limit=False,
    ),
    "image-variation": TaskRecord(
        "/images/variations", field="image", needs=(("image", (Media, dict, str), "a file"),), files=("image",),
        gives_images=True, output_limit=False,
    ),
    "speech": TaskRecord(
        "/audio/speech", field="input", needs=(("input", str, "a text"),), stream="events",
        ends=("speech.audio.done",), plain_replies=True, output_limit=False,
    ),
    # Groq reads a recording from an address in `url`.
    "transcription": TaskRecord(
        "/audio/transcriptions", field="file", stands_in="url", needs=_FILE, files=("file",), stream="events",
        ends=("transcript.text.done",), client_streams=True, plain_replies=True, output_limit=False,
    ),
    "audio-translation": TaskRecord(
        "/audio/translations", field="file", stands_in="url", needs=_FILE, files=("file",), stream="events",
        ends=("transcript.text.done",), plain_replies=True, output_limit=False,
    ),
    "token-count": TaskRecord(field="messages", messages="messages", output_limit=False),
    # vLLM's /score.
    "sentence-similarity": TaskRecord("/score", ("/score",), split=_LIST),
    "token-embedding": TaskRecord(split=_LIST),
    "sparse-embedding": TaskRecord(split=_LIST),
    "text-classification": TaskRecord(split=_LIST),
    **dict.fromkeys(
        ("audio-classification", "zero-shot-audio-classification", "voice-activity-detection"),
        TaskRecord(medium="audio"),
    ),
    **dict.fromkeys(
        (
            "image-classification", "zero-shot-image-classification", "object-detection", "zero-shot-object-detection",
            "image-segmentation", "mask-generation", "depth-estimation", "image-to-image", "image-to-text",
            "image-feature-extraction", "visual-question-answering", "document-question-answering",
        ),
        TaskRecord(medium="image"),
    ),
    "video-classification": TaskRecord(medium="video"),
}  # fmt: skip
TASKS |= {task: TaskRecord() for task in get_args(Task) if task not in TASKS}

ENDPOINTS = {
    task: f"/v1{TASKS[task].path}" if TASKS[task].path and task != "sentence-similarity" else f"/v1/tasks/{task}"
    for task in get_args(Task)
}
"""Each task's path: in the OpenAI wire if that has one. The bodies of the others are those of Hugging Face's Inference
API: `inputs` and `parameters`."""


def having(fact: str) -> dict[str, Any]:
    """Returns a fact of the tasks that have it, by the task's name."""
    return {task: value for task, record in TASKS.items() if (value := getattr(record, fact))}
