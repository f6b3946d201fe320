"""Rerank against llama.cpp's own server. Its model is no reranker: the form counts here, not the order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.request import Context, EngineRecord, Request, Result
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec

pytestmark = pytest.mark.slow
ASKED = {"query": "What is the capital of France?", "documents": ["Berlin", {"text": "Paris"}, "Rome"]}


@pytest.fixture(scope="module")
def url(smollm2_gguf: Path) -> Iterator[str]:
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_gguf)
    params.n_ctx, params.n_parallel, params.port = 1024, 2, 0
    params.cpuparams.n_threads = 2
    params.n_gpu_layers = 0
    params.verbosity = 0
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
async def executor(url: str) -> AsyncIterator[RemoteExecutor]:
    provider = RemoteProviderSpec(
        kind="remote",
        name="llama_cpp",
        base_url=url,
        credential=CredentialSpec(required=False),
        transport=TransportSpec(trust_env=False),
    )
    model = ModelSpec(name="ranker", ids={"llama_cpp": "ranker"})
    services = Services()
    yield RemoteExecutor(
        TargetSpec(provider=provider, model=model, hardware=AutoHardwareSpec(kind="auto")),
        services,
    )
    await services.aclose()


async def ask(executor: RemoteExecutor, **body: Any) -> Result:
    return await executor(Request("rerank", {**ASKED, **body}), Context(EngineRecord(), 0.0))


async def test_every_document_gets_its_score_best_first(executor: RemoteExecutor) -> None:
    result = await ask(executor)
    assert result.body is not None
    scores = [each["relevance_score"] for each in result.body["results"]]
    assert sorted(each["index"] for each in result.body["results"]) == [0, 1, 2]
    assert scores == sorted(scores, reverse=True)
    assert result.usage is not None
    assert result.usage.input_tokens > 0


async def test_only_the_best_come_back_with_their_texts(executor: RemoteExecutor) -> None:
    result = await ask(executor, top_n=1, return_documents=True)
    assert result.body is not None
    (best,) = result.body["results"]
    assert best["document"] == {"text": ["Berlin", "Paris", "Rome"][best["index"]]}


async def test_a_request_without_documents_is_refused(executor: RemoteExecutor) -> None:
    with pytest.raises(InvalidRequest, match="HTTP 400"):
        await ask(executor, documents=[])
