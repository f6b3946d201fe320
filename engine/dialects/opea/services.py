"""OPEA's services that take no chat: guardrails, retrieval, data preparation, translation, summaries.

Canonical forms: a guardrail is a `moderation`, in OpenAI's form. The others have `inputs` and `parameters`, and answer
with `outputs`. Sources: OPEA's GenAIComps 1.5, comps/cores/proto (api_protocol.py: RetrievalRequest, DataprepRequest;
docarray.py: TextDoc), comps/guardrails, comps/dataprep/src and its README_redis.md; GenAIExamples, DocSum/docsum.py,
CodeTrans/code_translation.py, Translation/translation.py.
"""

from __future__ import annotations

import re
from typing import Any

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media
from engine.dialects.client import WireCall
from engine.dialects.codecs.multipart import write_form
from engine.dialects.common.json_body import written
from engine.dialects.common.unsupported import Unsupported

TASKS = frozenset(("moderation", "retrieval", "dataprep", "translation", "summarization"))
TRANSLATORS = {"codetrans": "source_code", "translation": "source_language"}
"""Megaservice → the field with what is to be translated."""
_COMMON = frozenset(("model", "stream", "stream_options", "inputs", "parameters"))
_SEARCH = frozenset(("search_type", "k", "distance_threshold", "fetch_k", "lambda_mult", "score_threshold"))
_SUMMARY = frozenset(
    (
        "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "repetition_penalty",
        "language", "summary_type", "chunk_size", "chunk_overlap",
    )
)  # fmt: skip
_INGEST = frozenset(
    ("chunk_size", "chunk_overlap", "process_table", "table_strategy", "index_name", "ingest_from_graphDB")
)
_OPERATIONS = ("ingest", "get", "delete")
_VIOLATED = re.compile(r"Violated policies: (.+?), please check your input")


def write(task: str, body: dict[str, Any], model: str, unsupported: Unsupported) -> WireCall:
    """The call. Raises InvalidRequest."""
    if task == "moderation":
        return _guardrail(body, unsupported)
    parameters = _parameters(body, unsupported)
    inputs = body.get("inputs")
    if task == "retrieval":
        return WireCall("POST", "/retrieval", written(_retrieval(inputs, parameters, unsupported)))
    if task == "dataprep":
        return _dataprep(inputs, parameters, unsupported)
    if type(inputs) is not str or not inputs:
        raise InvalidRequest("body.inputs: expected one text that is not empty; send one request for each text")
    if task == "summarization":
        kept = {name: value for name, value in parameters.items() if _kept(name, _SUMMARY, unsupported)}
        wire = {"type": "text", "messages": inputs, **kept, "stream": False}
        return WireCall("POST", "/docsum", written(wire))
    return _translation(inputs, parameters, model, unsupported)


def canonical(task: str, body: Any) -> dict[str, Any] | None:
    """Returns the reply's body; None if it is not of its task."""
    if task == "moderation":
        return _moderated(body)
    if task == "retrieval":
        found = body.get("retrieved_docs") if type(body) is dict else None
        if type(found) is not list or not all(type(each) is dict and type(each.get("text")) is str for each in found):
            return None
        outputs: Any = [{name: each[name] for name in ("text", "metadata") if each.get(name)} for each in found]
    elif task == "dataprep":
        if type(body) not in (dict, list):
            return None
        outputs = body
    else:
        text = _text_of(body)
        if text is None:
            return None
        outputs = [{"summary_text" if task == "summarization" else "translation_text": text}]
    return {"object": task, "model": "", "outputs": outputs}


def _guardrail(body: dict[str, Any], unsupported: Unsupported) -> WireCall:
    text = body.get("input")
    if type(text) is list and len(text) == 1:
        text = text[0]
    if type(text) is dict and text.get("type") == "text":
        text = text.get("text")
    if type(text) is not str or not text:
        raise InvalidRequest("body.input: OPEA's guardrails read one text a request; send one request for each")
    for name, value in body.items():
        if name not in ("input", "model"):
            unsupported.lose_field(name, value)
    return WireCall("POST", "/guardrails", written({"text": text}))


