"""Images and audio at the edges: thin, deep, floating, not finite."""

from __future__ import annotations

import io
from typing import Any

import pytest

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media

np = pytest.importorskip("numpy", reason="the extra `local` brings it")
Image = pytest.importorskip("PIL.Image", reason="the extra `local` brings it")
soundfile = pytest.importorskip("soundfile", reason="the extra `local` brings it")
decoding = pytest.importorskip("engine.media.decoding")


def encoded(image: Any, form: str) -> Media:
    stream = io.BytesIO()
    image.save(stream, form)
    return Media(stream.getvalue(), f"file.{form.lower()}", "image/png")


def recorded(samples: Any) -> Media:
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16000, format="WAV", subtype="FLOAT")
    return Media(stream.getvalue(), "file.wav", "audio/wav")


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (2, 202)])
def test_a_thin_image_is_refused_with_its_sides(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match=f"body.inputs: got an image of {size[0]} × {size[1]} pixels"):
        decoding.picture(encoded(Image.new("RGB", size), "PNG"), "body.inputs")


@pytest.mark.parametrize(("mode", "form", "top"), [("I;16", "PNG", 65535), ("F", "TIFF", 1.0), ("F", "TIFF", 255.0)])
def test_deep_samples_are_scaled_and_not_clipped(mode: str, form: str, top: float) -> None:
    kind = np.uint16 if mode == "I;16" else np.float32
    ramp = np.tile(np.linspace(0, top, 64).astype(kind), (8, 1))
    read = np.asarray(decoding.picture(encoded(Image.fromarray(ramp), form), "body.inputs"))[0, :, 0]
    assert read[0] == 0
    assert read[-1] == 255
    assert len(set(read.tolist())) > 50


def test_an_image_with_samples_that_are_not_finite_is_refused() -> None:
    image = Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32))
    with pytest.raises(InvalidRequest, match="not finite"):
        decoding.picture(encoded(image, "TIFF"), "body.inputs")


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_audio_with_a_sample_that_is_not_finite_is_refused(odd: float) -> None:
    samples = np.zeros(1600, dtype=np.float32)
    samples[800] = odd
    with pytest.raises(InvalidRequest, match=r"body.file: got audio with samples that are not finite"):
        decoding.sound(recorded(samples), "body.file", 16000)
