"""The table of our own pipelines, one file a kind, in the form of transformers' (`Pipeline`: preprocess, _forward,
postprocess).

They are for tasks for which transformers has no pipeline, or an incomplete one. A pipeline for a model outside
transformers has the same methods without the base class: `preprocess` returns a list of rows, `forward` takes a batch
of them, `postprocess` gets the outputs of all rows.
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
"""Name in engine.tasks.pipelines → module and class."""


def own(name: str) -> Any:
    """Returns the class; None for one of transformers' own."""
    where = OWN.get(name)
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
