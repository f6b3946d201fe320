"""Forecasts of a series of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from engine.core.errors import InvalidRequest
from engine.runtimes import checkpoint
from engine.runtimes.pipelines.base import OwnPipeline

SAMPLES = 100
"""Samples drawn from a model that returns a distribution; their mean is the forecast."""


class Forecast(OwnPipeline):
    """PatchTST, PatchTSMixer, TimesFM and their like, which give numbers, and Informer, Autoformer and the time series
    transformer, from whose distributions futures are drawn.

    Inputs: a list of numbers, or one of lists with a number a channel; or an object with `past_values` and what else
    the model takes, as its documentation has it.
    """

    parts = ()

    @staticmethod
    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes one batch of several series."""
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    @classmethod
    def _model(cls, folder: Path, kind: torch.dtype) -> Any:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        name = next(iter(config.architectures or ()), "")
        if not name.endswith(("ForPrediction", "ForTimeSeriesPrediction")):
            raise ValueError(f"{name or config.model_type} is not a model that forecasts")
        return checkpoint.load(getattr(transformers, name), folder, dtype=kind)

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        seed = asked.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise InvalidRequest(f"body.parameters.seed: expected a whole number of at least 0, got {seed!r}")
        return {}, {"seed": seed}, {}

    def preprocess(self, given: Any) -> dict[str, Any]:
        """Returns the tensors of one series. Raises ValueError for a value that is not a series of the model's
        length."""
        named = given if isinstance(given, dict) else {"past_values": given}
        made = {}
        for name, value in named.items():
            tensor = torch.tensor(value, dtype=torch.long if "categorical" in name else torch.float32)
            made[name] = tensor.unsqueeze(0)
        if self._single_series:
            return made
        past = made["past_values"]
        channels = getattr(self.model.config, "num_input_channels", None)
        if channels is not None and past.dim() == 2:
            past = made["past_values"] = past.unsqueeze(-1)
        if channels is not None and past.shape[-1] != channels:
            raise ValueError(f"the model reads {channels} channels, and these are {past.shape[-1]}")
        self._check_length(past.shape[1])
        if self._draws:
            self._check_features(made, past)
        return made

    @property
    def _single_series(self) -> bool:
        return str(self.model.config.model_type).startswith("timesfm")

    @property
    def _draws(self) -> bool:
        return hasattr(self.model, "generate") and hasattr(self.model.config, "lags_sequence")

    def _check_length(self, length: int) -> None:
        config = self.model.config
        wanted = config.context_length + (max(config.lags_sequence) if self._draws else 0)
        if length < wanted:
            raise ValueError(f"the model reads {wanted} numbers, and these are {length}")
        if length > wanted:
            raise ValueError(f"the model reads {wanted} numbers, and these are {length}: send the last {wanted}")

    def _check_features(self, made: dict[str, Any], past: torch.Tensor) -> None:
        config = self.model.config
        made.setdefault("past_observed_mask", torch.ones_like(past))
        for name, length in (
            ("past_time_features", past.shape[1]), ("future_time_features", config.prediction_length)
        ):  # fmt: skip
            shape = (1, length, config.num_time_features)
            if name not in made and config.num_time_features == 0:
                made[name] = torch.zeros(shape)
            if name not in made or tuple(made[name].shape) != shape:
                raise ValueError(f"{name}: expected {length} lists of {config.num_time_features} numbers")

    def _forward(self, model_inputs: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        kind = self.model.dtype
        given = {name: value.to(kind) if value.is_floating_point() else value for name, value in model_inputs.items()}
        if seed is not None:
            torch.manual_seed(seed)
        if self._draws:
            return {"forecast": self.model.generate(**given).sequences.float().mean(1)}
        if self._single_series:
            found = self.model(past_values=list(given["past_values"]))
            return {"forecast": found.mean_predictions}
        found = self.model(**given).prediction_outputs
        if isinstance(found, tuple):
            found = self.model.generate(**given).sequences.float().mean(1)
        return {"forecast": found}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the forecast, in the form of the inputs."""
        forecast = model_outputs["forecast"][0].float()
        if forecast.dim() == 2 and forecast.shape[1] == 1:
            forecast = forecast[:, 0]
        return {"forecast": forecast.tolist()}
