"""The imports that the fork server does once, so that each model's process starts with a fork instead of 5 s of
imports."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import importlib

for _name in (
    "torch",
    "transformers.modeling_utils",
    "transformers.generation",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.feature_extraction_auto",
    "transformers.models.llama.modeling_llama",
    "engine.matrix.build.recipe",
    "engine.matrix.measure.worker",
):
    importlib.import_module(_name)
