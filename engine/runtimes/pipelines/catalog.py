"""The table of our own pipelines, one file a kind, in the form of transformers' (`Pipeline`: preprocess, _forward,
postprocess).

They are for the tasks that transformers has no pipeline for, or an incomplete one. One whose model is not
of transformers' has the form and not the base class: `preprocess` gives a list of rows, `forward` a batch of them,
`postprocess` gets the outputs of all rows.
"""

from __future__ import annotations

import importlib
from typing import Any

OWN = {
    "forecast": "forecasting:Forecast",
    "synthesis": "speech_synthesis:Synthesis",
    "video-classes": "video_classification:VideoClasses",
    "caption": "image_to_text:Caption",
    "picture-answer": "image_to_text:PictureAnswer",
    "summarization": "text_to_text:Summarization",
    "translation": "text_to_text:Translation",
    "question-answering": "question_answering:QuestionAnswering",
    "relevance": "relevance:Relevance",
    "token-vectors": "token_embeddings:TokenVectors",
    "sparse-vector": "token_embeddings:SparseVector",
    "pictures": "text_to_image:Pictures",
    "voice-activity": "voice_activity:VoiceActivity",
    "speech-recognition": "speech_recognition:SpeechRecognition",
}
"""Module and class, by the name that engine.tasks.pipelines gives it."""


def own(name: str) -> Any:
    """The class; None: it is one of transformers' own."""
    where = OWN.get(name)
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
