"""Tasks of transformers' pipelines through the whole engine, on every hardware that is here."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import math
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request, Result
from engine.config.compose import compose
from engine.core.errors import SetupError
from engine.core.media_access import MediaAccess
from engine.schemas import RunSpec

pytestmark = pytest.mark.slow
Folder = Callable[[str], Path]


@functools.cache
def spec(folder: Path, task: str, *words: str, hardware: str = "cpu") -> RunSpec:
    source = f"{{kind: file, path: {folder}, format: safetensors}}"
    model = ["model=remote", "model.name=tiny", f"model.tasks=[{task}]", f"model.sources=[{source}]"]
    return compose(["provider=local", f"hardware={hardware}", *model, *words]).spec


async def ask(engine: Engine, task: str, inputs: Any, **parameters: Any) -> Result:
    return await engine.submit(Request(task, {"inputs": inputs, "parameters": parameters}))


async def answered(engine: Engine, task: str, inputs: Any, **parameters: Any) -> Any:
    result = await ask(engine, task, inputs, **parameters)
    assert result.error is None, result.error
    assert result.body is not None
    assert (result.body["object"], result.body["model"]) == (task, "tiny")
    return result.body["outputs"]


def picture(red: int = 200) -> bytes:
    from PIL import Image

    kept = io.BytesIO()
    Image.new("RGB", (50, 40), (red, 10, 10)).save(kept, "PNG")
    return kept.getvalue()


def sound(seconds: float = 0.5, rate: int = 8000) -> bytes:
    kept = io.BytesIO()
    with wave.open(kept, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        tone = (int(8000 * math.sin(index / 5)) for index in range(int(seconds * rate)))
        file.writeframes(b"".join(struct.pack("<h", value) for value in tone))
    return kept.getvalue()


def encoded(data: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(data).decode()}


ASKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "text-classification": ("hello world", {"top_k": 3}),
    "zero-shot-classification": ("hello world", {"candidate_labels": ["a b", "c", "d"]}),
    "token-classification": ("hello world", {"aggregation_strategy": "none"}),
    "fill-mask": ("hello [MASK]", {"top_k": 3}),
    "question-answering": ({"question": "hello", "context": "a b c hello world " * 20}, {"top_k": 3}),
    "token-embedding": (["hello", "a b"], {}),
    "sparse-embedding": (["hello", "a b"], {}),
    "time-series-forecasting": ([[index / 10, 1 - index / 5] for index in range(16)], {}),
    "image-classification": (encoded(picture()), {"top_k": 4}),
    "audio-classification": (encoded(sound()), {"top_k": 3}),
}


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in numbers(value[key])]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("task", ASKED)
async def test_a_task_gives_the_same_on_every_hardware(task: str, folder: Folder) -> None:
    inputs, parameters = ASKED[task]
    found = {}
    for hardware, exact in (("cpu", "hardware.dtype=float32"), ("openvino", "hardware.precision=f32")):
        async with Engine(spec(folder(task), task, exact, hardware=hardware)) as engine:
            found[hardware] = await answered(engine, task, inputs, **parameters)
    assert numbers(found["cpu"])
    assert numbers(found["openvino"]) == pytest.approx(numbers(found["cpu"]), abs=1e-4)


@pytest.mark.parametrize("kind", ["int8", "int8_full"])
async def test_a_classifier_with_smaller_numbers_says_nearly_the_same(kind: str, folder: Folder) -> None:
    pytest.importorskip("nncf")
    found = {}
    for each in ("none", kind):
        words = ("hardware.precision=f32", f"hardware.quantization={each}")
        async with Engine(
            spec(folder("text-classification"), "text-classification", *words, hardware="openvino")
        ) as engine:
            found[each] = await answered(engine, "text-classification", "hello world", top_k=3)
            runtime = await engine.pipeline.target_chains[0].executor._shared.runtime()  # type: ignore[attr-defined]
            assert runtime.device == "openvino:CPU:f32" + ("" if each == "none" else f":{each}")
    assert numbers(found[kind]) != numbers(found["none"])
    assert numbers(found[kind]) == pytest.approx(numbers(found["none"]), abs=0.02)


async def test_the_activations_of_a_model_that_generates_are_not_quantized(folder: Folder) -> None:
    pytest.importorskip("nncf")
    made = spec(folder("summarization"), "summarization", "hardware.quantization=int8_full", hardware="openvino")
    with pytest.raises(SetupError, match=r"int8_full is for models that do not generate\. Next: int8 or int4"):
        async with Engine(made) as engine:
            await engine.start()


async def test_many_at_once_go_together_and_change_nothing(folder: Folder) -> None:
    texts = ["hello " * (1 + index % 7) for index in range(40)]
    made = spec(folder("text-classification"), "text-classification", "hardware.dtype=float32")
    async with Engine(made) as engine:
        alone = [await answered(engine, "text-classification", text, top_k=3) for text in texts]
        many = await asyncio.gather(*(answered(engine, "text-classification", text, top_k=3) for text in texts))
        listed = await answered(engine, "text-classification", texts, top_k=3)
        runtime = await engine.pipeline.target_chains[0].executor._shared.runtime()  # type: ignore[attr-defined]
        counts = runtime._pipelines["text-classification"].batches.counts
    assert numbers(many) == pytest.approx(numbers(alone), abs=1e-5)
    assert numbers(listed) == pytest.approx(numbers(alone), abs=1e-5)
    assert counts.rows == 120
    assert counts.largest > 4
    assert counts.batches < 80


async def test_the_parts_of_a_long_context_compete(folder: Folder) -> None:
    asked = {"question": "hello", "context": "a b c hello world " * 20}
    async with Engine(spec(folder("question-answering"), "question-answering", "hardware.dtype=float32")) as engine:
        one = await answered(engine, "question-answering", asked)
        many = await answered(engine, "question-answering", asked, top_k=20, max_answer_len=3)
    assert one.keys() == {"score", "start", "end", "answer"}
    assert [answer["score"] for answer in many] == sorted((answer["score"] for answer in many), reverse=True)
    assert all(asked["context"][answer["start"] : answer["end"]] == answer["answer"] for answer in many)
    assert max(answer["start"] for answer in many) > 150  # the first window ends before that


async def test_several_series_are_several_forecasts(folder: Folder) -> None:
    series = [[[number / 10 + shift, 1.0] for number in range(16)] for shift in range(3)]
    task = "time-series-forecasting"
    async with Engine(spec(folder(task), task, "hardware.dtype=float32")) as engine:
        alone = [await answered(engine, task, each) for each in series]
        together = await answered(engine, task, series)
    assert numbers(together) == pytest.approx(numbers(alone), abs=1e-5)
    assert [len(each["forecast"]) for each in together] == [4, 4, 4]


async def test_a_seed_draws_the_same_future(folder: Folder) -> None:
    told = {
        "past_values": [float(index) for index in range(10)],
        "past_time_features": [[index / 10] for index in range(10)],
        "future_time_features": [[1.0], [1.1], [1.2]],
    }
    made = spec(folder("time-series-forecasting, drawn"), "time-series-forecasting", "hardware.dtype=float32")
    async with Engine(made) as engine:
        first, again = [await answered(engine, "time-series-forecasting", told, seed=4) for _ in range(2)]
        lacking = await ask(engine, "time-series-forecasting", {"past_values": told["past_values"]})
    assert first == again
    assert len(first["forecast"]) == 3
    assert lacking.error is not None
    assert "past_time_features: expected 10 lists of 1 numbers" in lacking.error.message


async def test_a_video_has_a_class(folder: Folder) -> None:
    av = pytest.importorskip("av")
    import numpy as np

    kept = io.BytesIO()
    with av.open(kept, "w", "mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade * 40, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    task = "video-classification"
    async with Engine(spec(folder(task), task, "hardware.dtype=float32")) as engine:
        found = await answered(engine, task, encoded(kept.getvalue()), top_k=2)
        wrong = await ask(engine, task, encoded(b"no video"))
    assert len(found) == 2
    assert found[0].keys() == {"label", "score"}
    assert wrong.error is not None
    assert "body.inputs: file can't be read as a video" in wrong.error.message


async def test_one_input_gives_one_output_and_a_list_a_list(folder: Folder) -> None:
    async with Engine(spec(folder("fill-mask"), "fill-mask")) as engine:
        one = await answered(engine, "fill-mask", "hello [MASK]", top_k=2)
        two = await answered(engine, "fill-mask", ["hello [MASK]", "[MASK] world"], top_k=2)
    assert [len(one), len(two), len(two[0])] == [2, 2, 2]
    assert one[0].keys() == {"score", "token", "token_str", "sequence"}


@pytest.mark.parametrize(
    ("task", "body", "said"),
    [
        ("text-classification", {"inputs": "a", "parameters": {"top": 1}}, "body.parameters.top: .*did you mean top_k"),
        ("text-classification", {"inputs": "  "}, "body.inputs: expected text"),
        ("text-classification", {"inputs": []}, "body.inputs: expected at least one"),
        ("text-classification", {"inputs": "a", "top_k": 2}, "body.top_k: .*put it into parameters"),
        ("text-classification", {"inputs": {"texts": "a"}}, "body.inputs.texts: .*reads text, text_pair"),
        ("fill-mask", {"inputs": "nothing to fill"}, "body.inputs: No mask_token"),
        ("zero-shot-classification", {"inputs": "a"}, "body.parameters.candidate_labels: .*needs it"),
        ("question-answering", {"inputs": {"question": "a"}}, "body.inputs.context: .*needs it"),
        ("question-answering", {"inputs": "a"}, "body.inputs: .*object with question and context"),
        (
            "question-answering",
            {"inputs": {"question": "a", "context": "b"}, "parameters": {"top_k": 0}},
            "body.parameters.top_k: .*at least 1",
        ),
        ("time-series-forecasting", {"inputs": [[1.0, 2.0]] * 9}, "body.inputs: the model reads 16 numbers"),
        ("time-series-forecasting", {"inputs": [1.0] * 16}, "body.inputs: the model reads 2 channels"),
        ("time-series-forecasting", {"inputs": "a"}, "body.inputs: expected a list of numbers"),
        ("image-classification", {"inputs": encoded(b"no picture")}, "body.inputs: .*not an image"),
        ("audio-classification", {"inputs": encoded(b"no sound")}, "body.inputs: .*can't be read as audio"),
    ],
)
async def test_what_can_not_be_read_is_refused_with_its_place(
    task: str, body: dict[str, Any], said: str, folder: Folder
) -> None:
    async with Engine(spec(folder(task), task)) as engine:
        result = await engine.submit(Request(task, body))
        assert result.error is not None
        assert result.error.kind == "invalid_request"
        with pytest.raises(type(result.error), match=said):
            raise result.error
        inputs, parameters = ASKED[task]
        assert await answered(engine, task, inputs, **parameters)  # and it goes on


async def test_a_picture_comes_from_a_file_below_the_root_only(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "red.png").write_bytes(picture())
    (tmp_path / "out.png").write_bytes(picture())
    task = "image-classification"
    async with Engine(spec(folder(task), task)) as engine:
        inline = await answered(engine, task, encoded(picture()), top_k=4)
        access = MediaAccess(tmp_path / "in")
        named = await engine.submit(Request(task, {"inputs": "red.png", "parameters": {"top_k": 4}}, media=access))
        outside = await engine.submit(Request(task, {"inputs": "../out.png"}, media=access))
    assert named.body is not None
    assert named.body["outputs"] == inline
    assert outside.error is not None
    assert "outside" in outside.error.message
