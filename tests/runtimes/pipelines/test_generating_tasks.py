"""Tasks whose models generate: summaries, translations, captions, answers about pictures, sounds."""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Any

import pytest

from engine import Engine, Request, Result
from tests.runtimes.pipelines.test_pipelines import Folder, answered, ask, encoded, numbers, picture, spec

pytestmark = pytest.mark.slow
FLOAT32 = "hardware.dtype=float32"
CAPTION = {"max_new_tokens": 6, "min_new_tokens": 4}
SUMMARY = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 2}


@pytest.mark.parametrize(
    ("task", "inputs", "parameters"),
    [
        ("summarization", ["hello world", "a b c d e f"], SUMMARY),
        ("image-to-text", encoded(picture()), CAPTION),
    ],
)
async def test_the_same_tokens_come_on_every_hardware(
    task: str, inputs: Any, parameters: dict[str, Any], folder: Folder
) -> None:
    found = {}
    for hardware, exact in (("cpu", FLOAT32), ("openvino", "hardware.precision=f32")):
        async with Engine(spec(folder(task), task, exact, hardware=hardware)) as engine:
            found[hardware] = await answered(engine, task, inputs, **parameters)
            runtime = await engine.pipeline.target_chains[0].executor._shared.runtime()  # type: ignore[attr-defined]
            parts = [line for part in getattr(runtime, "_parts", []) for line in part.routes]
    assert found["cpu"] == found["openvino"]
    assert any(text for text in _texts(found["cpu"]))
    assert len(parts) >= 3  # the encoder, the first step and the further ones


@pytest.mark.parametrize("task", ["summarization", "translation"])
async def test_texts_of_different_lengths_together_become_what_each_becomes_alone(task: str, folder: Folder) -> None:
    texts = ["hello " * (1 + index % 5) + "w" for index in range(10)]
    async with Engine(spec(folder(task), task, FLOAT32)) as engine:
        alone = [await answered(engine, task, text, max_new_tokens=6) for text in texts]
        together = await asyncio.gather(*(answered(engine, task, text, max_new_tokens=6) for text in texts))
    assert together == alone
    assert {len(set(each)) for each in together} == {1}
    assert next(iter(alone[0])) == ("summary_text" if task == "summarization" else "translation_text")


async def test_a_summary_is_asked_for_with_the_prefix_of_its_model(folder: Folder) -> None:
    async with Engine(spec(folder("summarization"), "summarization", FLOAT32)) as engine:
        prefixed = await answered(engine, "summarization", "hello", min_new_tokens=5)
    async with Engine(spec(folder("summarization, no prefix"), "summarization", FLOAT32)) as engine:
        plain = await answered(engine, "summarization", "hello", min_new_tokens=5, max_new_tokens=12)
        by_hand = await answered(engine, "summarization", "s : hello", min_new_tokens=5, max_length=12)
    assert prefixed == by_hand != plain


async def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(folder: Folder) -> None:
    async with Engine(spec(folder("translation"), "translation", FLOAT32)) as engine:
        long = await ask(engine, "translation", "hello " * 80, max_new_tokens=4)
        cut = await answered(engine, "translation", "hello " * 80, max_new_tokens=4, truncation=True)
    assert long.error is not None
    assert long.error.kind == "too_long"
    assert "82 tokens, and the model reads 64" in long.error.message
    assert cut.keys() == {"translation_text"}


