"""With float32 on OpenVINO an answer depends neither on company nor on what was asked before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, Request, Result

pytestmark = pytest.mark.slow

QUESTIONS = (
    "What is the capital of France?",
    "What is 7 times 8?",
    "Give me a synonym of happy.",
    "What is the largest planet?",
)
WORDS = ("provider=local", "model=smollm2-135m", "hardware=openvino", "hardware.precision=f32")


def asked(sampling: dict[str, Any]) -> list[Request]:
    return [
        Request("chat", {"messages": [{"role": "user", "content": question}], "max_tokens": 16, **sampling})
        for question in QUESTIONS
    ]


def texts(results: list[Result]) -> list[str | None]:
    return [result.text for result in results]


async def test_an_answer_is_the_same_alone_in_company_and_after_others() -> None:
    pytest.importorskip("openvino_genai", reason="openvino-genai is not installed")
    async with Engine.compose([*WORDS, "hardware.prefix_caching=false"]) as engine:
        for sampling in ({"temperature": 0}, {"temperature": 1.0, "seed": 5}):
            alone = [await engine.submit(request) for request in asked(sampling)]
            together = await asyncio.gather(*(engine.submit(request) for request in asked(sampling)))
            assert all(result.ok for result in alone)
            assert texts(alone) == texts(together)
            for request in asked(sampling):
                request.body["max_tokens"] = 1
                await engine.submit(request)
            assert texts([await engine.submit(request) for request in asked(sampling)]) == texts(alone)
