"""Tasks of a model in this process that are no chat and no embedding: which pipeline reads and writes for each.

A pipeline of transformers does its own pre- and post-processing, as it is; only the model between them, and the batches
that it gets, are ours. Where transformers has none (any more), `engine/runtimes/pipelines` has one. Requests are
`{"inputs": …, "parameters": {…}}`; replies `{"object": TASK, "model": …, "outputs": …}`, where `outputs` is what the
pipeline says: for a list of inputs a list. Tasks with another form have a file of their own: `forms.py` lists them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.tasks import generation

_LABELS = frozenset({"candidate_labels"})


@dataclass(frozen=True, slots=True)
class PipelineTask:
    """A task that a pipeline of transformers does."""

    pipeline: str
    """transformers' name of it, or its name in engine.runtimes.pipelines.OWN."""
    medium: str = "text"
    """The kind of `inputs`: text; image, audio or video; numbers; or fields: an object, whose fields the pipeline
    reads."""
    parameters: frozenset[str] = frozenset()
    """The parameters that a request may set."""
    needs: frozenset[str] = frozenset()
    """The parameters that it must set."""
    fields: dict[str, str] = field(default_factory=dict)
    """Fields of an object in `inputs`, and the pipeline's names for them."""
    all_fields: bool = False
    """`inputs` must be such an object, and have every one of them."""


SERIES = (
    "past_values", "past_time_features", "future_time_features", "past_observed_mask", "static_real_features",
    "static_categorical_features",
)  # fmt: skip
"""The inputs of a model that forecasts."""
_CLASSES = frozenset({"top_k", "function_to_apply"})
_ZERO_SHOT = _LABELS | {"hypothesis_template"}
_GENERATED = generation.NAMES | {"truncation", "clean_up_tokenization_spaces"}

PIPELINES: dict[str, PipelineTask] = {
    "fill-mask": PipelineTask("fill-mask", parameters=frozenset({"top_k", "targets"})),
    "text-classification": PipelineTask(
        "text-classification", parameters=_CLASSES, fields={"text": "text", "text_pair": "text_pair"}
    ),
    "token-classification": PipelineTask(
        "token-classification", parameters=frozenset({"aggregation_strategy", "ignore_labels", "stride"})
    ),
    "zero-shot-classification": PipelineTask(
        "zero-shot-classification", parameters=_ZERO_SHOT | {"multi_label"}, needs=_LABELS
    ),
    "table-question-answering": PipelineTask(
        "table-question-answering",
        "fields",
        frozenset({"padding", "sequential", "truncation"}),
        fields={"table": "table", "query": "query"},
        all_fields=True,
    ),
    "question-answering": PipelineTask(
        "question-answering",
        "fields",
        frozenset(
            {"top_k", "doc_stride", "max_answer_len", "max_seq_len", "max_question_len", "handle_impossible_answer"}
        ),
        fields={"question": "question", "context": "context"},
        all_fields=True,
    ),
    "summarization": PipelineTask("summarization", parameters=_GENERATED),
    "translation": PipelineTask("translation", parameters=_GENERATED | {"src_lang", "tgt_lang"}),
    "rerank": PipelineTask("relevance", fields={"text": "text", "text_pair": "text_pair"}),
    "token-embedding": PipelineTask("token-vectors", parameters=frozenset({"truncation"})),
    "sparse-embedding": PipelineTask("sparse-vector", parameters=frozenset({"truncation"})),
    "image-feature-extraction": PipelineTask("image-feature-extraction", "image", frozenset({"pool"})),
    "image-classification": PipelineTask("image-classification", "image", _CLASSES),
    "zero-shot-image-classification": PipelineTask(
        "zero-shot-image-classification", "image", _ZERO_SHOT, _LABELS, {"image": "image"}
    ),
    "object-detection": PipelineTask("object-detection", "image", frozenset({"threshold"})),
    "zero-shot-object-detection": PipelineTask(
        "zero-shot-object-detection", "image", _LABELS | {"threshold", "top_k"}, _LABELS, {"image": "image"}
    ),
    "image-segmentation": PipelineTask(
        "image-segmentation",
        "image",
        frozenset({"mask_threshold", "overlap_mask_area_threshold", "subtask", "threshold"}),
    ),
    "mask-generation": PipelineTask(
        "mask-generation",
        "image",
        frozenset({"points_per_batch", "pred_iou_thresh", "stability_score_thresh", "mask_threshold"}),
    ),
    "image-to-text": PipelineTask("caption", "image", generation.NAMES | {"prompt"}),
    "visual-question-answering": PipelineTask(
        "picture-answer", "image", generation.NAMES, fields={"image": "image", "question": "question"}, all_fields=True
    ),
    "depth-estimation": PipelineTask("depth-estimation", "image"),
    "document-question-answering": PipelineTask(
        "document-question-answering",
        "image",
        frozenset({"doc_stride", "handle_impossible_answer", "lang", "max_answer_len", "max_question_len", "top_k"}),
        fields={"image": "image", "question": "question", "word_boxes": "word_boxes"},
    ),
    "audio-classification": PipelineTask("audio-classification", "audio", _CLASSES),
    "voice-activity-detection": PipelineTask(
        "voice-activity",
        "audio",
        frozenset({"threshold", "min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"}),
    ),
    "transcription": PipelineTask("speech-recognition", "audio"),
    "audio-translation": PipelineTask("speech-recognition", "audio"),
    "zero-shot-audio-classification": PipelineTask(
        "zero-shot-audio-classification", "audio", _ZERO_SHOT, _LABELS, {"audio": "audio"}
    ),
    "speech": PipelineTask("synthesis"),
    "text-to-audio": PipelineTask("synthesis", parameters=generation.NAMES),
    "image": PipelineTask("pictures"),
    "text-to-image": PipelineTask(
        "pictures",
        parameters=frozenset({"width", "height", "num_inference_steps", "guidance_scale", "negative_prompt", "seed"}),
    ),
    "time-series-forecasting": PipelineTask(
        "forecast",
        "numbers",
        frozenset({"seed"}),
        fields={name: name for name in SERIES},
    ),
    "video-classification": PipelineTask("video-classes", "video", _CLASSES | {"num_frames", "frame_sampling_rate"}),
}


