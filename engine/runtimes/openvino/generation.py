"""Continuous batching on OpenVINO GenAI: one thread owns the pipeline and runs every generation together.

Each step computes the next token of all sequences at once; requests join and leave between steps. `step` holds Python's
interpreter lock, so an event loop of this process runs between steps: ~10-20 ms apart while generating, longer while
long prompts are read (`PROMPT_TOKENS_A_STEP` bounds it).
"""

from __future__ import annotations

import math
import random
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from engine.core.errors import InferenceError, Internal, TooLong
from engine.runtimes.generation.delivery import Delivery, deliver
from engine.runtimes.generation.detokenizer import Detokenizer, advance
from engine.runtimes.openvino import signal_stack
from engine.runtimes.openvino.structured import SchemaCheck
from engine.schemas.hardware import OpenVinoHardwareSpec
from engine.tasks.local_model import Sampling, TextDelta

PROMPT_TOKENS_A_STEP = 256
"""Tokens that one step computes at most, over all sequences; OpenVINO GenAI's own default."""

GATHER_S = 0.001
"""The time that the first request after an idle time waits for others, in seconds."""
FAILURES_IN_A_ROW = 3
"""Failed steps in a row after which the model counts as broken."""


class _Running:
    """One generation in flight."""

    __slots__ = ("delivery", "handle", "text", "tokens")

    def __init__(self, handle: Any, delivery: Delivery, sampling: Sampling) -> None:
        self.handle = handle
        self.delivery = delivery
        self.tokens = 0
        """Tokens generated since the last piece."""
        self.text = Detokenizer(sampling.stop)


