"""Speech to text through the whole engine: real speech with Whisper tiny.en, and tiny models of random weights."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request, Result
from engine.artifacts.resolve import fetch
from engine.config.compose import compose
from engine.core.errors import EngineError
from engine.core.media_access import MediaAccess
from engine.schemas import RunSpec
from engine.schemas.model import ModelSpec
from engine.schemas.sources import PackageSourceSpec
from tests.runtimes.pipelines.test_pipelines import Folder, encoded, sound, spec

pytestmark = pytest.mark.slow
SPEECH = PackageSourceSpec(
    kind="package",
    package="moonshine-voice",
    version="0.1.5",
    sha256="1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
    path="moonshine_voice/assets",
    format="ctranslate2",
)
BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
DICKENS = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season
of Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing before
us, we were all going direct to Heaven, we were all going direct the other way--in short, the period was so far like the
present period, that some of its noisiest authorities insisted on its being received, for good or for evil, in the
superlative degree of comparison only."""


@pytest.fixture(scope="session")
def speech() -> Path:
    """A folder of recordings."""
    return _fetched(ModelSpec(name="speech", sources=(SPEECH,)))


@pytest.fixture(scope="session")
def whisper() -> Path:
    """Whisper tiny.en in CTranslate2's layout."""
    return _fetched(compose(["model=whisper-tiny-en"]).spec.model)


def _fetched(model: ModelSpec) -> Path:
    try:
        return fetch(model, ("ctranslate2",)).path
    except EngineError as error:
        pytest.skip(f"it can't be had here: {error}")


def real(folder: Path, *words: str, hardware: str = "cpu") -> RunSpec:
    source = f"{{kind: file, path: {folder}, format: ctranslate2}}"
    chosen = ["provider=local", f"hardware={hardware}", "model=whisper-tiny-en", f"model.sources=[{source}]"]
    return compose([*chosen, *words]).spec


async def hear(engine: Engine, file: Any, root: Path | None = None, **told: Any) -> Result:
    return await engine.submit(Request("transcription", {"file": file, **told}, media=MediaAccess(root)))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def errors(wanted: list[str], found: list[str]) -> float:
    """The word error rate: substitutions, deletions and insertions for each word that was said."""
    row = list(range(len(found) + 1))
    for index, word in enumerate(wanted, 1):
        last, row[0] = row[0], index
        for place, other in enumerate(found, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (word != other))
    return row[-1] / len(wanted)


@pytest.mark.parametrize(
    ("hardware", "knob"), [("cpu", "hardware.dtype=float32"), ("openvino", "hardware.precision=f32")]
)
async def test_speech_is_the_same_words_on_every_hardware(
    hardware: str, knob: str, whisper: Path, speech: Path
) -> None:
    async with Engine(real(whisper, knob, hardware=hardware)) as engine:
        result = await hear(engine, "beckett.wav", speech)
    assert result.body is not None, result.error
    assert words(result.body["text"]) == words(BECKETT)
    assert result.body["usage"] == {"type": "duration", "seconds": 9.963}
    assert result.usage is not None
    assert result.usage.audio_s == pytest.approx(9.963, abs=0.001)


async def test_smaller_weights_hear_the_same_words(whisper: Path, speech: Path) -> None:
    pytest.importorskip("nncf")
    async with Engine(real(whisper, "hardware.quantization=int8", hardware="openvino")) as engine:
        short = await hear(engine, "beckett.wav", speech)
        long = await hear(engine, "two_cities.wav", speech)
    assert short.body is not None, short.error
    assert long.body is not None, long.error
    assert words(short.body["text"]) == words(BECKETT)
    assert errors(words(DICKENS), words(long.body["text"])) < 0.03


async def test_speech_longer_than_a_window_is_heard_to_its_end_with_times(whisper: Path, speech: Path) -> None:
    told = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    async with Engine(real(whisper, "hardware.dtype=float32")) as engine:
        result = await hear(engine, "two_cities.wav", speech, **told)
    assert result.body is not None, result.error
    assert errors(words(DICKENS), words(result.body["text"])) < 0.03
    assert result.body["duration"] == pytest.approx(44.374, abs=0.01)
    for parts, least in ((result.body["segments"], 5), (result.body["words"], 100)):
        assert len(parts) >= least
        starts = [part["start"] for part in parts]
        assert starts == sorted(starts)
        assert all(part["start"] <= part["end"] <= 44.375 for part in parts)
        assert parts[-1]["end"] > 38
    assert words(" ".join(part["word"] for part in result.body["words"])) == words(result.body["text"])


@pytest.mark.parametrize("model", ["transcription", "transcription, letters"])
async def test_sounds_together_become_what_each_becomes_alone(model: str, folder: Folder) -> None:
    sounds = [encoded(sound(seconds)) for seconds in (0.3, 0.3, 0.7, 0.9)]
    async with Engine(spec(folder(model), "transcription", "hardware.dtype=float32")) as engine:
        alone = [(await hear(engine, each)).body for each in sounds]
        together = [result.body for result in await asyncio.gather(*(hear(engine, each) for each in sounds))]
    assert together == alone
    assert all(body is not None and body["text"] for body in alone)


async def test_windows_of_a_long_sound_give_what_one_pass_over_it_gives(folder: Folder) -> None:
    async with Engine(spec(folder("transcription, letters"), "transcription", "hardware.dtype=float32")) as engine:
        result = await hear(engine, encoded(sound(47)), response_format="verbose_json")
    assert result.body is not None, result.error
    assert result.body["duration"] == 47.0
    assert result.body["segments"][-1]["end"] == pytest.approx(47, abs=0.2)