def formats(tasks: Iterable[str], graphs: str) -> tuple[str, ...]:
    """Layouts of schemas.sources.Format in which a model for these tasks can come; `graphs`: in which this runtime
    reads a graph as it is."""
    wanted = set(tasks)
    if "transcription" in wanted:
        return ("safetensors", "ctranslate2")
    if wanted == {"voice-activity-detection"}:
        return (graphs,)
    return ("safetensors", "state_dict") if wanted == {"image-classification"} else ("safetensors",)


@dataclass(frozen=True, slots=True)
class Ask:
    """The inputs and parameters of a request to a pipeline."""

    inputs: list[Any]
    single: bool
    """`inputs` was not a list, so `outputs` isn't one."""
    parameters: dict[str, Any]
    where: str = "body.inputs"
    """The path of the inputs in the body, for messages."""
    settings: str = "body.parameters"
    """The path of the parameters in it."""


def read(task: str, body: dict[str, Any]) -> Ask:
    """The inputs and parameters of a body whose media were read. Raises InvalidRequest."""
    known = PIPELINES[task]
    parameters = body.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise InvalidRequest("body.parameters: expected an object")
    strange = body.keys() - {"inputs", "parameters", "model", "stream"}
    if strange:
        raise InvalidRequest(f"body.{min(strange)}: {task} takes inputs and parameters; put it into parameters")
    for name in sorted(parameters):
        if name not in known.parameters:
            near = nearest(name, known.parameters) if known.parameters else f"{task} has none"
            raise InvalidRequest(f"body.parameters.{name}: {task} has no such parameter; {near}")
    for name in sorted(known.needs):
        if not parameters.get(name):
            raise InvalidRequest(f"body.parameters.{name}: {task} needs it")
    inputs = body.get("inputs")
    single = not isinstance(inputs, list) or (known.medium == "numbers" and not _are_several(inputs))
    many = [inputs] if single else list(inputs or ())
    if not many:
        raise InvalidRequest("body.inputs: expected at least one input")
    for index, each in enumerate(many):
        _check(known, task, each, "body.inputs" if single else f"body.inputs[{index}]")
    return Ask(many, single, parameters)


def reply(task: str, model: str, outputs: list[Any], single: bool) -> dict[str, Any]:
    """The canonical reply."""
    return {"object": task, "model": model, "outputs": outputs[0] if single else outputs}


def _check(known: PipelineTask, task: str, value: Any, where: str) -> None:
    if isinstance(value, dict):
        if not known.fields:
            raise InvalidRequest(f"{where}: {task} takes {known.medium}, not an object")
        strange = value.keys() - known.fields.keys()
        if strange:
            raise InvalidRequest(f"{where}.{min(strange)}: {task} reads {', '.join(known.fields)}")
        for name in known.fields:
            if known.all_fields and value.get(name) in (None, ""):
                raise InvalidRequest(f"{where}.{name}: {task} needs it")
    elif known.all_fields:
        raise InvalidRequest(f"{where}: {task} takes an object with {' and '.join(known.fields)}")
    elif known.medium == "numbers" and not isinstance(value, list):
        raise InvalidRequest(f"{where}: expected a list of numbers, or an object with past_values")
    elif known.medium == "text" and (not isinstance(value, str) or not value.strip()):
        raise InvalidRequest(f"{where}: expected text")


def _are_several(inputs: list[Any]) -> bool:
    """Returns True if a list holds several series: objects, or lists of lists. A list of lists of numbers is one
    series."""
    first = inputs[0] if inputs else None
    return isinstance(first, dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], list))
