"""The forms of a task's body and reply, for the tasks of `engine/tasks/pipelines.py`: OpenAI's where it has the task,
Hugging Face's `inputs` and `parameters` for all others."""

from __future__ import annotations

from typing import Any

from engine.core.usage import Usage
from engine.tasks import images, pipelines, rerank, speech, transcription
from engine.tasks.pipelines import Ask

_OWN: dict[str, Any] = {
    "image": images,
    "text-to-image": images,
    "rerank": rerank,
    "speech": speech,
    "text-to-audio": speech,
    "transcription": transcription,
    "audio-translation": transcription,
}


def read(task: str, body: dict[str, Any]) -> Ask:
    """Returns the inputs and parameters of a body whose media were read. Raises InvalidRequest with the field's
    path."""
    form = _OWN.get(task)
    if form is None:
        return pipelines.read(task, body)
    ask: Ask = form.read(task, body)
    return ask


def reply(
    task: str, model: str, outputs: list[Any], body: dict[str, Any], ask: Ask, created: int
) -> tuple[dict[str, Any], Usage | None]:
    """Returns the canonical reply of a task, and its usage; `created` is in Unix seconds, for the forms that have
    it."""
    form = _OWN.get(task)
    if form is None:
        return pipelines.reply(task, model, outputs, ask.single), None
    if form is images:
        return images.reply(task, model, outputs, body, created)
    made: tuple[dict[str, Any], Usage] = form.reply(task, model, outputs, body)
    return made
