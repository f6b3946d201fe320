"""Two services on OPEA's own library, run by the interpreter of an environment that has `opea-comps`:

    python opea_services.py <port of a model's server> <port> <port> <port> <port> <port>

A megaservice at /v1/chatqna of the first port, over a model that speaks the OpenAI wire; a reranker at /v1/reranking of
the second, which takes the longest document for the best; a retriever at /v1/retrieval of the third; a guardrail at
/v1/guardrails of the fourth, which knows one bad word; a data preparation at /v1/dataprep/* of the fifth, with the form
and the replies of GenAIComps' redis.py.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

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
    RetrievalRequest,
    RetrievalResponse,
    RetrievalResponseData,
    UsageInfo,
)
from comps.cores.proto.docarray import LLMParams, TextDoc
from fastapi import Body, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse

MODEL, MEGA, RERANKER, RETRIEVER, GUARD, DATAPREP = map(int, sys.argv[1:7])


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


@register_microservice(
    name="retriever", service_type=ServiceType.RETRIEVER, endpoint="/v1/retrieval", host="127.0.0.1", port=RETRIEVER
)
async def retrieve(asked: RetrievalRequest) -> RetrievalResponse:
    size = len(asked.embedding or ())
    data = [RetrievalResponseData(text=f"{asked.input} {rank}", metadata={"size": size}) for rank in range(asked.k)]
    return RetrievalResponse(retrieved_docs=data)


@register_microservice(
    name="guard", service_type=ServiceType.GUARDRAIL, endpoint="/v1/guardrails", host="127.0.0.1", port=GUARD
)
async def guard(asked: TextDoc) -> TextDoc:
    if "poison" not in asked.text:
        return TextDoc(text=asked.text)
    return TextDoc(text="Violated policies: Violence and Hate, please check your input.", downstream_black_list=[".*"])


files: dict[str, int] = {}


@register_microservice(
    name="dataprep", service_type=ServiceType.DATAPREP, endpoint="/v1/dataprep/ingest", host="127.0.0.1", port=DATAPREP
)
async def ingest(
    uploaded: Annotated[list[UploadFile] | None, File(alias="files")] = None,
    link_list: Annotated[str | None, Form()] = None,
    chunk_size: Annotated[int, Form()] = 1500,
) -> Any:
    for each in uploaded or ():
        if each.filename in files:
            raise HTTPException(400, f"Uploaded file {each.filename} already exists.")
        files[str(each.filename)] = len(await each.read())
    for link in json.loads(link_list or "[]"):
        files[link] = chunk_size
    return {"status": 200, "message": "Data preparation succeeded"}


@register_microservice(
    name="dataprep", service_type=ServiceType.DATAPREP, endpoint="/v1/dataprep/get", host="127.0.0.1", port=DATAPREP
)
async def listed() -> Any:
    return [{"name": name, "id": name, "type": "File", "parent": ""} for name in files]


@register_microservice(
    name="dataprep", service_type=ServiceType.DATAPREP, endpoint="/v1/dataprep/delete", host="127.0.0.1", port=DATAPREP
)
async def delete(file_path: Annotated[str, Body(embed=True)]) -> Any:
    if file_path == "all":
        files.clear()
    elif files.pop(file_path, None) is None:
        raise HTTPException(404, "File not found in db. Please check file_path.")
    return {"status": True}


for name in ("reranker", "retriever", "guard", "dataprep"):
    if os.fork() == 0:
        opea_microservices[name].start()
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
