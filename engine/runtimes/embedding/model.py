"""What a sentence encoder's folder says besides its weights: tokenizer, length, pooling, normalisation.

Format: sentence-transformers' modules.json, 1_Pooling/config.json, sentence_bert_config.json; a folder without them is
pooled by the mean and not normalised, as sentence-transformers does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.core.errors import SetupError
from engine.runtimes.batcher import too_much_padding

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """The settings of a sentence encoder."""

    config: dict[str, Any]
    """The encoder's config.json."""
    pooling: str
    """mean, cls or max."""
    normalize: bool
    """Vectors are scaled to length 1."""
    max_tokens: int
    """Longer texts are cut to this many tokens, special tokens included."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Tokenised texts."""

    ids: list[list[int]]
    cut: list[int]
    """Indices of those that were longer than the model reads."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of about the same length, which are encoded together."""

    rows: list[int]
    """Their indices in the request."""
    length: int
    """Tokens of the longest."""


def read(folder: Path, max_tokens: int | None = None) -> SentenceModel:
    """The settings in `folder`; `max_tokens` overrules the folder's. Raises SetupError."""
    config = _json(folder / "config.json")
    if config is None:
        raise SetupError(f"model.sources: {folder} has no config.json, so it is not a model's folder")
    modules = _json(folder / "modules.json") or []
    kinds = {module["type"].rsplit(".", 1)[-1]: module.get("path", "") for module in modules}
    limit = max_tokens or (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
    return SentenceModel(
        config=config,
        pooling=_pooling(_json(folder / kinds["Pooling"] / "config.json") if "Pooling" in kinds else None),
        normalize="Normalize" in kinds,
        max_tokens=int(limit or config.get("max_position_embeddings") or 512),
    )


def tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The folder's fast tokenizer, cutting at `max_tokens`, without padding. Raises SetupError."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SetupError(f"model.sources: {folder} has no tokenizer.json; a model with a fast tokenizer is needed")
    made = Tokenizer.from_file(str(path))
    made.enable_truncation(max_tokens)
    made.no_padding()
    return made


def read_texts(made: Tokenizer, texts: list[str]) -> Texts:
    """Tokenises all texts in one call; releases the interpreter lock meanwhile."""
    encodings = made.encode_batch_fast(texts)
    ids = [encoding.ids for encoding in encodings]
    return Texts(ids, [row for row, encoding in enumerate(encodings) if encoding.overflowing])


def padded(texts: list[list[int]], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The texts' tokens and their mask, both of shape (texts, longest), padded on the right with 0."""
    import numpy as np

    ids = np.zeros((len(texts), max(map(len, texts))), dtype)
    mask = np.zeros_like(ids)
    for place, tokens in enumerate(texts):
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    return ids, mask


def buckets(lengths: list[int], budget_tokens: int, at_least: int = 1) -> list[Bucket]:
    """Cuts texts into buckets of similar length, the longest first.

    A bucket holds at most `budget_tokens` with its padding. With `at_least` > 1 the work is cut fine enough for that
    many threads. Within a bucket no text is padded by more than a quarter, unless it is a handful of tokens.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    total = sum(lengths)
    budget = min(budget_tokens, max(SMALLEST_BUCKET_TOKENS, -(-total // at_least)))
    made: list[Bucket] = []
    rows: list[int] = []
    for row in order:
        longest = lengths[rows[0]] if rows else 0
        if rows and ((len(rows) + 1) * longest > budget or too_much_padding(lengths[row], longest)):
            made.append(Bucket(rows, longest))
            rows = []
        rows.append(row)
    if rows:
        made.append(Bucket(rows, lengths[rows[0]]))
    return made


SMALLEST_BUCKET_TOKENS = 128
"""Cutting finer costs more in calls than it saves."""


def _pooling(config: dict[str, Any] | None) -> str:
    if config is None:
        return "mean"
    if "pooling_mode" in config:
        chosen = [config["pooling_mode"]]
    else:
        chosen = [_POOLING.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if len(chosen) != 1 or chosen[0] not in _POOLING.values():
        raise SetupError(f"model.sources: pooling {chosen} is not supported; one of: mean, cls, max")
    return str(chosen[0])


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
