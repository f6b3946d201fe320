"""The relevance of a document to a query: cross-encoders."""

from __future__ import annotations

from typing import Any

import torch

from engine.core.errors import TooLong
from engine.runtimes.pipelines.base import OwnPipeline


class Relevance(OwnPipeline):
    """A score from 0 to 1 for a pair of texts: the sigmoid of a model's one label, as sentence-transformers'
    CrossEncoder has it, or the probability of the second of two labels."""

    models = ("AutoModelForSequenceClassification",)
    _load_tokenizer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.config.num_labels > 2:
            raise ValueError(
                f"a model for rerank has one label or two, and this one has {self.model.config.num_labels}"
            )

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, {}, {}

    def preprocess(self, pair: dict[str, str]) -> dict[str, Any]:
        """Returns the tokens of both; for a pair that is too long, the document is cut."""
        most = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 1_000_000))
        cut = {"truncation": "only_second", "max_length": most} if most < 1_000_000 else {}
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        query = len(self.tokenizer(pair["text"], add_special_tokens=False, truncation=False, verbose=False).input_ids)
        if query + special >= most:
            raise TooLong(
                f"body.query: got {query} tokens; expected at most {most - special - 1}, to leave room for a document. "
                "Fix: a shorter query"
            )
        document = len(
            self.tokenizer(pair["text_pair"], add_special_tokens=False, truncation=False, verbose=False).input_ids
        )
        made = self.tokenizer(pair["text"], pair["text_pair"], return_tensors="pt", **cut)
        return {**made, "cut": torch.tensor([query + document + special > most])}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        cut = model_inputs.pop("cut")
        tokens = [int(mask.sum()) for mask in model_inputs["attention_mask"]]
        return {"logits": self.model(**model_inputs).logits, "tokens": torch.tensor(tokens), "cut": cut}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the score, the tokens of the pair, and True if its document was cut."""
        logits = model_outputs["logits"][0].float()
        score = logits.sigmoid()[0] if len(logits) == 1 else logits.softmax(-1)[1]
        cut = bool(model_outputs["cut"])
        return {"score": float(score), "tokens": int(model_outputs["tokens"]), "cut": cut}
