"""Answers of real models from the package registry, the same on every hardware: a picture's class, where speech is, and
which text belongs to a question."""

from __future__ import annotations

import io
import json
import sys
import wave
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request, Result
from engine.artifacts.resolve import fetch
from engine.config.compose import compose
from engine.core.errors import EngineError
from engine.core.media_access import MediaAccess
from engine.schemas.model import ModelSpec
from engine.schemas.sources import PackageSourceSpec
from tests.runtimes.pipelines.test_pipelines import encoded
from tests.runtimes.pipelines.test_transcription import SPEECH

pytestmark = pytest.mark.slow
EXACT = {"cpu": "hardware.dtype=float32", "openvino": "hardware.precision=f32"}
NATIVE = pytest.mark.parametrize("words", [("cpu",), ("openvino",)])
"""In the arithmetic that the hardware is best at."""
CATS = {"tabby, tabby cat", "tiger cat", "Persian cat", "Siamese cat, Siamese", "Egyptian cat"}
RATE = 16_000

PICTURES = {
    (3, 11): "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    (3, 12): "7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
    (3, 13): "b36ab5e778bf50af5ff386c3ac508027dc3aaeccf2161bdf96bde6848f44d21b",
}
"""Digests of scikit-image's wheels for Linux x86-64, by Python's version. The pictures in them are CC0: chelsea.png by
Stefan van der Walt, coffee.png by Rachel Michetti."""


def fetched(name: str, source: PackageSourceSpec) -> Path:
    try:
        return fetch(ModelSpec(name=name, sources=(source,)), (source.format,)).path
    except EngineError as error:
        pytest.skip(f"it can't be had here: {error}")


@pytest.fixture(scope="session")
def pictures() -> Path:
    """A folder of photographs."""
    source = PackageSourceSpec(
        kind="package",
        package="scikit-image",
        version="0.26.0",
        sha256=PICTURES.get(sys.version_info[:2], "0" * 64),
        path="skimage/data",
        format="openvino",
    )
    return fetched("pictures", source)


@pytest.fixture(scope="session")
def recording() -> Any:
    """Ten seconds of speech, as float samples."""
    import soundfile
    import soxr

    samples, rate = soundfile.read(fetched("speech", SPEECH) / "beckett.wav", dtype="float32")
    return samples if rate == RATE else soxr.resample(samples, rate, RATE)


async def answered(model: str, words: tuple[str, ...], *requests: Request) -> list[Any]:
    """The outputs, one for each request."""
    hardware, *more = words
    spec = compose(["provider=local", f"model={model}", f"hardware={hardware}", *more]).spec
    try:
        async with Engine(spec) as engine:
            results: list[Result] = [await engine.submit(request) for request in requests]
    except EngineError as error:
        if "registry can't be reached" in str(error):
            pytest.skip(f"it can't be had here: {error}")
        raise
    assert all(result.body is not None for result in results), [result.error for result in results]
    return [result.body.get("outputs", result.body) for result in results if result.body]


# -- the class of a picture ---------------------------------------------------------------------------------------


def seen(pictures: Path, name: str) -> Request:
    return Request("image-classification", {"inputs": name, "parameters": {"top_k": 3}}, media=MediaAccess(pictures))


async def test_a_cat_is_a_cat_and_a_coffee_an_espresso_on_every_hardware(pictures: Path) -> None:
    asked = [seen(pictures, "chelsea.png"), seen(pictures, "coffee.png")]
    found = [await answered("efficientnet-lite0", (hardware, exact), *asked) for hardware, exact in EXACT.items()]
    for cat, coffee in found:
        assert {each["label"] for each in cat} <= CATS
        assert coffee[0]["label"] == "espresso"
        assert coffee[0]["score"] > 0.9
        assert coffee[1]["label"] == "cup"
    for torch, openvino in zip(*found, strict=True):
        assert [each["label"] for each in torch] == [each["label"] for each in openvino]
        assert [each["score"] for each in torch] == pytest.approx([each["score"] for each in openvino], abs=1e-4)