class ContinuousGenerator:
    """The thread that owns a ContinuousBatchingPipeline. `steps` counts its steps, for measurements."""

    def __init__(self, pipeline: Any, seed: int) -> None:
        self._pipeline = pipeline
        self._tokenizer = pipeline.get_tokenizer()
        self._schemas = SchemaCheck(self._tokenizer)
        self._rng = random.Random(seed)
        self._inbox: SimpleQueue[tuple[Any, Sampling, Delivery] | None] = SimpleQueue()
        self._running: list[_Running] = []
        self._count = 0
        self._gate = threading.Lock()
        self._closing = False
        self._ended: Internal | None = None
        """The error that later requests get, unless `close` ended the thread."""
        self.steps = 0
        self._thread = threading.Thread(target=self._run, name="openvino-generation", daemon=True)
        self._thread.start()

    def check(self, schema: str) -> None:
        """Checks if answers can be held to the schema. Blocks. Raises InvalidRequest.

        A schema that was not checked can fail in a step, which fails all requests in flight.
        """
        self._schemas.check(schema)

    def submit(self, tokens: Any, sampling: Sampling, delivery: Delivery, extras: dict[str, Any] | None = None) -> None:
        """Queues a generation. `tokens` is a tensor of shape (1, length); nothing else is read."""
        with self._gate:
            if not self._closing:
                self._inbox.put((tokens, sampling, delivery))
                return
        delivery.arrive(self._ended or Internal("the model was closed while a request was on its way"))

    @signal_stack.kept()
    def close(self) -> None:
        """Stops every generation, waits for the thread and frees the model. Blocks."""
        with self._gate:
            self._closing = True
        self._inbox.put(None)
        self._thread.join()
        self._schemas.close()
        self._pipeline = self._tokenizer = None

    def _run(self) -> None:
        failures = 0
        while not self._closing:
            try:
                self._admit()
                self._leave()
                if self._running or self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                    self.steps += 1
                    self._collect()
                failures = 0
            except Exception as error:  # the native pipeline raises RuntimeError for everything; no request may hang
                failures += 1
                failed = Internal(f"openvino failed while generating: {error}")
                self._fail_all(failed)
                if failures == FAILURES_IN_A_ROW:
                    with self._gate:
                        self._closing, self._ended = True, failed
        self._fail_all(self._ended or Internal("the model was closed while it was generating"))

    def _admit(self) -> None:
        """Takes in new requests; waits for one when idle."""
        wait = not self._running and not self._pipeline.has_non_finished_requests()
        while True:
            try:
                item = self._inbox.get(block=wait)
            except Empty:
                return
            if item is None:
                return
            if wait:
                # `step` keeps the interpreter to itself, so a caller that is about to send, too, would miss the first
                # one.
                time.sleep(GATHER_S)
                wait = False
            tokens, sampling, delivery = item
            if not delivery.cancelled:
                self._start(tokens, sampling, delivery)

    def _start(self, tokens: Any, sampling: Sampling, delivery: Delivery) -> None:
        self._count += 1
        try:
            handle = self._pipeline.add_request(self._count, tokens, self._config(sampling))
        except Exception as error:  # a refusal by the pipeline is this request's failure, not the others'
            deliver([(delivery, Internal(f"openvino refused the request: {error}"))])
            return
        self._running.append(_Running(handle, delivery, sampling))

    def _config(self, sampling: Sampling) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = sampling.max_tokens
        if sampling.temperature > 0:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            if sampling.top_k:
                config.top_k = sampling.top_k
            config.min_p = sampling.min_p
            config.rng_seed = self._rng.getrandbits(31) if sampling.seed is None else sampling.seed % 2**31
        config.repetition_penalty = sampling.repetition_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.presence_penalty = sampling.presence_penalty
        if sampling.schema is not None:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(json_schema=sampling.schema)
        return config

    def _leave(self) -> None:
        """Cancels the generations whose callers have left."""
        if any(run.delivery.cancelled for run in self._running):
            for run in self._running:
                if run.delivery.cancelled:
                    run.handle.cancel()
            self._running = [run for run in self._running if not run.delivery.cancelled]

    def _collect(self) -> None:
        """Reads the new tokens of every generation and delivers their text."""
        reads: list[tuple[_Running, str | None]] = []
        for run in self._running:
            reason = self._read(run)
            if reason or (run.tokens and not run.delivery.whole):
                reads.append((run, reason))
        if not reads:
            return
        fresh = advance([run.text for run, _ in reads], [reason is not None for _, reason in reads], self._decode)
        items: list[tuple[Delivery, TextDelta | InferenceError]] = []
        for (run, reason), text in zip(reads, fresh, strict=True):
            if run.text.stopped:
                if reason is None:
                    run.handle.cancel()
                reason = "stop"
            if reason == "ignored":
                items.append((run.delivery, _no_room()))
            else:
                items.append((run.delivery, TextDelta(text, run.tokens, reason)))
                run.tokens = 0
            if reason is not None:
                self._running.remove(run)
        deliver(items)

    def _read(self, run: _Running) -> str | None:
        """Takes the new tokens; returns the finish reason if the generation ended."""
        import openvino_genai

        handle = run.handle
        reason = None
        idle = True
        while handle.can_read():
            idle = False
            for output in handle.read().values():
                run.tokens += len(output.generated_ids)
                run.text.push(output.generated_ids)
                if output.finish_reason == openvino_genai.GenerationFinishReason.LENGTH:
                    reason = "length"
                elif output.finish_reason != openvino_genai.GenerationFinishReason.NONE:
                    reason = "stop"
        if idle and handle.get_status() == openvino_genai.GenerationStatus.IGNORED:
            reason = "ignored"
        return reason

    def _decode(self, windows: list[list[int]]) -> list[str]:
        decoded: list[str] = self._tokenizer.decode(windows)
        return decoded

    def _fail_all(self, error: InferenceError) -> None:
        failed: list[tuple[Delivery, TextDelta | InferenceError]] = [(run.delivery, error) for run in self._running]
        for run in self._running:
            run.handle.cancel()
        self._running = []
        while self._closing and not self._inbox.empty():
            item = self._inbox.get()
            if item is not None:
                failed.append((item[2], error))
        deliver(failed)


def _no_room() -> TooLong:
    return TooLong("the prompt does not fit the KV cache. Next: a larger hardware.kv_cache_gib, or a shorter prompt")


@signal_stack.kept()
def open_pipeline(path: str, hardware: OpenVinoHardwareSpec) -> Any:
    """Makes a ContinuousBatchingPipeline for a GGUF file or a folder of OpenVINO IR. Blocks. Raises RuntimeError."""
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = math.ceil(hardware.kv_cache_gib)  # OpenVINO GenAI takes whole GiB only
    scheduler.enable_prefix_caching = hardware.prefix_caching
    scheduler.max_num_seqs = hardware.max_sequences
    scheduler.max_num_batched_tokens = max(PROMPT_TOKENS_A_STEP, hardware.max_sequences)
    properties: dict[str, Any] = {}
    if hardware.threads is not None and hardware.device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = hardware.threads
    if hardware.precision != "auto":
        properties["INFERENCE_PRECISION_HINT"] = hardware.precision
        if hardware.device == "CPU":
            properties["KV_CACHE_PRECISION"] = hardware.precision  # else 8 bits
            if hardware.precision == "f32":
                # Else activations are quantized in groups that depend on the batch, and so would an answer.
                properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    return openvino_genai.ContinuousBatchingPipeline(path, scheduler, hardware.device, properties)