@pytest.mark.parametrize(
    ("form", "begins"), [("srt", "1\n00:00:00,000 --> 00:00:"), ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:")]
)
async def test_subtitles_are_the_whole_text(form: str, begins: str, folder: Folder) -> None:
    async with Engine(spec(folder("transcription, letters"), "transcription", "hardware.dtype=float32")) as engine:
        result = await hear(engine, encoded(sound(2)), response_format=form)
    assert result.body is not None, result.error
    assert re.sub(r"00:00:00([,.])\d+ -->", r"00:00:00\g<1>000 -->", result.body["text"]).startswith(begins)
    assert result.body.keys() == {"text"}


@pytest.mark.parametrize(
    ("model", "task", "told", "said"),
    [
        ("transcription", "transcription", {"language": "de"}, "body.language: this Whisper knows only English"),
        ("transcription", "transcription", {"prompt": "a " * 40}, "body.prompt: .* tokens are more than the 15"),
        ("transcription", "transcription", {"response_format": "yaml"}, "body.response_format: .*one of: json, text"),
        ("transcription", "transcription", {"timestamp_granularities": ["word"]}, "only response_format=verbose_json"),
        ("transcription", "transcription", {"temperature": 2}, "body.temperature: expected a number from 0 to 1"),
        ("transcription", "transcription", {"num_beams": 0}, "body.num_beams: expected a whole number from 1"),
        ("transcription", "transcription", {"keywords": ["a"]}, "body.keywords: not supported"),
        ("transcription", "transcription", {"file": None}, "body.file: expected a"),
        ("transcription", "transcription", {"file": encoded(b"no sound")}, "body.file: .*can't be read as audio"),
        ("transcription", "audio-translation", {}, "task: this Whisper knows only English"),
        (
            "transcription, many languages",
            "transcription",
            {"language": "german?"},
            "body.language: this Whisper does not know 'german\\?'; one of: de, en, fr",
        ),
        ("transcription, letters", "transcription", {"prompt": "a"}, "body.prompt: this model can't take a prompt"),
        ("transcription, letters", "transcription", {"num_beams": 2}, "body.num_beams: this model has no decoder"),
        ("transcription, letters", "audio-translation", {}, "task: this model can't translate"),
    ],
)
async def test_what_can_not_be_heard_is_refused_with_its_place(
    model: str, task: str, told: dict[str, Any], said: str, folder: Folder
) -> None:
    async with Engine(spec(folder(model), task, "hardware.dtype=float32")) as engine:
        result = await engine.submit(Request(task, {"file": encoded(sound(0.3)), **told}))
    assert result.error is not None
    assert result.error.kind == "invalid_request"
    with pytest.raises(type(result.error), match=said):
        raise result.error


async def test_a_file_that_is_no_whisper_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x04\x00abc\x00rest")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EngineError, match=r"model.bin is not in the form of CTranslate2|holds a abc"):
        async with Engine(real(tmp_path)) as engine:
            await engine.start()


def begins(engine: Engine, task: str, seen: list[list[str]]) -> Any:
    """Writes down the tokens that the decoder begins each window with."""
    runtime = engine.pipeline.target_chains[0].executor._runtime  # type: ignore[attr-defined]
    pipe = runtime._pipelines[task].pipe

    def look(module: Any, args: Any, given: dict[str, Any]) -> None:
        ids = given["input_ids"]
        if ids.shape[1] > 1 or not seen:
            seen.append(pipe.tokenizer.convert_ids_to_tokens(ids[0]))

    return pipe.model.model.decoder.register_forward_pre_hook(look, with_kwargs=True)


@pytest.mark.parametrize(
    ("task", "language", "tokens"),
    [
        ("transcription", "de", ["<|de|>", "<|transcribe|>"]),
        ("transcription", "French", ["<|fr|>", "<|transcribe|>"]),
        ("audio-translation", "de", ["<|de|>", "<|translate|>"]),
    ],
)
async def test_language_and_task_are_what_a_multilingual_whisper_begins_with(
    task: str, language: str, tokens: list[str], folder: Folder
) -> None:
    seen: list[list[str]] = []
    made = spec(folder("transcription, many languages"), "transcription, audio-translation", "hardware.dtype=float32")
    async with Engine(made) as engine:
        await engine.start()
        begins(engine, task, seen)
        body = {"file": encoded(sound(0.3)), "language": language, "response_format": "json"}
        result = await engine.submit(Request(task, body))
    assert result.body is not None, result.error
    assert seen[-1] == ["<|startoftranscript|>", *tokens, "<|notimestamps|>"]


async def test_the_language_and_task_that_were_asked_for_are_told(folder: Folder) -> None:
    made = spec(folder("transcription, many languages"), "transcription, audio-translation", "hardware.dtype=float32")
    async with Engine(made) as engine:
        asked = {"file": encoded(sound(0.3)), "response_format": "verbose_json"}
        heard = {
            (task, code): await engine.submit(Request(task, {**asked, "language": code}))
            for task in ("transcription", "audio-translation")
            for code in ("de", "fr")
        }
    for (task, code), result in heard.items():
        assert result.body is not None, result.error
        body = result.body
        assert body["language"] == {"de": "german", "fr": "french"}[code]
        assert body["task"] == {"transcription": "transcribe", "audio-translation": "translate"}[task]


async def test_an_english_whisper_refuses_another_language(whisper: Path) -> None:
    async with Engine(real(whisper)) as engine:
        result = await hear(engine, encoded(sound(0.3)), language="de")
        translated = await engine.submit(Request("transcription", {"file": encoded(sound(0.3)), "language": "en"}))
    assert result.error is not None
    assert result.error.message == "body.language: this Whisper knows only English, not 'de'"
    assert translated.error is None
