"""Tensors of the right shape for the inputs that models name in their forward signatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.matrix.build.parts import of_modality, setting

WORDS = 12
"""Tokens of each text."""
DECODED = 5
"""Tokens at the start of a decoder."""
FRAMES = 64
"""Frames of each spectrogram, if the model does not fix them."""
SAMPLES = 4000
"""Samples of each audio."""
SIDE = 64
"""Pixels a side, if the model does not fix them."""
GRID = 4
"""Patches a side of an image that comes as patches."""
FIRST_WORD, LAST_WORD = 10, 200
"""Ids of text: above most special tokens, below those that moved."""


class Sizes:
    """Reads the sizes of inputs from the configuration; draws their values from a fixed seed."""

    def __init__(self, config: Any, batch: int, seed: int, model_type: str = "") -> None:
        import torch

        self.config, self.batch, self.model_type = config, batch, model_type
        self.vision = of_modality(config, "vision", "image", "visual", "backbone")
        self.audio = of_modality(config, "audio", "speech", "acoustic", "encoder")
        self.text = of_modality(config, "text", "decoder", "language", "llm")
        self._generator = torch.Generator().manual_seed(seed)

    def integers(self, low: int, high: int, *shape: int) -> Any:
        import torch

        return torch.randint(low, max(high, low + 1), shape, generator=self._generator)

    def floats(self, *shape: int) -> Any:
        import torch

        return torch.randn(shape, generator=self._generator)

    def vocabulary(self) -> int:
        found = setting(self.text, "vocab_size")
        return found if isinstance(found, int) else int(setting(self.config, "vocab_size", default=LAST_WORD))

    def words(self, length: int = WORDS) -> Any:
        high = min(LAST_WORD, self.vocabulary())
        return self.integers(FIRST_WORD if high > 2 * FIRST_WORD else 1, high, self.batch, length)

    def image_side(self) -> tuple[int, int]:
        size = setting(self.vision, "image_size", "img_size", "input_size", "pretrain_image_size")
        if size is None:
            size = setting(self.config, "image_size", default=SIDE)
        if isinstance(size, dict):
            return int(size["height"]), int(size["width"])
        if isinstance(size, (list, tuple)):
            return int(size[0]), int(size[-1])
        return int(size), int(size)

    def channels(self) -> int:
        found = setting(self.vision, "num_channels", "in_channels", "in_chans", "num_input_channels", default=3)
        return found if isinstance(found, int) and found in (1, 3, 4) else 3

    def frames(self) -> int | None:
        found = setting(self.vision, "num_frames", "frames_per_clip")
        return found if isinstance(found, int) else None

    def hidden(self, part: Any = None) -> int:
        names = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "hidden_dim", "embed_dims")
        return int(setting(part if part is not None else self.config, *names, default=64))

    def bins(self) -> int:
        names = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", "feature_size",
                 "n_mels", "num_mels", "feat_in", "mel_dim", "model_in_dim", "input_feat_size")  # fmt: skip
        return int(setting(self.audio, *names) or setting(self.config, *names, default=80))

    def patch(self) -> int:
        found = setting(self.vision, "patch_size", default=14)
        return int(found if isinstance(found, int) else found[0])


Make = Callable[[Sizes], Any]


def ints(high: int, *shape: int | str, low: int = 0) -> Make:
    """Whole numbers low … high-1; "B" in the shape is the number of rows, "4B" four times as many."""
    return lambda sizes: sizes.integers(low, high, *_shape(shape, sizes))


def floats(*shape: int | str) -> Make:
    """Normal random numbers."""
    return lambda sizes: sizes.floats(*_shape(shape, sizes))


def ones(*shape: int | str) -> Make:
    """A mask that masks nothing."""

    def make(sizes: Sizes) -> Any:
        import torch

        return torch.ones(_shape(shape, sizes), dtype=torch.long)

    return make


def trues(*shape: int | str) -> Make:
    """A boolean mask that masks nothing."""

    def make(sizes: Sizes) -> Any:
        import torch

        return torch.ones(_shape(shape, sizes), dtype=torch.bool)

    return make


def each(row: Any) -> Make:
    """The same values in each row."""

    def make(sizes: Sizes) -> Any:
        import torch

        return torch.tensor([row] * sizes.batch)

    return make


def placed_patches(rows: int, width: int) -> Make:
    """Makes flat patches of `rows` × `rows`, each after the numbers of its row and column, which begin with 1."""

    def make(sizes: Sizes) -> Any:
        import torch

        places = torch.cartesian_prod(torch.arange(1.0, rows + 1), torch.arange(1.0, rows + 1))
        patches = sizes.floats(sizes.batch, rows * rows, width)
        return torch.cat([places.expand(sizes.batch, -1, -1), patches], dim=-1)

    return make


def rows(numbers: list[list[int]]) -> Make:
    """The same whole numbers, whatever the number of rows in a batch."""

    def make(sizes: Sizes) -> Any:
        import torch

        return torch.tensor(numbers)

    return make


def value(fixed: Any) -> Make:
    """One value, whatever the number of rows."""
    return lambda sizes: fixed


def after(count: int, *tokens: str) -> Make:
    """Makes text after `count` placeholders, whose token is the first of these settings that exists."""

    def make(sizes: Sizes) -> Any:
        import torch

        token = setting(sizes.config, *tokens)
        return torch.cat([torch.full((sizes.batch, count), token), sizes.words()], dim=1)

    return make


def several(*makes: Make) -> Make:
    """A list of inputs."""
    return lambda sizes: [make(sizes) for make in makes]


def _shape(shape: tuple[int | str, ...], sizes: Sizes) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else int(size.removesuffix("B") or 1) * sizes.batch for size in shape)


def _pixel_values(sizes: Sizes) -> Any:
    height, width = sizes.image_side()
    return sizes.floats(sizes.batch, sizes.channels(), height, width)


def clips(sizes: Sizes) -> Any:
    """Several images in each row: frames of a video, tiles of an image, or a pair to compare."""
    height, width = sizes.image_side()
    return sizes.floats(sizes.batch, sizes.frames() or 2, sizes.channels(), height, width)


def _input_values(sizes: Sizes) -> Any:
    bins, length = setting(sizes.audio, "num_mel_bins"), setting(sizes.audio, "max_length")
    if isinstance(bins, int) and isinstance(length, int):
        return sizes.floats(sizes.batch, length, bins)
    if setting(sizes.config, "conv_stride"):
        return sizes.floats(sizes.batch, SAMPLES)
    return sizes.floats(sizes.batch, int(setting(sizes.config, "audio_channels", default=1)), SAMPLES)


def _input_features(sizes: Sizes) -> Any:
    positions = setting(sizes.audio, "max_source_positions")
    stacked = setting(sizes.audio, "feature_projection_input_dim") is not None
    if isinstance(positions, int) and "speech_to_text" not in sizes.model_type and not stacked:
        return sizes.floats(sizes.batch, sizes.bins(), 2 * positions)
    return sizes.floats(sizes.batch, FRAMES, sizes.bins())


def _boxes(sizes: Sizes) -> Any:
    import torch

    corners = sizes.integers(0, 100, sizes.batch, WORDS, 4)
    low = torch.minimum(corners[..., :2], corners[..., 2:])
    high = torch.maximum(corners[..., :2], corners[..., 2:])
    return torch.cat([low, high], dim=-1)


def _grid(sizes: Sizes) -> Any:
    import torch

    return torch.tensor([[1, GRID, GRID]] * sizes.batch)


def _patches(sizes: Sizes) -> Any:
    """Images as flat patches, one after the other, as Qwen2-VL's encoders read them."""
    frames = int(setting(sizes.config, "temporal_patch_size", "patch_temporal", default=1))
    channels = int(setting(sizes.config, "in_channels", "in_chans", "num_channels", default=3))
    return sizes.floats(sizes.batch * GRID * GRID, channels * frames * sizes.patch() ** 2)


