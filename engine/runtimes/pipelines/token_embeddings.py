"""A vector for each token of a text, and sparse vectors over a vocabulary."""

from __future__ import annotations

from typing import Any

import torch

from engine.runtimes.pipelines.base import OwnPipeline


class TokenVectors(OwnPipeline):
    """Returns the model's last hidden states, one vector a token."""

    models = ("AutoModel",)
    unused = ("pooler.",)
    _load_tokenizer = True

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return ({"truncation": asked["truncation"]} if "truncation" in asked else {}), {}, {}

    def preprocess(self, text: str, truncation: bool = True) -> dict[str, Any]:
        """Returns the tokens, cut to the model's length."""
        most = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 1_000_000))
        cut = {"truncation": True, "max_length": most} if truncation and most < 1_000_000 else {}
        return dict(self.tokenizer(text, return_tensors="pt", **cut))

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return {"vectors": self.model(**model_inputs)[0], "mask": model_inputs["attention_mask"]}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[list[float]]:
        """Returns the vectors, without padding."""
        kept = model_outputs["vectors"][0][model_outputs["mask"][0].bool()]
        found: list[list[float]] = kept.tolist()
        return found


class SparseVector(TokenVectors):
    """SPLADE (Formal et al., 2021): max over the tokens of log(1 + relu(logits)), by index of the vocabulary."""

    models = ("AutoModelForMaskedLM",)

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        logits = self.model(**model_inputs).logits.float()
        weights = torch.log1p(logits.relu()) * model_inputs["attention_mask"].unsqueeze(-1)
        return {"weights": weights.amax(1)}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Returns index and value of each weight that is not 0, as Text Embeddings Inference does."""
        weights = model_outputs["weights"][0]
        found = weights.nonzero().flatten().tolist()
        return [{"index": index, "value": float(weights[index])} for index in found]
