"""One task of one model through transformers' pipeline for it: prepared off the event loop, computed in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from transformers.pipelines.base import ChunkPipeline, Pipeline, PipelineException, pad_collate_fn
from transformers.pipelines.pt_utils import PipelineIterator

from engine.artifacts.resolve import Artifact
from engine.core.errors import Internal, InvalidRequest, SetupError
from engine.core.media_access import Media
from engine.media import decoding
from engine.runtimes.batcher import Batcher, is_out_of_memory
from engine.runtimes.pipelines import loading
from engine.runtimes.quiet import quiet
from engine.tasks.pipelines import PIPELINES, Ask

MAX_TOKENS = {"cpu": 2048, "cuda": 32768, "mps": 8192}
"""Tokens of one batch, with padding."""
MEDIUM_TOKENS = 256
"""The number of tokens that an image or another tensor without tokens counts as."""
_PADDED = frozenset({"input_ids", "attention_mask", "token_type_ids", "special_tokens_mask", "offset_mapping"})
"""Tensors that may be padded to the longest of a batch, because a mask marks the rest."""


class PipelineModel:
    """A loaded pipeline. Making one blocks. Raises OSError, ValueError, RuntimeError or ImportError.

    `convert` returns the object that computes, such as a model of OpenVINO; None: the loaded model itself does.
    """

    def __init__(
        self,
        task: str,
        artifact: Artifact,
        device: torch.device,
        dtype: torch.dtype,
        max_rows: int,
        convert: Callable[[Any], Any] | None = None,
    ) -> None:
        self.task = task
        self._known = PIPELINES[task]
        self.pipe: Any = loading.load(task, artifact, device, dtype)
        if convert is not None:
            self._convert(convert)
        # A pipeline of ours without transformers' base class has rows, too.
        self._chunked = isinstance(self.pipe, ChunkPipeline) or not isinstance(self.pipe, Pipeline)
        self._collate = self._collation()
        # One thread: a tokenizer refuses parallel use ("already borrowed").
        self._desk = ThreadPoolExecutor(1, thread_name_prefix=f"prepare-{task}")
        self.batches = Batcher(
            self._run, f"model-{task}", max_rows=max_rows if self._collate else 1, max_tokens=MAX_TOKENS[device.type]
        )

    def _convert(self, convert: Callable[[Any], Any]) -> None:
        if hasattr(self.pipe, "convert"):  # a model of several parts that compute
            self.pipe.convert(convert)
        else:
            self.pipe.model = convert(self.pipe.model)

    async def answer(self, ask: Ask) -> list[Any]:
        """Returns the outputs, one for each input, as JSON values. Raises InvalidRequest, SetupError, Internal."""
        try:
            options = self.pipe._sanitize_parameters(**ask.parameters)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidRequest(f"{ask.settings}: {_said(error)}") from error
        where = ask.where
        places = [where] if ask.single else [f"{where}[{index}]" for index in range(len(ask.inputs))]
        jobs = [self._one(each, place, *options) for each, place in zip(ask.inputs, places, strict=True)]
        return await asyncio.gather(*jobs)

    def close(self) -> None:
        """Waits for the batches in flight and frees the model. Blocks."""
        self.batches.close()
        self._desk.shutdown(wait=True, cancel_futures=True)
        self.pipe = None

    async def _one(self, value: Any, where: str, before: Any, within: Any, after: Any) -> Any:
        loop = asyncio.get_running_loop()
        items = await loop.run_in_executor(self._desk, self._prepare, value, where, {**self._defaults(0), **before})
        forward = {**self._defaults(1), **within}
        try:
            outputs = await asyncio.gather(*(self._compute(item, forward) for item in items))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise Internal("there is not enough memory for a single input of this size") from error
            raise Internal(f"the model failed: {_said(error)}") from error
        finish = partial(
            self._finish, [_in_float32(output) for output in outputs], where, {**self._defaults(2), **after}
        )
        return await loop.run_in_executor(self._desk, finish)

    def _defaults(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = (
            self.pipe._preprocess_params, self.pipe._forward_params, self.pipe._postprocess_params
        )[step]  # fmt: skip
        return found

    # -- before the model -----------------------------------------------------------------------------------------

    def _prepare(self, value: Any, where: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        given = self._decoded(value, where)
        try:
            prepared = self.pipe.preprocess(given, **options)
            return list(prepared) if self._chunked else [prepared]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, PipelineException) as error:
            raise InvalidRequest(f"{where}: {_said(error)}") from error
        except ImportError as error:
            raise SetupError(f"{self.task} needs {error.name or _said(error)}") from error

    def _decoded(self, value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {self._known.fields[name]: self._decoded(each, f"{where}.{name}") for name, each in value.items()}
        if not isinstance(value, Media):
            return value
        if self._known.medium == "audio":
            rate = int(self.pipe.feature_extractor.sampling_rate)
            return decoding.sound(value, where, rate)
        if self._known.medium == "video":
            return partial(decoding.frames, value, where)
        return decoding.picture(value, where)

    # -- the model ------------------------------------------------------------------------------------------------

    async def _compute(self, item: dict[str, Any], options: dict[str, Any]) -> Any:
        kind, tokens = self._kind(item, options)
        return await self.batches.compute((item, options), kind, tokens)

    def _kind(self, item: dict[str, Any], options: dict[str, Any]) -> tuple[Hashable, int]:
        """Returns the kind of a row, whose members may share a batch, and its number of tokens."""
        shapes: list[Hashable] = [tuple(sorted((name, repr(value)) for name, value in options.items()))]
        if options.get("seed") is not None or getattr(self.pipe, "alone", False):
            return None, MEDIUM_TOKENS  # a seed promises the same answer again, whatever else waits
        masked = "attention_mask" in item and not getattr(self.pipe, "exact_lengths", False)
        tokens = self.pipe.tokens(item, options) if hasattr(self.pipe, "tokens") else 0
        for name in sorted(item):
            value = item[name]
            if not isinstance(value, torch.Tensor):
                shapes.append((name, value if type(value) is int else type(value)))
                continue
            if value.dim() == 0 or value.shape[0] != 1:
                return None, MEDIUM_TOKENS  # one input that is several rows already
            if name == "input_ids":
                tokens = int(value.shape[1])
            padded = masked and name in _PADDED and value.dim() > 1
            shapes.append((name, value.dtype, value.shape[2:] if padded else value.shape[1:]))
        return tuple(shapes), tokens or MEDIUM_TOKENS

    def _run(self, rows: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[Any]:
        options = rows[0][1]
        # transformers warns of settings that override others, which is intended here.
        with quiet() if self.pipe._pipeline_calls_generate else nullcontext():
            return self._computed([item for item, _ in rows], options)

    def _computed(self, rows: list[dict[str, Any]], options: dict[str, Any]) -> list[Any]:
        # A pipeline removes fields from a row that are not for the model, and a row may be computed twice.
        items = [dict(row) for row in rows]
        if len(items) == 1 or self._collate is None:
            return [self.pipe.forward(item, **options) for item in items]
        batch = self._collate(items)
        several = PipelineIterator([batch], self.pipe.forward, options, loader_batch_size=len(items))
        return list(several)

    def _collation(self) -> Any:
        pipe = self.pipe
        if hasattr(pipe, "collate"):
            return pipe.collate
        extractor = pipe.feature_extractor if pipe.feature_extractor is not None else pipe.image_processor
        try:
            return pad_collate_fn(pipe.tokenizer, extractor)
        except ValueError:  # no token to pad with: row by row
            return None

    # -- after the model ------------------------------------------------------------------------------------------

    def _finish(self, outputs: list[Any], where: str, options: dict[str, Any]) -> Any:
        try:
            found = self.pipe.postprocess(outputs if self._chunked else outputs[0], **options)
            # Audio becomes a file, not a list of numbers.
            return found if self._known.pipeline == "synthesis" else decoding.plain(found)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise InvalidRequest(f"{where}, or the parameters: {_said(error)}") from error


def by_pipeline(tasks: Iterable[str], make: Callable[[str], PipelineModel]) -> dict[str, PipelineModel]:
    """A pipeline for each task; tasks that one pipeline does share it, and the model in it."""
    made: dict[str, PipelineModel] = {}
    for task in tasks:
        kind = PIPELINES[task].pipeline
        same = (each for other, each in made.items() if PIPELINES[other].pipeline == kind)
        made[task] = next(same, None) or make(task)
    return made


def _in_float32(output: Any) -> Any:
    """Converts outputs to float32: a softmax over the device's own precision would be inexact."""
    if isinstance(output, torch.Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, dict):
        for name in list(output):
            output[name] = _in_float32(output[name])
    return output


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
