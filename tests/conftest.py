"""What tests of several rooms share: scripted loopback servers, and real ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.scripted import Script, ScriptedServer

# A busy machine is no fault of the code under test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Workers that each compute on all processors wait for each other: four on two of them take twice as long.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if workers > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

Serve = Callable[..., Awaitable[ScriptedServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a scripted server: `server = await serve(script)`."""
    async with AsyncExitStack() as stack:

        async def start(script: Script, **options: Any) -> ScriptedServer:
            return await stack.enter_async_context(ScriptedServer(script, **options))

        yield start


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The default model's file, fetched once into the artifact cache."""
    from engine.artifacts.resolve import fetch
    from engine.config.compose import compose
    from engine.core.errors import EngineError

    try:
        return fetch(compose(["model=smollm2-135m"]).spec.model, ("gguf",)).path
    except EngineError as error:
        pytest.skip(f"the model can't be had here: {error}")


@pytest.fixture(scope="session")
def llama_cpp_url(smollm2_gguf: Path) -> Iterator[str]:
    """The base URL of llama.cpp's own server: SmolLM2-135M-Instruct, 2 slots of 512 tokens each."""
    with _LlamaCpp(smollm2_gguf) as url:
        yield url


@pytest.fixture(scope="session")
def llama_cpp_embedding_url(smollm2_gguf: Path) -> Iterator[str]:
    """llama.cpp's server again, for embeddings."""
    with _LlamaCpp(smollm2_gguf, embedding=True) as url:
        yield url


class _LlamaCpp:
    def __init__(self, model: Path, embedding: bool = False) -> None:
        xllamacpp = pytest.importorskip("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx, params.n_parallel, params.port = 1024, 2, 0
        params.cpuparams.n_threads = 2
        params.n_gpu_layers = 0
        params.verbosity = 0
        params.embedding = embedding
        if embedding:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        self._server = xllamacpp.Server(params)

    def __enter__(self) -> str:
        return f"{self._server.listening_address}/v1"

    def __exit__(self, *_: object) -> None:
        del self._server