async def test_a_seed_samples_the_same_text_again(folder: Folder) -> None:
    told = {"do_sample": True, "max_new_tokens": 8, "min_new_tokens": 8}
    async with Engine(spec(folder("summarization"), "summarization", FLOAT32)) as engine:
        first, again, other = [
            await answered(engine, "summarization", "hello", seed=seed, **told) for seed in (5, 5, 6)
        ]
    assert first == again != other


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"num_beams": 0}, "body.parameters.num_beams: expected a whole number from 1 to 16"),
        ({"temperature": "warm"}, "body.parameters.temperature: expected a number"),
        ({"generate_parameters": {"beams": 2}}, "body.parameters.generate_parameters.beams: not a parameter"),
        ({"max_token": 2}, "body.parameters.max_token: .*did you mean"),
    ],
)
async def test_settings_that_can_not_be_are_refused_with_their_place(
    parameters: dict[str, Any], said: str, folder: Folder
) -> None:
    async with Engine(spec(folder("summarization"), "summarization", FLOAT32)) as engine:
        result = await engine.submit(Request("summarization", {"inputs": "hello", "parameters": parameters}))
    assert result.error is not None
    with pytest.raises(type(result.error), match=said):
        raise result.error


async def test_pictures_together_get_the_captions_that_they_get_alone(folder: Folder) -> None:
    pictures = [encoded(picture(red)) for red in (0, 120, 250)]
    for model in ("image-to-text", "image-to-text, encoder and decoder"):
        async with Engine(spec(folder(model), "image-to-text", FLOAT32)) as engine:
            alone = [await answered(engine, "image-to-text", each, **CAPTION) for each in pictures]
            together = await answered(engine, "image-to-text", pictures, **CAPTION)
        assert together == alone
        assert all(each.keys() == {"generated_text"} for each in alone)


async def test_a_question_about_a_picture_is_answered_in_words_or_from_a_list(folder: Folder) -> None:
    task = "visual-question-answering"
    asked = {"image": encoded(picture()), "question": "hello world"}
    async with Engine(spec(folder(task), task, FLOAT32)) as engine:
        words = await answered(engine, task, asked, max_new_tokens=4)
        lacking = await ask(engine, task, {"image": encoded(picture())})
    async with Engine(spec(folder(f"{task}, from a list"), task, FLOAT32)) as engine:
        chosen = await answered(engine, task, asked, top_k=2)
    assert [each.keys() for each in words] == [{"answer"}]
    assert [each.keys() for each in chosen] == [{"answer", "score"}] * 2
    assert chosen[0]["score"] >= chosen[1]["score"]
    assert lacking.error is not None
    assert "body.inputs.question" in lacking.error.message


async def test_a_model_that_openvino_can_not_run_says_so_and_a_fallback_answers(folder: Folder) -> None:
    task = "visual-question-answering"
    asked = {"image": encoded(picture()), "question": "hello world"}
    path = folder(f"{task}, from a list")
    source = f"{{kind: file, path: {path}, format: safetensors}}"
    model = f"{{use: remote, name: tiny, tasks: [{task}], sources: [{source}]}}"
    fallback = f"fallbacks=[{{provider: local, model: {model}, hardware: cpu}}]"
    async with Engine(spec(path, task, fallback, hardware="openvino")) as engine:
        result = await ask(engine, task, asked, top_k=2)
    assert result.body is not None, result.error
    assert len(result.body["outputs"]) == 2
    first, second = result.engine.attempts
    assert (first.target, second.target) == ("local/tiny@openvino", "local/tiny@cpu")
    assert first.message is not None
    assert "OpenVINO can't run ViltForQuestionAnswering" in first.message
    assert "hardware=cpu" in first.message


# -- sounds -----------------------------------------------------------------------------------------------------------


def heard(result: Result) -> tuple[Any, int]:
    import soundfile

    assert result.body is not None, result.error
    audio = result.body["audio"]
    return soundfile.read(io.BytesIO(base64.b64decode(audio["data"])), dtype="float32")  # type: ignore[no-any-return]


