"""The settings in a sentence encoder's folder: tokenizer, length, pooling, normalisation.

Format: sentence-transformers' modules.json, 1_Pooling/config.json, sentence_bert_config.json; a folder without them is
pooled by the mean and not normalised, as sentence-transformers does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.artifacts import settings
from engine.core.errors import SetupError
from engine.runtimes.batcher import too_much_padding
from engine.runtimes.embedding.head import Head
from engine.runtimes.embedding.head import read as read_head

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
    """True: the pooled vectors are scaled to length 1."""
    max_tokens: int
    """Longer texts are cut to this many tokens, special tokens included."""
    head: Head = field(default_factory=Head)
    """Modules after the pooling, which the forward pass does not compute."""
    prompt: str = ""
    """The beginning of every text: the prompt of `default_prompt_name`."""
    lower: bool = False
    """True: texts are put in lower case."""

    def prepared(self, texts: list[str]) -> list[str]:
        """Returns the texts as the model reads them."""
        if not self.prompt and not self.lower:
            return texts
        return [self.prompt + (text.lower() if self.lower else text) for text in texts]


@dataclass(frozen=True, slots=True)
class Texts:
    """Tokenised texts."""

    ids: list[list[int]]
    cut: list[int]
    """Indices of the texts that were longer than the model reads."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Texts of similar length, which are encoded together."""

    rows: list[int]
    """Their indices in the request."""
    length: int
    """Tokens of the longest."""


def read(folder: Path, max_tokens: int | None = None) -> SentenceModel:
    """Reads the settings in `folder`; `max_tokens` overrides the folder's. Raises SetupError."""
    config = settings.read_object(folder / "config.json")
    if not config:
        raise SetupError(f"model.sources: {folder} has no config.json, so it is not a model's folder")
    modules = settings.read(folder / "modules.json") or []
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds and kinds[:2] != ["Transformer", "Pooling"]:
        raise SetupError(
            f"model.sources: {folder}/modules.json: got {', '.join(kinds)}; expected Transformer, Pooling, then Dense "
            "or Normalize. Fix: use another model, or serve this one with TEI (provider=tei)"
        )
    pooling = settings.read(folder / modules[1].get("path", "") / "config.json") if modules else None
    own = settings.read_object(folder / "sentence_bert_config.json")
    limit = max_tokens or own.get("max_seq_length")
    normalize = kinds[2:] == ["Normalize"]
    return SentenceModel(
        config=config,
        pooling=_pooling(pooling),
        normalize=normalize,
        max_tokens=int(limit or config.get("max_position_embeddings") or 512),
        head=Head() if normalize else read_head(folder, modules[2:]),
        prompt=_prompt(folder, pooling or {}),
        lower=bool(own.get("do_lower_case")),
    )


def tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """Returns the folder's fast tokenizer, which cuts at `max_tokens`, without padding. Raises SetupError."""
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
    """Returns the texts' tokens and their mask, both of shape (texts, longest), padded on the right with 0."""
    import numpy as np

    ids = np.zeros((len(texts), max(map(len, texts))), dtype)
    mask = np.zeros_like(ids)
    for place, tokens in enumerate(texts):
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
    return ids, mask


def buckets(lengths: list[int], budget_tokens: int, at_least: int = 1) -> list[Bucket]:
    """Cuts texts into buckets of similar length, the longest first.

    A bucket holds at most `budget_tokens` with its padding. With `at_least` > 1 the buckets are small enough for that
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
"""Smaller buckets cost more in calls than they save."""


def _prompt(folder: Path, pooling: dict[str, Any]) -> str:
    file = folder / "config_sentence_transformers.json"
    config = settings.read_object(file)
    name = config.get("default_prompt_name")
    if name is None:
        return ""
    prompts = config.get("prompts") or {}
    if name not in prompts:
        raise SetupError(
            f"model.sources: {file}: got default_prompt_name {name!r}; expected one of prompts "
            f"({', '.join(prompts) or 'empty'}). Fix: correct the file"
        )
    if prompts[name] and not pooling.get("include_prompt", True):
        raise SetupError(
            f"model.sources: {file}: default_prompt_name {name!r} with a pooling that leaves the prompt out "
            "(include_prompt: false) is not supported. Fix: serve the model with TEI (provider=tei)"
        )
    return str(prompts[name])


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
