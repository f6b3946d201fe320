"""The peers: other clients and gateways, each set up as in its documentation, without a database.

They run in a Python environment of their own, made once below benchmarks/.peers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from contest import PEERS

from overhead.load import BODY, KEY, MESSAGES, MODEL, STREAM_BODY, Call, Contestant

PACKAGES = ("httpx2", "openai", "tensorzero", "litellm")

_TENSORZERO = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true

[models.{model}]
routing = ["nginx"]
timeouts = {{ non_streaming.total_ms = 600000 }}

[models.{model}.providers.nginx]
type = "openai"
model_name = "{model}"
api_base = "{base_url}/"
api_key_location = "env::OPENAI_API_KEY"
"""


def openai_sdk(path: str = "v1", stream: bool = False) -> Contestant:
    """The OpenAI SDK, with its default HTTP client."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        from openai import AsyncOpenAI

        async with AsyncOpenAI(base_url=f"{origin}/{path}", api_key=KEY, max_retries=5) as client:

            async def post() -> int:
                await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
                return 1

            async def take() -> int:
                return await _count(await client.chat.completions.create(**STREAM_BODY))  # type: ignore[call-overload]

            yield take if stream else post

    return contestant


def tensorzero(path: str = "v1", stream: bool = False) -> Contestant:
    """TensorZero's gateway in the process, without its database."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        os.environ["OPENAI_API_KEY"] = KEY
        from tensorzero import AsyncTensorZeroGateway

        name = "measured"
        question: Any = {"system": MESSAGES[0]["content"], "messages": MESSAGES[1:]}
        parameters: Any = {"chat_completion": {"max_tokens": BODY["max_tokens"], "temperature": BODY["temperature"]}}
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "tensorzero.toml"
            config.write_text(_TENSORZERO.format(model=name, base_url=f"{origin}/{path}"))
            async with await AsyncTensorZeroGateway.build_embedded(config_file=str(config)) as client:

                async def ask(stream: bool) -> Any:
                    return await client.inference(model_name=name, input=question, params=parameters, stream=stream)

                async def post() -> int:
                    await ask(False)
                    return 1

                async def take() -> int:
                    return await _count(await ask(True))

                yield take if stream else post

    return contestant


def litellm_router() -> Contestant:
    """LiteLLM's Router over one deployment."""

    @asynccontextmanager
    async def contestant(origin: str) -> AsyncIterator[Call]:
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch prices from the internet
        import litellm

        litellm.telemetry = False
        deployment = {"model": f"openai/{MODEL}", "api_base": f"{origin}/v1", "api_key": KEY}
        router = litellm.Router([{"model_name": MODEL, "litellm_params": deployment}], num_retries=5)

        async def post() -> int:
            await router.acompletion(**BODY)  # type: ignore[arg-type]
            return 1

        yield post

    return contestant


async def _count(chunks: Any) -> int:
    return sum([1 async for _ in chunks])


def peers_python() -> str:
    """Returns a Python with the peers' packages, without ours. Made at the first call, which needs a package
    registry."""
    folder = PEERS / "overhead"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([str(python), "-c", f"import {', '.join(PACKAGES)}"], capture_output=True).returncode != 0:
        print(f"installing {', '.join(PACKAGES)} into {folder}", file=sys.stderr)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return str(python)


def versions(python: str) -> str:
    """The peers' versions, in one line."""
    script = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = subprocess.run([python, "-c", script, *PACKAGES], capture_output=True, text=True, check=True).stdout.split()
    return ", ".join(f"{package} {number}" for package, number in zip(PACKAGES, found, strict=True))
