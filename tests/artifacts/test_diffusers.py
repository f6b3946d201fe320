"""The layout of models of diffusers: which parts are loaded, and when a download is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.artifacts.diffusers import with_weights
from engine.artifacts.hub import complete


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What Stable Diffusion's repository holds, with weights of a few bytes."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": True,
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for name in ("text_encoder", "unet", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}", encoding="utf-8")
        (tmp_path / name / "weights.safetensors").write_bytes(b"x")
    return tmp_path


def test_the_parts_that_make_a_picture_are_those_with_weights(folder: Path) -> None:
    assert [part.name for part in with_weights(folder)] == ["text_encoder", "unet", "vae"]


def test_a_download_is_whole_without_the_safety_checker(folder: Path) -> None:
    assert complete(folder, "safetensors")


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_download_that_lacks_a_part_is_not_whole(part: str, folder: Path) -> None:
    (folder / part / "weights.safetensors").unlink()
    assert not complete(folder, "safetensors")


def test_a_download_that_lacks_a_shard_is_not_whole(folder: Path) -> None:
    index = {"weight_map": {"a": "weights.safetensors", "b": "more.safetensors"}}
    (folder / "unet" / "weights.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert not complete(folder, "safetensors")
    (folder / "unet" / "more.safetensors").write_bytes(b"x")
    assert complete(folder, "safetensors")
