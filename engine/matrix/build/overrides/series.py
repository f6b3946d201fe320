"""Models of series over time."""

from __future__ import annotations

from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import floats

_LENGTH = "needs the number of steps to look ahead"
_AHEAD = {"prediction_length": 16, "num_time_features": 1}

SERIES: dict[str, Override] = {
    "autoformer": Override(_LENGTH, head="AutoformerForPrediction", config=_AHEAD),
    "informer": Override(
        _LENGTH + "; chooses queries by keys that it draws, and with this factor it chooses all",
        head="InformerForPrediction",
        config={**_AHEAD, "sampling_factor": 20},
    ),
    "time_series_transformer": Override(_LENGTH, head="TimeSeriesTransformerForPrediction", config=_AHEAD),
    "timesfm": Override(
        "learns no value of the future", inputs={"past_values": floats("B", 64), "future_values": None}
    ),
    "timesfm2_5": Override(
        "learns no value of the future", inputs={"past_values": floats("B", 64), "future_values": None}
    ),
}
