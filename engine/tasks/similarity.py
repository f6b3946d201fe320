"""Task `sentence-similarity`: Hugging Face's Inference API, `inputs` with `source_sentence` and `sentences`.

A model for sentence embeddings answers it: the cosine of each sentence's vector and the source's.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.tasks import fields
from engine.tasks.local_model import Embeddings


def read(body: dict[str, Any]) -> list[str]:
    """The source sentence and then the others. Raises InvalidRequest with the field's path."""
    inputs = body.get("inputs")
    if not isinstance(inputs, dict):
        raise InvalidRequest("body.inputs: expected an object with source_sentence and sentences")
    strange = inputs.keys() - {"source_sentence", "sentences"}
    if strange:
        raise InvalidRequest(f"body.inputs.{min(strange)}: sentence-similarity reads source_sentence, sentences")
    if body.get("parameters"):
        raise InvalidRequest("body.parameters: sentence-similarity has none")
    sentences = inputs.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise InvalidRequest("body.inputs.sentences: expected a list with at least one text")
    texts = [_text(inputs.get("source_sentence"), "body.inputs.source_sentence")]
    return texts + [_text(each, f"body.inputs.sentences[{index}]") for index, each in enumerate(sentences)]


def reply(found: Embeddings, model: str) -> tuple[dict[str, Any], Usage]:
    """The canonical reply: a number from -1 to 1 for each sentence."""
    import numpy as np

    lengths = np.linalg.norm(found.vectors, axis=1).clip(1e-12)
    units = found.vectors / lengths[:, None]
    usage = Usage(sum(found.tokens), 0)
    return {"object": "sentence-similarity", "model": model, "outputs": (units[1:] @ units[0]).tolist()}, usage


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where}: expected text")
    return fields.whole_text(value, where)
