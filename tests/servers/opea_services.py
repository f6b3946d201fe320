"""Two services on OPEA's own library, run by the interpreter of an environment that has `opea-comps`:

    python opea_services.py <port of a model's server> <port> <port>

A megaservice at /v1/chatqna of the first port, over a model that speaks the OpenAI wire; a reranker at /v1/reranking of
the second, which takes the longest document for the best.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from comps import (
    MicroService,
    ServiceOrchestrator,
    ServiceRoleType,
    ServiceType,
    opea_microservices,
    register_microservice,
)
from comps.cores.mega.utils import handle_message
from comps.cores.proto.api_protocol import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    RerankingRequest,
    RerankingResponse,
    RerankingResponseData,
    UsageInfo,
)
from comps.cores.proto.docarray import LLMParams
from fastapi import Request
from fastapi.responses import StreamingResponse

MODEL, MEGA, RERANKER = map(int, sys.argv[1:4])


class Orchestrator(ServiceOrchestrator):
    """One model, asked with the prompt that the messages were made into."""

    def align_inputs(self, inputs: Any, node: str, graph: Any, parameters: dict[str, Any], **_: Any) -> Any:
        message = {"role": "user", "content": inputs["text"]}
        return {"messages": [message], "max_tokens": parameters["max_tokens"], "stream": parameters["stream"]}

    def align_outputs(self, data: Any, *_: Any, **__: Any) -> Any:
        return {"text": data["choices"][0]["message"]["content"]}

    def align_generator(self, gen: Iterator[bytes], **_: Any) -> Iterator[str]:
        for line in b"".join(gen).split(b"\n\n"):
            if line.startswith(b"data: {"):
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if content:
                    yield f"data: {content.encode()!r}\n\n"
        yield "data: [DONE]\n\n"


orchestrator = Orchestrator()
orchestrator.add(
    MicroService(
        name="llm",
        host="127.0.0.1",
        port=MODEL,
        endpoint="/v1/chat/completions",
        use_remote_service=True,
        service_type=ServiceType.LLM,
    )
)


async def chatqna(request: Request) -> Any:
    body = await request.json()
    asked = ChatCompletionRequest.model_validate(body)
    parameters = LLMParams(max_tokens=asked.max_tokens or 1024, stream=body.get("stream", True))
    text = handle_message(asked.messages)
    results, graph = await orchestrator.schedule(initial_inputs={"text": text}, llm_parameters=parameters)
    for result in results.values():
        if isinstance(result, StreamingResponse):
            return result
    message = ChatMessage(role="assistant", content=results[graph.all_leaves()[-1]]["text"])
    choice = ChatCompletionResponseChoice(index=0, message=message, finish_reason="stop")
    return ChatCompletionResponse(model="chatqna", choices=[choice], usage=UsageInfo())


@register_microservice(
    name="reranker", service_type=ServiceType.RERANK, endpoint="/v1/reranking", host="127.0.0.1", port=RERANKER
)
async def rerank(asked: RerankingRequest) -> RerankingResponse:
    ranked = sorted(asked.retrieved_docs, key=lambda document: -len(document.text))[: asked.top_n]
    data = [RerankingResponseData(text=document.text, score=len(document.text) / 10) for document in ranked]
    return RerankingResponse(reranked_docs=data)


if os.fork() == 0:
    opea_microservices["reranker"].start()
    os._exit(0)
service = MicroService(
    "ChatQnA",
    service_role=ServiceRoleType.MEGASERVICE,
    host="127.0.0.1",
    port=MEGA,
    endpoint="/v1/chatqna",
    input_datatype=ChatCompletionRequest,
    output_datatype=ChatCompletionResponse,
)
service.add_route("/v1/chatqna", chatqna, methods=["POST"])
service.start()