def _moderated(body: Any) -> dict[str, Any] | None:
    """A service that finds nothing sends the text back; what it finds is in a sentence."""
    if type(body) is not dict or "text" not in body:
        return None
    flagged = bool(body.get("downstream_black_list"))
    found = _VIOLATED.search(body["text"]) if flagged and type(body["text"]) is str else None
    categories = {found[1]: True} if found else {}
    return {"model": "", "results": [{"flagged": flagged, "categories": categories, "category_scores": {}}]}


def _retrieval(inputs: Any, parameters: dict[str, Any], unsupported: Unsupported) -> dict[str, Any]:
    given = {"text": inputs} if type(inputs) is str else inputs
    if type(given) is not dict or not (given.keys() & {"text", "embedding"}) or given.keys() - {"text", "embedding"}:
        raise InvalidRequest('body.inputs: expected a text, or {"text": …, "embedding": [numbers]}')
    wire: dict[str, Any] = {}
    if given.get("text") is not None:
        wire["input"] = given["text"]
    if given.get("embedding") is not None:
        wire["embedding"] = given["embedding"]
    return wire | {name: value for name, value in parameters.items() if _kept(name, _SEARCH, unsupported)}


def _dataprep(inputs: Any, parameters: dict[str, Any], unsupported: Unsupported) -> WireCall:
    operation = parameters.pop("operation", "ingest")
    if operation not in _OPERATIONS:
        raise InvalidRequest(f"body.parameters.operation: {operation!r} is not one; one of: {', '.join(_OPERATIONS)}")
    if operation != "ingest":
        for name in parameters:
            unsupported.lose(f"body.parameters.{name}")
        if operation == "get":
            return WireCall("POST", "/dataprep/get", b"{}")
        path = inputs.get("file_path") if type(inputs) is dict else inputs
        if type(path) is not str or not path:
            raise InvalidRequest('body.inputs.file_path: expected the id of a file, or "all"')
        return WireCall("POST", "/dataprep/delete", written({"file_path": path}))
    given = inputs if type(inputs) is dict else {}
    files, links = given.get("files") or [], given.get("links") or []
    if not (files or links) or given.keys() - {"files", "links"}:
        raise InvalidRequest('body.inputs: expected {"files": [files]} or {"links": [addresses]}')
    if not all(isinstance(each, Media) for each in files):
        raise InvalidRequest("body.inputs.files: expected a list of files")
    fields: list[tuple[str, str | Media]] = [("files", each) for each in files]
    if links:
        fields.append(("link_list", written(links).decode()))
    for name, value in parameters.items():
        if _kept(name, _INGEST, unsupported):
            fields.append((name, value if type(value) is str else written(value).decode()))
    content, kind = write_form(fields)
    return WireCall("POST", "/dataprep/ingest", content, {"content-type": kind})


def _translation(text: str, parameters: dict[str, Any], model: str, unsupported: Unsupported) -> WireCall:
    field = TRANSLATORS.get(model)
    if field is None:
        raise InvalidRequest(f"model.name: {model!r} does not translate; one of: {', '.join(TRANSLATORS)}")
    wire: dict[str, Any] = {}
    for name, their in (("src_lang", "language_from"), ("tgt_lang", "language_to")):
        language = parameters.pop(name, None)
        if type(language) is not str or not language:
            raise InvalidRequest(f"body.parameters.{name}: expected the name of a language, such as English or Python")
        wire[their] = language
    for name in parameters:
        unsupported.lose(f"body.parameters.{name}")
    return WireCall("POST", f"/{model}", written({**wire, field: text}))


def _parameters(body: dict[str, Any], unsupported: Unsupported) -> dict[str, Any]:
    for name, value in body.items():
        if name not in _COMMON:
            unsupported.lose_field(name, value)
    given = body.get("parameters") or {}
    if type(given) is not dict:
        raise InvalidRequest("body.parameters: expected an object")
    return {name: value for name, value in given.items() if value is not None}


def _kept(name: str, known: frozenset[str], unsupported: Unsupported) -> bool:
    if name not in known:
        unsupported.lose(f"body.parameters.{name}")
    return name in known


def _text_of(body: Any) -> str | None:
    """The text of a megaservice's whole reply, which is a chat's."""
    choices = body.get("choices") if type(body) is dict else None
    message = choices[0].get("message") if type(choices) is list and choices and type(choices[0]) is dict else None
    text = message.get("content") if type(message) is dict else None
    return text if type(text) is str else None
