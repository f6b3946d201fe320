"""Answers as parts of a given text: extractive question answering."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline

from engine.core.errors import InvalidRequest
from engine.runtimes.pipelines.base import OwnPipeline

_NEVER = -1e4
"""The logit of a position where no answer can begin or end."""


class QuestionAnswering(OwnPipeline, ChunkPipeline):  # type: ignore[misc]  # transformers has no types
    """Reads a long context in overlapping windows, and returns the best spans of all.

    A span's score is the product of the probabilities of its beginning and its end, each over its window (Devlin et
    al., 2018, section 4.2).
    """

    models = ("AutoModelForQuestionAnswering",)
    _load_tokenizer = True

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before: dict[str, Any] = {
            name: _count(asked, name) for name in ("doc_stride", "max_seq_len", "max_question_len") if name in asked
        }
        after: dict[str, Any] = {name: _count(asked, name) for name in ("top_k", "max_answer_len") if name in asked}
        if asked.get("handle_impossible_answer") is not None:
            after["handle_impossible_answer"] = bool(asked["handle_impossible_answer"])
        return before, {}, after

    def preprocess(
        self, asked: dict[str, str], max_seq_len: int = 384, doc_stride: int = 128, max_question_len: int = 64
    ) -> Iterator[dict[str, Any]]:
        """Yields the windows. Raises ValueError if the settings leave no room for the context."""
        question, context = asked["question"], asked["context"]
        most = min(
            max_seq_len,
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", max_seq_len),
        )
        asks = self.tokenizer(question, add_special_tokens=False).input_ids
        if len(asks) > max_question_len:
            raise ValueError(f"the question has {len(asks)} tokens, more than {max_question_len} (max_question_len)")
        room = most - len(asks) - self.tokenizer.num_special_tokens_to_add(pair=True)
        if room < 2:
            raise ValueError(f"with a question of {len(asks)} tokens and windows of {most}, no room is left")
        made = self.tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=most,
            stride=min(doc_stride, room // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        names = [name for name in self.tokenizer.model_input_names if name in made]
        count = len(made["input_ids"])
        for index in range(count):
            places = made.sequence_ids(index)
            yield {
                "is_last": index == count - 1,
                **{name: torch.tensor([made[name][index]]) for name in names},
                "allowed": [place == 1 for place in places],
                "offsets": made["offset_mapping"][index],
                "context": context,
            }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        kept = {name: model_inputs.pop(name) for name in ("is_last", "allowed", "offsets", "context")}
        output = self.model(**model_inputs)
        return {"start": output.start_logits, "end": output.end_logits, **kept}

    def postprocess(
        self,
        model_outputs: list[dict[str, Any]],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
    ) -> Any:
        """Returns the best answer, or with `top_k` above 1 a list of them, each with its position in the context."""
        found: dict[tuple[int, int], float] = {}
        nothing = 1.0
        for output in model_outputs:
            spans, none = _spans(output, top_k, max_answer_len)
            nothing = min(nothing, none)
            for place, score in spans:
                found[place] = max(score, found.get(place, 0.0))
        context = model_outputs[0]["context"]
        answers: list[dict[str, Any]] = [
            {"score": score, "start": start, "end": end, "answer": context[start:end]}
            for (start, end), score in found.items()
        ]
        if handle_impossible_answer:
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        answers.sort(key=lambda answer: -answer["score"])
        return answers[0] if top_k == 1 and answers else answers[:top_k]


def _spans(output: dict[str, Any], top_k: int, longest: int) -> tuple[list[tuple[tuple[int, int], float]], float]:
    """Returns the likeliest spans of a window, and the probability of no answer: that of its first token."""
    allowed = torch.tensor(output["allowed"])
    length = len(allowed)
    masked = allowed.clone()
    masked[0] = True  # the first token means "no answer"
    start, end = (
        output[side][0][:length].float().masked_fill(~masked, _NEVER).softmax(-1) for side in ("start", "end")
    )
    none = float(start[0] * end[0])
    scores = torch.outer(start, end).triu().tril(longest - 1)
    scores[~allowed] = 0
    scores[:, ~allowed] = 0
    flat = scores.flatten()
    best = flat.topk(min(top_k, flat.numel()))
    found = []
    for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if score > 0:
            first, last = divmod(place, length)
            found.append(((output["offsets"][first][0], output["offsets"][last][1]), score))
    return found, none


def _count(asked: dict[str, Any], name: str) -> int:
    value = asked[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(f"body.parameters.{name}: expected a whole number of at least 1, got {value!r}")
    return value
