"""A decoder of the seed's rows on OpenVINO GenAI: exported as by the runtime, then measured with its pipeline."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.artifacts.cache import Cache
from engine.artifacts.resolve import Artifact
from engine.bench.rows import ROWS, Row
from engine.core.child_process import module_command
from engine.schemas.hardware import OpenVinoHardwareSpec


def exported(row: Row, kind: str, cache: str) -> tuple[Path, int]:
    """The folder of OpenVINO IR, within `cache`, and the model's parameters.

    Made in a separate process, because it takes far more memory than the result.
    """
    command = module_command("engine.bench.genai", row.name, "none" if kind == "bf16" else kind, cache)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    folder, parameters = done.stdout.strip().splitlines()[-1].rsplit(" ", 1)
    return Path(folder), int(parameters)


def export(name: str, kind: str, cache: str) -> tuple[Path, int]:
    """As `exported`, in this process."""
    import tokenizers
    import torch
    import transformers

    from engine.runtimes.openvino import export as openvino_export

    row = next(each for each in ROWS if each.name == name)
    assert row.build is not None
    torch.manual_seed(0)
    model = row.build().eval()
    words = {"<s>": 0, **{str(index): index for index in range(1, 256)}}  # the measured call gets tokens
    stand_in = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<s>"))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(tokenizer_object=stand_in, eos_token="<s>").save_pretrained(folder)
        artifact = Artifact(Path(folder), "safetensors", "bench", cache=Cache(Path(cache)))
        made = openvino_export.exported(artifact, kind).path
    return made, sum(weight.numel() for weight in model.parameters())


class Model:
    """A pipeline with the runtime's own settings."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        from engine.runtimes.openvino.generation import open_pipeline

        hardware = OpenVinoHardwareSpec(kind="openvino", prefix_caching=False, threads=threads)
        self._pipeline = open_pipeline(str(folder), hardware)

    def decode(self, inputs: dict[str, Any], tokens: int) -> None:
        """Generates the given number of tokens, without a stop token."""
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True)
        handle = self._pipeline.add_request(0, openvino.Tensor(inputs["input_ids"].numpy()), config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        generated = len(handle.read_all()[0].generated_ids)
        assert generated == tokens, f"{generated} tokens instead of {tokens}"


if __name__ == "__main__":
    print(*export(*sys.argv[1:]))