async def test_another_state_dict_is_a_clear_error(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pth")
    source = f"model.sources=[{{kind: file, path: {tmp_path / 'other.pth'}, format: state_dict}}]"
    with pytest.raises(EngineError, match=r"other\.pth does not hold a whole EfficientNet-Lite0"):
        async with Engine(
            compose(["provider=local", "hardware=cpu", "model=efficientnet-lite0", source]).spec
        ) as engine:
            await engine.start()


# -- where speech is ----------------------------------------------------------------------------------------------


def file(samples: Any) -> dict[str, str]:
    import numpy as np

    kept = io.BytesIO()
    with wave.open(kept, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())
    return encoded(kept.getvalue())


def heard(samples: Any, **parameters: Any) -> Request:
    return Request("voice-activity-detection", {"inputs": file(samples), "parameters": parameters})


def seconds(found: dict[str, Any]) -> float:
    return sum(part["end_s"] - part["start_s"] for part in found["segments"])


@NATIVE
async def test_speech_is_found_and_silence_around_it_is_not(words: tuple[str, ...], recording: Any) -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    before, after = (rng.normal(0, 1e-4, 3 * RATE).astype(np.float32) for _ in range(2))
    around = np.concatenate([before, recording, after])
    alone, found, silence = await answered("silero-vad", words, heard(recording), heard(around), heard(before))
    assert silence == {"segments": []}
    assert len(alone["segments"]) == 6  # Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.
    assert len(found["segments"]) == 6
    for part, same in zip(found["segments"], alone["segments"], strict=True):
        assert part["start_s"] - 3 == pytest.approx(same["start_s"], abs=0.1)
        assert part["end_s"] - 3 == pytest.approx(same["end_s"], abs=0.1)
    assert energy(recording, alone) > 0.98


def energy(samples: Any, found: dict[str, Any]) -> float:
    """How much of what can be heard lies in the segments."""
    inside = sum(
        float((samples[int(part["start_s"] * RATE) : int(part["end_s"] * RATE)] ** 2).sum())
        for part in found["segments"]
    )
    return inside / float((samples**2).sum())


async def test_segments_are_the_same_on_openvino(recording: Any) -> None:
    asked = [heard(recording), heard(recording, threshold=0.8, min_silence_duration_ms=600, speech_pad_ms=0)]
    found = [await answered("silero-vad", (hardware, exact), *asked) for hardware, exact in EXACT.items()]
    assert found[0] == found[1]


async def test_parameters_decide_what_counts_as_speech(recording: Any) -> None:
    plain, patient, padded, long, none = await answered(
        "silero-vad",
        ("cpu",),
        heard(recording),
        heard(recording, min_silence_duration_ms=5000),
        heard(recording, speech_pad_ms=200),
        heard(recording, min_speech_duration_ms=900),
        heard(recording, min_speech_duration_ms=60_000),
    )
    assert len(patient["segments"]) == 1
    assert len(padded["segments"]) == len(plain["segments"])
    assert seconds(padded) == pytest.approx(seconds(plain) + 6 * 2 * 0.17, abs=0.01)
    assert 0 < len(long["segments"]) < len(plain["segments"])
    assert none == {"segments": []}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"threshold": 1.5}, "body.parameters.threshold: expected a number from 0.01 to 0.99"),
        ({"speech_pad_ms": -1}, "body.parameters.speech_pad_ms: expected a number from 0 to 60,000"),
        ({"pad": 3}, "body.parameters.pad: voice-activity-detection has no such parameter"),
    ],
)
async def test_a_wrong_parameter_is_refused_with_its_place(
    parameters: dict[str, Any], said: str, recording: Any
) -> None:
    async with Engine(compose(["provider=local", "hardware=cpu", "model=silero-vad"]).spec) as engine:
        result = await engine.submit(heard(recording, **parameters))
    assert result.error is not None
    assert said in result.error.message


# -- the text that belongs to a question --------------------------------------------------------------------------


DATA = json.loads((Path(__file__).parent / "data" / "retrieval.json").read_text(encoding="utf-8"))


async def similarities(*words: str) -> Any:
    """Of each question, a row, with each passage."""
    import numpy as np

    texts = [*DATA["passages"], *(each["question"] for each in DATA["questions"])]
    (reply,) = await answered("minilm-l6", words, Request("embedding", {"input": texts}))
    vectors = np.array([each["embedding"] for each in reply["data"]], np.float32)
    count = len(DATA["passages"])
    return vectors[count:] @ vectors[:count].T


def ranks(scores: Any) -> list[int]:
    """For each question, at which place its passage comes, from 1."""
    right = [each["passage"] for each in DATA["questions"]]
    return [int((row > row[passage]).sum()) + 1 for row, passage in zip(scores, right, strict=True)]


def recall(found: list[int]) -> float:
    """Recall at 1."""
    return sum(rank == 1 for rank in found) / len(found)


def reciprocal(found: list[int]) -> float:
    """The mean reciprocal rank."""
    return sum(1 / rank for rank in found) / len(found)


async def test_questions_find_their_passages_in_the_same_order_on_every_hardware(minilm_folder: Path) -> None:
    torch, openvino = [await similarities(hardware, exact) for hardware, exact in EXACT.items()]
    assert ((-torch).argsort(1)[:, :5] == (-openvino).argsort(1)[:, :5]).all()
    found = ranks(torch)
    assert found == ranks(openvino)
    assert recall(found) >= 0.9
    assert reciprocal(found) >= 0.9


@NATIVE
async def test_native_arithmetic_finds_them_as_well(words: tuple[str, ...], minilm_folder: Path) -> None:
    found = ranks(await similarities(*words))
    assert recall(found) >= 0.9
    assert reciprocal(found) >= 0.9


async def test_quantized_weights_still_find_them(minilm_folder: Path) -> None:
    pytest.importorskip("nncf")
    found = ranks(await similarities("openvino", "hardware.quantization=int8"))
    assert recall(found) >= 0.85
    assert reciprocal(found) >= 0.85