async def test_a_text_is_spoken_by_the_voice_and_in_the_form_that_was_asked_for(folder: Folder) -> None:
    async with Engine(spec(folder("speech"), "speech", FLOAT32)) as engine:
        one, other, slow = [
            await engine.submit(Request("speech", {"input": "hello world", **told}))
            for told in ({"voice": "0"}, {"voice": "1"}, {"voice": "0", "speed": 0.25})
        ]
        forms = {
            form: await engine.submit(Request("speech", {"input": "hello", "response_format": form}))
            for form in ("flac", "mp3", "opus", "pcm")
        }
    first, rate = heard(one)
    assert rate == 8000
    assert numbers(first.tolist()) != numbers(heard(other)[0].tolist())
    assert len(heard(slow)[0]) > len(first)
    assert one.usage is not None
    assert one.usage.characters == len("hello world")
    kinds = {form: result.body["audio"]["content_type"] for form, result in forms.items() if result.body}
    assert kinds == {"flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg", "pcm": "audio/pcm"}
    assert len(heard(forms["opus"])[0])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input": " "}, "body.input: expected text"),
        ({"input": "a", "response_format": "aac"}, "body.response_format: 'aac' is not made here"),
        ({"input": "a", "voice": "alloy"}, "body.voice: this model's voices are the numbers from 0 to 1"),
        ({"input": "a", "speed": 9}, "body.speed: expected a number from 0.25 to 4"),
        ({"input": "a", "instructions": "whisper"}, "body.instructions: not supported"),
    ],
)
async def test_speech_that_can_not_be_made_is_refused_with_its_place(
    body: dict[str, Any], said: str, folder: Folder
) -> None:
    async with Engine(spec(folder("speech"), "speech", FLOAT32)) as engine:
        result = await engine.submit(Request("speech", body))
    assert result.error is not None
    with pytest.raises(type(result.error), match=said):
        raise result.error


async def test_a_spectrogram_goes_through_the_vocoder_beside_the_model(folder: Folder) -> None:
    async with Engine(spec(folder("speech, by a spectrogram"), "speech", FLOAT32)) as engine:
        spoken = await engine.submit(Request("speech", {"input": "hello world", "voice": "bert"}))
        stranger = await engine.submit(Request("speech", {"input": "hello world", "voice": "carl"}))
    samples, rate = heard(spoken)
    assert rate == 8000
    assert len(samples)
    assert stranger.error is not None
    assert "one of: anna, bert" in stranger.error.message


async def test_music_comes_as_a_sound_with_its_rate(folder: Folder) -> None:
    async with Engine(spec(folder("text-to-audio"), "text-to-audio", FLOAT32)) as engine:
        made = await answered(engine, "text-to-audio", "hello world", max_new_tokens=8)
    assert made["sampling_rate"] == 8000
    assert made["audio"]["format"] == "wav"
    assert base64.b64decode(made["audio"]["data"]).startswith(b"RIFF")


# -- rerank -----------------------------------------------------------------------------------------------------------


async def test_documents_are_ranked_by_a_cross_encoder(folder: Folder) -> None:
    documents = ["a b c", {"text": "hello world"}, "z " * 40, "z " * 100]
    body = {"query": "hello", "documents": documents}
    scores = {}
    for hardware, exact in (("cpu", FLOAT32), ("openvino", "hardware.precision=f32")):
        async with Engine(spec(folder("rerank"), "rerank", exact, hardware=hardware)) as engine:
            result = await engine.submit(Request("rerank", body))
            best = await engine.submit(Request("rerank", {**body, "top_n": 1, "return_documents": True}))
        assert result.body is not None, result.error
        assert result.engine.warnings == ["document 3: cut to what the model reads"]
        scores[hardware] = {each["index"]: each["relevance_score"] for each in result.body["results"]}
        order = [each["relevance_score"] for each in result.body["results"]]
        assert order == sorted(order, reverse=True)
        assert best.body is not None
        assert len(best.body["results"]) == 1
        assert best.body["results"][0]["document"]["text"]
        assert result.usage is not None
        assert result.usage.input_tokens > 50
    assert scores["cpu"] == pytest.approx(scores["openvino"], abs=1e-5)


def _texts(outputs: Any) -> list[str]:
    listed = outputs if isinstance(outputs, list) else [outputs]
    return [text for each in listed for text in each.values()]
