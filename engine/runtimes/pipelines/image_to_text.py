"""Texts about images: captions, and answers to questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers

from engine.core.errors import InvalidRequest
from engine.runtimes.pipelines.base import OwnPipeline
from engine.tasks import generation

QUESTION = "Describe this image in one sentence."
"""The prompt for a caption to a model that only chats."""


class Caption(OwnPipeline):
    """Says what is in an image: BLIP and its like, an encoder of images with a decoder of text, and models that
    talk about images, which are sent `QUESTION` or `prompt`."""

    models: ClassVar[tuple[str, ...]] = ("AutoModelForImageTextToText",)
    parts = ("tokenizer", "image_processor")
    exact_lengths = True
    """True: rows share a batch only without padding: not every decoder of images supports masks."""
    _pipeline_calls_generate = True
    _load_tokenizer = True
    _load_image_processor = True

    @classmethod
    def load(cls, folder: Path, device: torch.device, kind: torch.dtype) -> Any:
        """Loads the pipeline, with the model's processor if it has one. Raises as OwnPipeline.load."""
        pipe = super().load(folder, device, kind)
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        pipe.processor = processor if isinstance(processor, transformers.ProcessorMixin) else None
        return pipe

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        prompt = asked.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise InvalidRequest("body.parameters.prompt: expected text")
        return {"prompt": prompt} if prompt else {}, generation.options(asked), {}

    def preprocess(self, picture: Any, prompt: str | None = None) -> dict[str, Any]:
        """Makes the tensors of one image, and of a text that the answer continues or replies to."""
        return self._prepared(picture, prompt, QUESTION)

    def _prepared(self, picture: Any, text: str | None, default: str | None) -> dict[str, Any]:
        if self.processor is None:
            if text:
                raise ValueError("this model takes no text next to an image")
            made = self.image_processor(picture, return_tensors="pt")
        elif getattr(self.processor, "chat_template", None):
            asked = [{"type": "image", "image": picture}, {"type": "text", "text": text or default}]
            made = self.processor.apply_chat_template(
                [{"role": "user", "content": asked}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            made = self.processor(images=picture, **({"text": text} if text else {}), return_tensors="pt")
        kind = self.model.dtype
        return {
            name: value.to(kind) if value.is_floating_point() else value
            for name, value in made.items()
            if isinstance(value, torch.Tensor)
        }

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        ids = self.generated(dict(model_inputs), options)
        prompt = model_inputs.get("input_ids")
        if prompt is not None and ids.shape[1] >= prompt.shape[1]:
            length = prompt.shape[1]
            if torch.equal(ids[:, :length].cpu(), prompt.cpu()):
                ids = ids[:, length:]
        return {"output_ids": ids}

    def postprocess(self, model_outputs: dict[str, Any]) -> Any:
        """Returns the caption."""
        return {"generated_text": self._text(model_outputs)}

    def _text(self, model_outputs: dict[str, Any]) -> str:
        return str(self.tokenizer.decode(model_outputs["output_ids"][0], skip_special_tokens=True)).strip()


class PictureAnswer(Caption):
    """Answers a question about an image: in free text, or from a fixed list (ViLT)."""

    models = ("AutoModelForVisualQuestionAnswering", "AutoModelForImageTextToText")

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        top_k = asked.pop("top_k", None)
        if self.model.can_generate():
            return {}, generation.options(asked), {}
        named = sorted(name for name, value in asked.items() if value is not None)
        if named:
            raise InvalidRequest(f"body.parameters.{named[0]}: this model chooses from a list, and does not generate")
        return {}, {}, {"top_k": top_k} if top_k is not None else {}

    def preprocess(self, asked: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Makes the tensors of an image and its question."""
        if self.processor is None:
            made = self.tokenizer(asked["question"], return_tensors="pt")
            return {**made, **self.image_processor(asked["image"], return_tensors="pt")}
        return self._prepared(asked["image"], asked["question"], None)

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        if self.model.can_generate():
            return super()._forward(model_inputs, **options)
        return {"logits": self.model(**model_inputs).logits}

    def postprocess(self, model_outputs: dict[str, Any], top_k: int = 5) -> Any:
        """Returns the answer, or the likeliest ones of the list with their scores, as sigmoids."""
        if "output_ids" in model_outputs:
            return [{"answer": self._text(model_outputs)}]
        scores = model_outputs["logits"][0].sigmoid()
        best = scores.topk(min(top_k, len(scores)))
        names = self.model.config.id2label
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [{"score": score, "answer": names[index]} for score, index in pairs]