def _past_values(sizes: Sizes) -> Any:
    config = sizes.config
    lags = max(getattr(config, "lags_sequence", None) or [0])
    length = int(setting(config, "context_length", "seq_len", default=32)) + lags
    if lags:
        width = int(config.input_size)
        return sizes.floats(sizes.batch, length) if width == 1 else sizes.floats(sizes.batch, length, width)
    return sizes.floats(sizes.batch, length, int(setting(config, "num_input_channels", default=1)))


def _past_time_features(sizes: Sizes) -> Any:
    config = sizes.config
    return sizes.floats(sizes.batch, config.context_length + max(config.lags_sequence), config.num_time_features)


def _ones_like(make: Make) -> Make:
    def like(sizes: Sizes) -> Any:
        import torch

        return torch.ones_like(make(sizes))

    return like


def _hidden_states(sizes: Sizes) -> Any:
    return sizes.floats(sizes.batch, WORDS, sizes.hidden())


def _patches_or_states(sizes: Sizes) -> Any:
    """Makes hidden states, as encoders of packed images call their patches."""
    return _patches(sizes) if hasattr(sizes.config, "spatial_merge_size") else _hidden_states(sizes)


MAKERS: Mapping[str, Make] = {
    "input_ids": lambda sizes: sizes.words(),
    "decoder_input_ids": lambda sizes: sizes.words(DECODED),
    "pixel_values": _pixel_values,
    "pixel_values_videos": clips,
    "images": _pixel_values,
    "image": _pixel_values,
    "input_values": _input_values,
    "input_features": _input_features,
    "audio_mel": lambda sizes: sizes.floats(sizes.batch, FRAMES, sizes.bins()),
    "audio_mel_mask": trues("B", FRAMES),
    "spectrogram": lambda sizes: sizes.floats(sizes.batch, FRAMES, sizes.bins()),
    "bbox": _boxes,
    "grid_thw": _grid,
    "image_grid_thw": _grid,
    "patches": _patches,
    "padded_patches": lambda sizes: sizes.floats(sizes.batch, GRID * GRID, 3 * sizes.patch() ** 2),
    "merge_sizes": lambda sizes: each(2)(sizes),
    "image_merge_sizes": lambda sizes: each(2)(sizes),
    "spatial_shapes": each([GRID, GRID]),
    "pixel_attention_mask": ones("B", GRID * GRID),
    "past_values": _past_values,
    "past_time_features": _past_time_features,
    "past_observed_mask": _ones_like(_past_values),
    "future_time_features": lambda sizes: sizes.floats(
        sizes.batch, sizes.config.prediction_length, sizes.config.num_time_features
    ),
    "future_values": lambda sizes: sizes.floats(sizes.batch, sizes.config.prediction_length),
    "hidden_states": _patches_or_states,
    "hidden_state": _hidden_states,
    "inputs_embeds": _hidden_states,
    "query_embeds": lambda sizes: sizes.floats(
        sizes.batch, int(setting(sizes.config, "num_query_tokens", default=8)), sizes.hidden()
    ),
    "encoder_hidden_states": lambda sizes: sizes.floats(
        sizes.batch, WORDS, int(setting(sizes.config, "cross_attention_hidden_size", "encoder_hidden_size", default=0))
        or sizes.hidden(),
    ),
    "qformer_input_ids": lambda sizes: sizes.words(),
    "task_inputs": lambda sizes: sizes.words(),
}  # fmt: skip
"""Makers of inputs, by name."""

OPTIONAL: Mapping[str, Callable[[Sizes, Mapping[str, Any]], bool]] = {
    "pixel_values": lambda sizes, made: True,
    "input_values": lambda sizes, made: True,
    "input_features": lambda sizes, made: "input_values" not in made,
    "decoder_input_ids": lambda sizes, made: bool(getattr(sizes.config, "is_encoder_decoder", False)),
    "bbox": lambda sizes, made: True,
    "past_observed_mask": lambda sizes, made: True,
    "past_time_features": lambda sizes, made: True,
    "future_time_features": lambda sizes, made: True,
    "future_values": lambda sizes, made: hasattr(sizes.config, "lags_sequence"),
    "past_values": lambda sizes, made: True,
    "image_merge_sizes": lambda sizes, made: "image_grid_thw" in made,
    "image_grid_thw": lambda sizes, made: "pixel_values" in made and made["pixel_values"].dim() == 2,
}
"""Inputs with a default that a model still needs, and the condition."""
