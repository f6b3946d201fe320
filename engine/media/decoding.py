"""Decodes images and audio with limits on their size; encodes results of models as JSON.

Pillow decodes images, libsndfile (soundfile) reads and writes WAV, FLAC, OGG and MP3, soxr resamples, PyAV decodes
videos.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

from engine.core.errors import Internal, InvalidRequest, SetupError
from engine.core.media_access import Media

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 64_000_000
"""Of one image: more is refused before it is decoded."""
MAX_RATIO = 100
"""Of an image's longer side to its shorter one: a model scales the shorter side, and the longer one with it."""
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
"""Samples a second that the codec Opus knows (RFC 6716, section 2)."""
MAX_SOUND_S = 4 * 3600
"""Of one audio file, in seconds: more is refused before it is decoded."""


def picture(media: Media, where: str) -> Any:
    """Decodes an image as a PIL image in RGB, turned by its EXIF data. Raises InvalidRequest, SetupError."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise _missing("pillow", "pictures") from error
    try:
        with Image.open(io.BytesIO(media.data)) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise InvalidRequest(f"{where}: {width} × {height} pixels are more than {MAX_PIXELS:,}")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise InvalidRequest(
                    f"{where}: got an image of {width} × {height} pixels; expected sides that differ by "
                    f"{MAX_RATIO} times at most. Fix: crop it"
                )
            return _eight_bits(ImageOps.exif_transpose(opened), where).convert("RGB")
    except UnidentifiedImageError as error:
        raise InvalidRequest(f"{where}: {media.filename} is not an image in a format that Pillow reads") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidRequest(f"{where}: {media.filename} can't be read as an image: {error}") from error


def _eight_bits(image: Any, where: str) -> Any:
    """Returns an image with 16 bits or floats a sample as one with 8, scaled and not clipped. Raises InvalidRequest."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    import numpy as np
    from PIL import Image

    samples = np.asarray(image, dtype=np.float64)
    if not np.isfinite(samples).all():
        raise InvalidRequest(f"{where}: got an image with samples that are not finite; expected numbers")
    low, high = float(samples.min(initial=0.0)), float(samples.max(initial=0.0))
    # Floats from 0 to 1 and integers of 8 or 16 bits have their own range; any other one is stretched to its extremes.
    ranges = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    scaled = samples * (255.0 / top) if top is not None else (samples - low) * (255.0 / (high - low))
    return Image.fromarray(scaled.round().astype(np.uint8))


def sound(media: Media, where: str, rate: int) -> np.ndarray:
    """Decodes audio as float32 samples in -1 … 1, mono, `rate` a second. Raises InvalidRequest, SetupError."""
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise _missing(error.name or "soundfile", "sounds") from error
    try:
        with soundfile.SoundFile(io.BytesIO(media.data)) as opened:
            seconds = opened.frames / opened.samplerate
            if seconds > MAX_SOUND_S:
                raise InvalidRequest(f"{where}: {seconds:,.0f} s are more than {MAX_SOUND_S:,}")
            samples = opened.read(dtype="float32", always_2d=True).mean(axis=1)
            own = opened.samplerate
    except (soundfile.LibsndfileError, RuntimeError, ValueError, OSError) as error:
        raise InvalidRequest(
            f"{where}: {media.filename} can't be read as audio (WAV, FLAC, OGG and MP3 can): {error}"
        ) from error
    if not len(samples):
        raise InvalidRequest(f"{where}: {media.filename} holds no audio")
    if not math.isfinite(float(samples.sum(dtype="float64"))):
        raise InvalidRequest(f"{where}: got audio with samples that are not finite; expected numbers in -1 … 1")
    heard: np.ndarray = samples if own == rate else soxr.resample(samples, own, rate)
    return heard


def encoded_sound(samples: Any, rate: int, form: str) -> bytes:
    """Samples in -1 … 1, a row a channel where there are several, as a file; `form` is wav, flac, mp3, opus or pcm
    (16 bits, little-endian, no header). Raises SetupError, Internal."""
    try:
        import numpy as np
        import soundfile
        import soxr
    except ImportError as error:
        raise _missing(error.name or "soundfile", "sounds") from error
    wave = np.atleast_2d(np.asarray(samples, np.float32)).T.clip(-1, 1)
    if form == "pcm":
        return bytes((wave * 32767).astype("<i2").tobytes())
    container, coding = {"opus": ("OGG", "OPUS"), "mp3": ("MP3", None)}.get(form, (form.upper(), None))
    if form == "opus" and rate not in OPUS_RATES:
        wave, rate = soxr.resample(wave, rate, OPUS_RATES[-1]), OPUS_RATES[-1]
    kept = io.BytesIO()
    try:
        soundfile.write(kept, wave, rate, format=container, subtype=coding)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise Internal(f"the audio can't be written as {form}: {error}") from error
    return kept.getvalue()


def frames(media: Media, where: str, count: int, every: int) -> list[Any]:
    """Decodes `count` frames of a video, every `every`-th from its first; of a shorter one the last again. RGB arrays.
    Raises InvalidRequest, SetupError."""
    try:
        import av
    except ImportError as error:
        raise SetupError('videos need av. Next: pip install "ipfs-accelerate[video]"') from error
    found: list[Any] = []
    try:
        with av.open(io.BytesIO(media.data)) as opened:
            for index, frame in enumerate(opened.decode(video=0)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise InvalidRequest(f"{where}: {frame.width} × {frame.height} pixels are more than {MAX_PIXELS:,}")
                if index % every == 0:
                    found.append(frame.to_ndarray(format="rgb24"))
                if len(found) == count:
                    break
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise InvalidRequest(f"{where}: {media.filename} can't be read as a video: {error}") from error
    if not found:
        raise InvalidRequest(f"{where}: {media.filename} holds no frame")
    return found + [found[-1]] * (count - len(found))


def plain(value: Any) -> Any:
    """Returns a model's result as JSON values: arrays as lists, images as base64 PNG, not-a-number as null."""
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tobytes") and hasattr(value, "save"):  # a PIL image
        kept = io.BytesIO()
        value.save(kept, "PNG")
        return {"data": base64.b64encode(kept.getvalue()).decode("ascii"), "format": "png"}
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().float() if value.is_floating_point() else value.detach()
        return plain(value.cpu().numpy())
    if hasattr(value, "tolist"):  # an array, or one of its numbers
        return plain(value.tolist())
    return str(value)


def _missing(package: str, what: str) -> SetupError:
    return SetupError(f'{what} need {package}. Next: pip install "ipfs-accelerate[local]"')
