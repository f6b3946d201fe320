"""The modules of a sentence encoder after its pooling: dense layers and normalisation, in numpy.

Format: sentence-transformers' modules.json and N_Dense/{config.json,model.safetensors}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import settings
from engine.core.errors import SetupError

if TYPE_CHECKING:
    import numpy as np

    Step = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Head:
    """Steps on pooled vectors, in their order."""

    steps: tuple[Step, ...] = ()
    width: int | None = None
    """Numbers of a vector after the steps; None: unchanged."""

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the sentence vectors (texts, width), float32, of pooled ones (texts, hidden)."""
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def read(folder: Path, modules: list[dict[str, Any]]) -> Head:
    """Loads the modules after the pooling. Raises SetupError for an unknown module."""
    steps: list[Step] = []
    width: int | None = None
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        if kind == "Normalize":
            steps.append(_normalize)
        elif kind == "Dense":
            step, width = _dense(folder / module.get("path", ""))
            steps.append(step)
        elif kind != "Dropout":  # only for training
            raise SetupError(
                f"model.sources: {folder}/modules.json: module {kind} after the pooling is not supported; expected "
                "Dense or Normalize. Fix: use another model, or serve this one with TEI (provider=tei)"
            )
    return Head(tuple(steps), width)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    import numpy as np

    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled: np.ndarray = vectors / lengths
    return scaled


def _dense(folder: Path) -> tuple[Step, int]:
    import numpy as np
    from safetensors import safe_open

    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise SetupError(f"model.sources: {file} is missing. Fix: fetch the model again, with safetensors")
    config = settings.read_object(config_file)
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    activate = _activations().get(name)
    if activate is None:
        raise SetupError(
            f"model.sources: {config_file}: got activation_function {name}; expected one of "
            f"{', '.join(_activations())}. Fix: use another model"
        )
    wanted = ["linear.weight", *(["linear.bias"] if config.get("bias", True) else [])]
    with safe_open(str(weights_file), "np") as file:
        held = set(file.keys())
        missing = [each for each in wanted if each not in held]
        if missing:
            raise SetupError(f"model.sources: {weights_file} lacks {', '.join(missing)}. Fix: fetch the model again")
        weight = file.get_tensor("linear.weight").astype(np.float32).T
        bias = file.get_tensor("linear.bias").astype(np.float32) if len(wanted) == 2 else np.float32(0)

    def step(vectors: np.ndarray) -> np.ndarray:
        made: np.ndarray = activate(vectors @ weight + bias)
        return made

    return step, weight.shape[1]


def _activations() -> dict[str, Step]:
    import numpy as np

    return {
        "Tanh": np.tanh,
        "Identity": lambda vectors: vectors,
        "ReLU": lambda vectors: np.maximum(vectors, 0),
        "Sigmoid": lambda vectors: 1 / (1 + np.exp(-vectors)),
    }
