"""Pictures from text through the whole engine: a tiny Stable Diffusion of fixed random weights, on every hardware."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request, Result
from engine.cli import main
from engine.core.errors import InferenceError, SetupError
from engine.schemas import RunSpec
from tests.runtimes.pipelines.test_pipelines import Folder, spec

pytestmark = pytest.mark.slow
pytest.importorskip("diffusers")
FLOAT32 = "hardware.dtype=float32"
SMALL: dict[str, Any] = {"size": "16x16", "num_inference_steps": 2}


@pytest.fixture
def made(folder: Folder) -> RunSpec:
    """The tiny model, in both forms, on the CPU."""
    return spec(folder("text-to-image"), "image, text-to-image", FLOAT32)


async def paint(engine: Engine, prompt: str = "a cat", **told: Any) -> Result:
    return await engine.submit(Request("image", {"prompt": prompt, **SMALL, **told}))


async def painted(engine: Engine, prompt: str = "a cat", **told: Any) -> list[Any]:
    """The pictures as arrays."""
    result = await paint(engine, prompt, **told)
    assert result.body is not None, result.error
    assert result.usage is not None
    assert result.usage.images == len(result.body["data"])
    return [pixels(picture["b64_json"]) for picture in result.body["data"]]


def pixels(data: str) -> Any:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("RGB"), np.float32)


async def test_a_seed_paints_the_same_picture_again_whatever_else_is_painted(made: RunSpec) -> None:
    async with Engine(made) as engine:
        first = await paint(engine, seed=4)
        others = [paint(engine, "a dog", size="24x16") for _ in range(3)]
        again, *_ = await asyncio.gather(paint(engine, seed=4), *others)
        another = await paint(engine, seed=5)
        unseeded = [await paint(engine) for _ in range(2)]
    assert first.body is not None
    assert again.body is not None
    assert another.body is not None
    assert first.body["data"] == again.body["data"]
    assert first.body["data"] != another.body["data"]
    assert unseeded[0].body != unseeded[1].body


async def test_the_pictures_of_a_request_have_seeds_in_a_row(made: RunSpec) -> None:
    async with Engine(made) as engine:
        three = await painted(engine, n=3, seed=7)
        alone = [(await painted(engine, seed=seed))[0] for seed in (7, 8, 9)]
    assert len(three) == 3
    for found, wanted in zip(three, alone, strict=True):
        assert abs(found - wanted).max() <= 1  # rows of a batch may be rounded differently


async def test_pictures_without_a_seed_are_painted_together(made: RunSpec) -> None:
    async with Engine(made) as engine:
        found = await asyncio.gather(*(painted(engine, prompt, n=2) for prompt in ("a cat", "b", "c", "d")))
        runtime = await engine.pipeline.target_chains[0].executor._shared.runtime()  # type: ignore[attr-defined]
        counts = runtime._pipelines["image"].batches.counts
    assert [len(pictures) for pictures in found] == [2, 2, 2, 2]
    assert counts.rows == 8
    assert counts.batches <= 4


async def test_what_is_asked_for_is_what_is_painted(made: RunSpec) -> None:
    async with Engine(made) as engine:
        plain = (await painted(engine, seed=1))[0]
        wide = (await painted(engine, seed=1, size="32x16"))[0]
        own = (await painted(engine, seed=1, size="auto"))[0]
        changed = [
            (await painted(engine, seed=1, **told))[0]
            for told in ({"negative_prompt": "dog"}, {"guidance_scale": 1}, {"num_inference_steps": 4})
        ]
        other = (await painted(engine, "a dog", seed=1))[0]
    assert plain.shape == (16, 16, 3)
    assert wide.shape == (16, 32, 3)
    assert own.shape == (16, 16, 3)
    assert all((each != plain).any() for each in (*changed, other))


async def test_both_forms_paint_the_same_picture(made: RunSpec) -> None:
    told = {"width": 16, "height": 16, "num_inference_steps": 2, "seed": 3}
    async with Engine(made) as engine:
        wanted = await paint(engine, seed=3)
        found = await engine.submit(Request("text-to-image", {"inputs": "a cat", "parameters": told}))
        listed = await engine.submit(Request("text-to-image", {"inputs": ["a cat", "a dog"], "parameters": told}))
    assert wanted.body is not None
    assert found.body is not None, found.error
    assert listed.body is not None, listed.error
    image = {"data": wanted.body["data"][0]["b64_json"], "format": "png"}
    assert found.body["outputs"] == {"image": image}
    assert listed.body["outputs"][0] == {"image": image}
    assert len(listed.body["outputs"]) == 2


async def test_a_picture_is_the_same_on_openvino(made: RunSpec, folder: Folder) -> None:
    graphs = spec(folder("text-to-image"), "image", "hardware.precision=f32", hardware="openvino")
    asked = [("a cat", {"seed": 1}), ("a dog", {"seed": 2, "n": 2, "size": "32x24"})]
    async with Engine(made) as torch, Engine(graphs) as openvino:
        for prompt, told in asked:
            wanted = await painted(torch, prompt, negative_prompt="dog", **told)
            found = await painted(openvino, prompt, negative_prompt="dog", **told)
            assert len(found) == told.get("n", 1)
            assert max(abs(a - b).max() for a, b in zip(wanted, found, strict=True)) <= 1


@pytest.mark.parametrize(
    ("told", "kind", "said"),
    [
        ({"prompt": " "}, "invalid_request", "body.prompt: expected text"),
        ({"prompt": "cat " * 9}, "too_long", "the prompt has 29 tokens, and the model reads 24; shorten it"),
        ({"negative_prompt": "cat " * 9}, "too_long", "negative_prompt has 29 tokens"),
        ({"size": "17x16"}, "invalid_request", "the width must be a multiple of 2 pixels, not 17"),
        ({"size": "large"}, "invalid_request", "body.size: expected WIDTHxHEIGHT"),
        ({"size": "9000x16"}, "invalid_request", "each from 8 to 2048"),
        ({"n": 11}, "invalid_request", "body.n: expected a whole number from 1 to 10"),
        ({"seed": -1}, "invalid_request", "body.seed: expected a whole number"),
        ({"guidance_scale": "7"}, "invalid_request", "body.guidance_scale: expected a number from 0 to 100"),
        ({"response_format": "url"}, "invalid_request", "body.response_format: .*b64_json only"),
        ({"output_format": "webp"}, "invalid_request", "body.output_format: .*png only"),
        ({"steps": 3}, "invalid_request", "body.steps: not supported by a model in this process"),
    ],
)
async def test_what_can_not_be_painted_is_refused_with_its_place(
    told: dict[str, Any], kind: str, said: str, made: RunSpec
) -> None:
    async with Engine(made) as engine:
        result = await engine.submit(Request("image", {"prompt": "a cat", **SMALL, **told}))
    assert result.error is not None
    assert result.error.kind == kind
    with pytest.raises(type(result.error), match=said):
        raise result.error


async def test_a_picture_comes_whole(made: RunSpec) -> None:
    async with Engine(made) as engine:
        with pytest.raises(InferenceError, match=r"body\.stream: a model in this process answers image whole"):
            async for _ in engine.stream(Request("image", {"prompt": "a cat", **SMALL})):
                pass


def words(folder: Path, *more: str) -> list[str]:
    source = f"{{kind: file, path: {folder}, format: safetensors}}"
    return [
        "provider=local",
        "model=remote",
        "model.name=tiny",
        "model.tasks=[image]",
        f"model.sources=[{source}]",
        *more,
    ]


def test_a_plan_tells_the_memory_of_all_parts(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words(folder("text-to-image"), "hardware=cpu", FLOAT32), "--json"]) == 0
    target = json.loads(capsys.readouterr().out)["targets"][0]
    memory = target["memory"]
    stored = sum(file.stat().st_size for file in folder("text-to-image").rglob("*.safetensors"))
    assert memory["weights_bytes"] == pytest.approx(stored, rel=0.02)
    assert memory["activations_bytes"] == 16 * 16 * (3 * 64 + 32) * 4


def test_a_run_leaves_its_pictures_as_files(folder: Folder, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    body = {"prompt": "a cat", "size": "16x16", "num_inference_steps": 2, "n": 2}
    rows.write_text(json.dumps({"custom_id": "a", "url": "/v1/images/generations", "body": body}), encoding="utf-8")
    where = [f"output.dir={tmp_path / 'runs'}", "output.media=files", "workload=jsonl", f"workload.path={rows}"]
    assert main(words(folder("text-to-image"), "hardware=cpu", FLOAT32, *where)) == 0
    files = sorted(tmp_path.glob("runs/**/media/*.png"))
    assert [file.name for file in files] == ["000001-1.png", "000001-2.png"]
    assert pixels(base64.b64encode(files[0].read_bytes()).decode()).shape == (16, 16, 3)


async def test_a_folder_that_is_no_model_of_diffusers_is_a_clear_error(folder: Folder) -> None:
    with pytest.raises(SetupError, match=r"it has no model_index\.json, so it is not a model of diffusers"):
        async with Engine(spec(folder("image-classification"), "image", FLOAT32)) as engine:
            await engine.start()


def test_without_diffusers_the_way_to_install_it_is_said(folder: Folder, tmp_path: Path) -> None:
    absent = tmp_path / "diffusers.py"
    absent.write_text("raise ModuleNotFoundError('it is not installed', name='diffusers')\n", encoding="utf-8")
    command = [sys.executable, "-m", "engine", "check", *words(folder("text-to-image"), "hardware=cpu")]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert 'images from text need diffusers. Next: pip install "ipfs-accelerate[diffusers]"' in (
        ended.stdout + ended.stderr
    )
