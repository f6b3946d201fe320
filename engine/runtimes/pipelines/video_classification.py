"""Classes of a video: transformers' pipeline, given images instead of a path."""

from __future__ import annotations

from typing import Any

from transformers.pipelines.video_classification import VideoClassificationPipeline

from engine.core.errors import InvalidRequest


class VideoClasses(VideoClassificationPipeline):  # type: ignore[misc]  # transformers has no types
    """Its inputs are functions that return the images of a video: their number, and the step between frames."""

    transformers_task = "video-classification"
    _load_image_processor = True

    def preprocess(self, frames: Any, num_frames: int | None = None, frame_sampling_rate: int = 1) -> Any:
        """Makes the tensors of the images. Raises InvalidRequest."""
        for name, value in (("num_frames", num_frames), ("frame_sampling_rate", frame_sampling_rate)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidRequest(f"body.parameters.{name}: expected a whole number of at least 1, got {value!r}")
        pictures = frames(num_frames or self.model.config.num_frames, frame_sampling_rate)
        return self.image_processor(pictures, return_tensors="pt").to(self.dtype)
