"""A generator's safetensors for OpenVINO GenAI: exported once, checked against torch, kept in the cache.

The graph is transformers' own export with its KV cache as the graph's state, which GenAI turns into paged attention;
the tokenizer goes with it (openvino-tokenizers). Before it is kept, its answer is compared with torch's
(openvino_check). Sources: transformers.exporters; OpenVINO GenAI, "Continuous batching".
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from engine.artifacts.cache import Held
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes import checkpoint
from engine.runtimes.batcher import is_out_of_memory
from engine.runtimes.openvino import export_check
from engine.runtimes.openvino.cache import kept
from engine.runtimes.openvino.compare import TOLERANCE, said
from engine.runtimes.openvino.core import core
from engine.runtimes.openvino.quantization import quantize_openvino
from engine.runtimes.quiet import quiet

RECIPE = 2
"""Version of the output: a cached copy of an older version is made again."""
_CANNOT = "cannot.txt"
"""Kept instead of a model that can't be exported: the reason, so that it is not tried at every start."""

log = logging.getLogger("engine.runtimes")


class CannotExport(SetupError):
    """Raised for an architecture that OpenVINO GenAI can't run."""


def exported(artifact: Artifact, kind: str) -> Held:
    """Returns a folder of OpenVINO IR with weights quantized as `kind`, in the artifact's cache. Blocks, up to a minute
    for 30 layers.

    Raises CannotExport if GenAI can't run the architecture or answers differently from torch, SetupError for its
    tokenizer, OSError or SetupError when the cache can't be written, ValueError or RuntimeError when the files can't be
    loaded.
    """
    versions = {name: importlib.metadata.version(name) for name in ("openvino", "openvino-tokenizers", "transformers")}
    versions["recipe"] = str(RECIPE)
    plain = kept(artifact, "OpenVINO", versions, lambda temp: _export(artifact.path, temp))
    if (plain.path / _CANNOT).is_file():
        raise CannotExport((plain.path / _CANNOT).read_text(encoding="utf-8"))
    if kind == "none":
        return plain
    smaller = {**versions, "quantization": kind, "nncf": importlib.metadata.version("nncf")}
    return kept(artifact, f"OpenVINO {kind}", smaller, lambda temp: _quantize(plain.path, temp, kind))


def _export(source: Path, temp: Path) -> Path:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    log.info("exporting %s for OpenVINO", source.name)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about versions that were not tested together
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        model = checkpoint.load(AutoModelForCausalLM, source, dtype="auto").eval()
        fresh = temp / "fresh"
        _save_tokenizer(tokenizer, fresh)
        model.config.save_pretrained(fresh)
        problems = _tried(model, fresh)
    if not problems:
        return fresh
    reason = (
        f"model: OpenVINO GenAI can't run {type(model).__name__} ({'; '.join(map(_in_words, problems))}). "
        f"Next: hardware=cpu runs it with torch"
    )
    if any(is_out_of_memory(problem) for problem in problems):
        raise CannotExport(reason)  # another time there may be more
    cannot = temp / "cannot"
    cannot.mkdir()
    (cannot / _CANNOT).write_text(reason, encoding="utf-8")
    return cannot


def _tried(model: Any, folder: Path) -> list[Exception]:
    """Exports into the folder, with the mask and then without; returns the reason if it can't be done."""
    problems: list[Exception] = []
    prompt = export_check.prompt_of(model)
    for masked in (True, False) if not _windowed(model) else (True,):
        try:
            _save_graph(model, folder, masked)
            away = export_check.away(model, folder, prompt)
        except Exception as problem:  # the boundary: exporters and plug-ins raise types of their own
            problems.append(problem)
            continue
        if away <= TOLERANCE["f32" if model.dtype == torch.float32 else "bf16"]:
            log.info("%s exported: it is at most %.1e away from torch", type(model).__name__, away)
            return []
        problems.append(ValueError(f"after {prompt.shape[1]} tokens it is {away:.2g} away from torch's answer"))
    return problems


def _in_words(problem: Exception) -> str:
    return f"{type(problem).__name__}: {said(problem)}"


def _windowed(model: Any) -> bool:
    """Returns True if a layer sees only the last tokens, which the graph learns from the mask."""
    config = model.config.get_text_config()
    return bool(getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None))


def _save_graph(model: Any, folder: Path, masked: bool) -> None:
    """Exports the forward pass with its growing cache as state. Raises the exporter's errors."""
    import openvino
    from transformers.exporters import OpenVINOConfig, OpenVINOExporter

    # Sizes that differ from each other and from 1, which torch.export treats as constants.
    rows, before, now = 2, 7, 3
    ids = torch.arange(rows * (before + now)).reshape(rows, -1) % model.config.get_text_config().vocab_size
    with torch.no_grad():
        cache = model(input_ids=ids[:, :before], use_cache=True).past_key_values
        inputs = {"input_ids": ids[:, before:].contiguous(), "past_key_values": cache, "use_cache": True}
        if masked:
            inputs["attention_mask"] = torch.ones_like(ids)
        if "position_ids" in inspect.signature(model.forward).parameters:
            inputs["position_ids"] = torch.arange(before, before + now).repeat(rows, 1)
        graph = OpenVINOExporter().export(model, inputs, OpenVINOConfig(dynamic=True, stateful=True)).program
    if graph.has_rt_info(["runtime_options"]):
        del graph.rt_info["runtime_options"]  # the exporter fixes the precision, which the hardware should choose
    openvino.save_model(graph, str(folder / "openvino_model.xml"), compress_to_fp16=False)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    import openvino
    from openvino_tokenizers import convert_tokenizer

    tokenizer.save_pretrained(folder)
    try:
        parts = convert_tokenizer(tokenizer, with_detokenizer=True)
    except Exception as error:  # the boundary, as above
        raise SetupError(
            f"model: OpenVINO has no counterpart of {type(tokenizer).__name__} ({said(error)}). "
            f"Next: hardware=cpu runs it with torch"
        ) from error
    for part, name in zip(parts, ("tokenizer", "detokenizer"), strict=True):
        openvino.save_model(part, str(folder / f"openvino_{name}.xml"))


def _quantize(plain: Path, temp: Path, kind: str) -> Path:
    import openvino

    fresh = temp / "fresh"
    shutil.copytree(plain, fresh, ignore=shutil.ignore_patterns("openvino_model.*"))
    graph = core().read_model(plain / "openvino_model.xml")
    smaller = quantize_openvino(graph, kind)
    openvino.save_model(smaller, str(fresh / "openvino_model.xml"), compress_to_fp16=False)
    return fresh
