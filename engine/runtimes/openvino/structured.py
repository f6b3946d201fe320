"""Checks that OpenVINO GenAI can hold an answer to a schema, before the request joins the others.

The grammar is made inside a step of the pipeline, where a failure takes every other answer with it. So it is made here
first, by the same engine: a model with one operation, and the tokenizer of the real one, generates one token.
`openvino_schema` refuses the keywords that the engine would leave out.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from engine.core.errors import Internal, InvalidRequest
from engine.runtimes.openvino import schema as openvino_schema
from engine.runtimes.openvino import signal_stack
from engine.tasks.structured import SCHEMA

KEPT = 1024
"""Number of schemas whose check is cached."""


class SchemaCheck:
    """Checks schemas for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pipeline: Any = None
        """Made for the first schema."""
        self._good: OrderedDict[str, None] = OrderedDict()
        self._gate = threading.Lock()

    def check(self, schema: str) -> None:
        """Checks a schema: milliseconds, or seconds for one with thousands of values. Blocks.

        Raises InvalidRequest, and Internal after `close`.
        """
        if schema in self._good:
            return
        openvino_schema.check(json.loads(schema), SCHEMA)
        with self._gate:
            self._make(schema)
            self._good[schema] = None
            if len(self._good) > KEPT:
                self._good.popitem(last=False)

    def close(self) -> None:
        """Frees the tokenizer and the pipeline."""
        with self._gate:
            self._tokenizer = self._pipeline = None

    def _make(self, schema: str) -> None:
        import numpy as np
        import openvino
        import openvino_genai

        if self._tokenizer is None:
            raise Internal("the model was closed while a request was on its way")
        if self._pipeline is None:
            self._pipeline = _pipeline(self._tokenizer)
        config = openvino_genai.GenerationConfig(max_new_tokens=1, apply_chat_template=False)
        config.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=schema)
        try:
            self._pipeline.generate(openvino.Tensor(np.zeros((1, 1), np.int64)), config)
        except RuntimeError as error:
            raise InvalidRequest(f"{SCHEMA}: no grammar can be made of it: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """Returns the engine's message without its place in the source and its condition."""
    line = str(error).strip().splitlines()[-1]
    message = line.rpartition(".cc:")[2].partition(": ")[2] or line
    return message.partition(" is false: ")[2] or message


@signal_stack.kept()
def _pipeline(tokenizer: Any) -> Any:
    """Returns a pipeline whose every logit is 0: (rows, tokens) to (rows, tokens, vocabulary)."""
    import numpy as np
    import openvino
    import openvino_genai
    from openvino import opset15 as ops

    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    beams = ops.parameter([-1], np.int32, name="beam_idx")
    for inlet in (ids, mask, beams):
        inlet.output(0).set_names({inlet.friendly_name})
    vocabulary = ops.constant(np.array([len(tokenizer.get_vocab())], np.int64))
    logits = ops.broadcast(ops.constant(np.float32(0)), ops.concat([ops.shape_of(ids), vocabulary], 0))
    logits.output(0).set_names({"logits"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "even.xml"
        openvino.save_model(openvino.Model([ops.result(logits)], [ids, mask, beams], "even"), path)
        weights = openvino.Tensor(np.frombuffer(path.with_suffix(".bin").read_bytes(), np.uint8))
        # Not the default attention, which needs a graph with attention.
        return openvino_genai.LLMPipeline(path.read_text(), weights, tokenizer, "CPU", ATTENTION_BACKEND="SDPA")
