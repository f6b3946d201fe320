"""The requests of OPEA's services, made of the canonical form.

Sources: OPEA's GenAIComps 1.5, comps/cores/proto/api_protocol.py (ChatCompletionRequest, RerankingRequest) and
comps/cores/mega/utils.py (handle_message); GenAIExamples, ChatQnA/chatqna.py (handle_request).
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest
from engine.dialects.common.unsupported import Unsupported

_MEGA_FIELDS = frozenset(
    (
        "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "repetition_penalty",
        "chat_template", "search_type", "k", "distance_threshold", "fetch_k", "lambda_mult", "score_threshold", "top_n",
        "index_name",
    )
)  # fmt: skip
"""The fields that a megaservice hands on: to its model, its retriever and its reranker."""
_OWN_FIELDS = {"docsum": frozenset(("language", "summary_type", "chunk_size", "chunk_overlap"))}
"""The further fields of one megaservice."""
_MICRO_FIELDS = _MEGA_FIELDS | frozenset(
    (
        "modalities", "logit_bias", "logprobs", "top_logprobs", "n", "service_tier", "stop", "stream_options", "tools",
        "parallel_tool_calls", "user", "language", "image_path", "audio_path", "best_of", "suffix", "typical_p",
        "timeout", "echo", "add_generation_prompt", "add_special_tokens", "documents", "chat_template_kwargs",
    )
)  # fmt: skip
"""The fields that the microservice of a model takes as they are; those that it takes in part have a function each."""
_HANDLED = frozenset(("messages", "model", "stream", "max_completion_tokens", "tool_choice", "response_format", "seed"))
_LAST_ROLES = ("user", "assistant")


def megaservice(service: str, body: dict[str, Any], stream: bool, unsupported: Unsupported) -> dict[str, Any]:
    """The body of a call to a megaservice, which makes one prompt of all messages. Raises InvalidRequest."""
    pictures: list[dict[str, Any]] | None = [] if service == "visualqna" else None
    wire: dict[str, Any] = {"messages": _prompt_messages(body.get("messages"), unsupported, pictures)}
    if pictures is not None:
        wire["messages"][-1] = _with_picture(wire["messages"][-1], pictures)
    if service == "docsum":
        wire["type"] = "text"
    known = _MEGA_FIELDS | _OWN_FIELDS.get(service, frozenset())
    for name, value in body.items():
        if name in known:
            if value is not None:
                wire[name] = value
        elif name not in ("messages", "model", "stream", "stream_options", "max_completion_tokens"):
            unsupported.lose_field(name, value)
    _limit(wire, body)
    if wire.get("temperature") == 0:
        unsupported.warnings.append("body.temperature: a megaservice reads 0 as 0.01")
    # Left out, it means true.
    wire["stream"] = stream
    return wire


def microservice(body: dict[str, Any], unsupported: Unsupported) -> dict[str, Any]:
    """The body of a call to the microservice of a model, which drops fields that it does not know. Raises
    InvalidRequest."""
    wire: dict[str, Any] = {"messages": [_plain_message(message) for message in _messages(body.get("messages"))]}
    for name, value in body.items():
        if name in _MICRO_FIELDS:
            if value is not None:
                wire[name] = value
        elif name not in _HANDLED:
            unsupported.lose_field(name, value)
    _limit(wire, body)
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        wire["tool_choice"] = choice
    elif body.get("tools") and choice != "none":
        unsupported.lose("body.tools", "OPEA's service calls a tool only where body.tool_choice names its function")
        wire.pop("tools", None)
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("text", "json_object"):
        wire["response_format"] = form
    else:
        unsupported.lose_field("response_format", form)
    seed = body.get("seed")
    if type(seed) is int and seed > 0:
        wire["seed"] = seed
    elif seed is not None:
        unsupported.lose("body.seed", "OPEA's service takes only a seed above 0")
    return wire


def reranking(body: dict[str, Any], unsupported: Unsupported) -> dict[str, Any]:
    """The body of a call to the microservice of a reranker. Raises InvalidRequest."""
    query, documents = body.get("query"), body.get("documents")
    if type(query) is not str or not query:
        raise InvalidRequest("body.query: expected a text that is not empty")
    if type(documents) is not list or not documents:
        raise InvalidRequest("body.documents: expected a list with at least one text")
    for name, value in body.items():
        if name not in ("query", "documents", "top_n", "return_documents", "model", "stream"):
            unsupported.lose_field(name, value)
    top_n = body.get("top_n")
    return {
        "input": query,
        "retrieved_docs": [{"text": _document(each, index, unsupported)} for index, each in enumerate(documents)],
        # Left out, it means 1.
        "top_n": top_n if type(top_n) is int and top_n > 0 else len(documents),
    }


def _document(document: Any, index: int, unsupported: Unsupported) -> str:
    text = document.get("text") if type(document) is dict else document
    if type(text) is not str:
        raise InvalidRequest(f'body.documents[{index}]: expected a text, or {{"text": …}}')
    if type(document) is dict:
        for name in document.keys() - {"text"}:
            unsupported.lose(f"body.documents[{index}].{name}")
    return text


def _limit(wire: dict[str, Any], body: dict[str, Any]) -> None:
    limit = body.get("max_completion_tokens")
    if limit is not None:
        wire["max_tokens"] = limit


def _messages(messages: Any) -> list[dict[str, Any]]:
    if type(messages) is not list or not messages or not all(type(each) is dict for each in messages):
        raise InvalidRequest('body.messages: expected a list with at least one message, {"role": …, "content": …}')
    return messages


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """A message without nulls, which the service refuses."""
    if None not in message.values():
        return message
    return {name: value for name, value in message.items() if value is not None} | {
        "content": message.get("content") or ""
    }


def _with_picture(message: dict[str, Any], pictures: list[dict[str, Any]]) -> dict[str, Any]:
    """The last message with the one image that the service looks at. Raises InvalidRequest."""
    if len(pictures) != 1:
        raise InvalidRequest(f"body.messages: visualqna looks at one image; got {len(pictures)}")
    return {**message, "content": [{"type": "text", "text": message["content"]}, *pictures]}


def _picture(part: dict[str, Any], where: str) -> dict[str, Any]:
    """An image as the service reads it: base64 without more, or an address. Raises InvalidRequest."""
    image = part.get("image_url")
    url = image.get("url") if type(image) is dict else image
    if type(url) is not str or not url:
        raise InvalidRequest(f"{where}.image_url.url: expected an address or a data: URL")
    return {"type": "image_url", "image_url": {"url": url.partition(",")[2] if url.startswith("data:") else url}}


def _prompt_messages(
    messages: Any, unsupported: Unsupported, pictures: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """The messages as texts. A megaservice keeps one system message, and puts it first. The images of one that looks
    at any are added to `pictures`."""
    system: list[str] = []
    rest: list[dict[str, Any]] = []
    for index, message in enumerate(_messages(messages)):
        where, role = f"body.messages[{index}]", message.get("role")
        for name in message.keys() - {"role", "content"}:
            if message[name]:
                unsupported.lose(f"{where}.{name}", "a megaservice reads only texts")
        text = _text(message.get("content"), f"{where}.content", unsupported, pictures)
        if role in ("system", "developer"):
            if rest:
                unsupported.lose(where, "a megaservice puts what the system says before all else; move it to the front")
            else:
                system.append(text)
        elif role in _LAST_ROLES:
            rest.append({"role": role, "content": text})
        else:
            unsupported.lose(where, f"a megaservice knows no role {role!r}")
    if not rest:
        raise InvalidRequest("body.messages: nothing is said by a user")
    return [{"role": "system", "content": "\n\n".join(system)}, *rest] if system else rest


def _text(content: Any, where: str, unsupported: Unsupported, pictures: list[dict[str, Any]] | None) -> str:
    if content is None or type(content) is str:
        return content or ""
    if type(content) is not list:
        raise InvalidRequest(f"{where}: expected text or a list of parts")
    texts = []
    for index, part in enumerate(content):
        if type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str:
            texts.append(part["text"])
        elif type(part) is dict and part.get("type") == "image_url" and pictures is not None:
            pictures.append(_picture(part, f"{where}[{index}]"))
        else:
            unsupported.lose(f"{where}[{index}]", "a megaservice reads only texts")
    return "\n".join(texts)
