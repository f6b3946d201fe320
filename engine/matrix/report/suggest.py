"""The next step for a model type that does not run, for each kind of reason."""

from __future__ import annotations

_STEPS = (
    ("requires the timm library", "needs timm, which pulls torchvision; use it in an environment of its own"),
    ("torchvision", "needs torchvision; use it in an environment of its own"),
    ("requires the", "install the package that the reason names, in an environment of its own"),
    ("only a configuration", "run the model that it is a part of"),
    ("no recipe makes the input", "write an override that says how to make that input"),
    ("do not match", "write an override that makes as many placeholders as features"),
    ("can't be built", "write an override with a configuration that is consistent"),
    ("No conversion rule", "wait for OpenVINO to convert that operation, or run it on torch"),
    ("GuardOnDataDependent", "its shapes depend on its data: run it on torch"),
    ("Could not guard", "its shapes depend on its data: run it on torch"),
    ("differs by", "compare layer by layer; an operation is converted with another meaning"),
    ("still has", "write an override that makes its configuration smaller"),
    ("time limit", "raise --time-limit"),
    ("memory limit", "raise --memory-limit"),
)


def suggestion(reason: str) -> str:
    """Returns the next step; a general one if none fits."""
    return next((step for words, step in _STEPS if words in reason), "run it on torch, and report it upstream")
