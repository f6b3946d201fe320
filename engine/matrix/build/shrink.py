"""Makes the configuration of a model type small: the same architecture, with few layers, narrow and with few words.

Two levels. `small` cuts widths too, to one common width, so that what must be equal between parts of a model is equal.
`shallow` keeps the widths and cuts only depth, vocabulary and experts: for architectures whose widths depend on each
other in ways that no common rule knows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from engine.matrix.build.overrides.override import Level

WIDTH = 64
HEADS = 4
VOCABULARY = 512
FIRST_SPECIAL = 400
"""Special tokens with ids beyond the small vocabulary move here."""

Settings = dict[str, Any]

_DEPTH = re.compile(
    r"^(num_hidden_layers|num_layers|n_layers?|layers|depth|num_blocks|num_attention_layers|n_attn_blocks"
    r"|(\w+_)?(encoder|decoder|transformer|attention|fusion|wavenet|lqe|pooler|adapter|conv|upsampling|hidden|text|visual"
    r"|vision|spatial|temporal|auxiliary|prompt|postnet|prenet|resampler|memory_fuser_num|qformer|cross)_(num_)?layers"
    r"|\w*num_(\w+_)?layers|resampler_depth|prediction_head_layers)$"
)
_EXPERTS = re.compile(r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts|num_routed_experts)$")
_IDS = re.compile(r"(_token_id|_token_index|_token_ids|_ids?_token|_tok_id)$")
_INDEX_LIST = re.compile(
    r"(indices|indexes|_index|extract_layers|hook_ids|_ids|look_ahead_layers|look_backward_layers)$"
)
_VOCABULARY = re.compile(r"(^|_)vocab_size(s)?(_per_layer_input)?$")
_WIDTH = re.compile(
    r"^(hidden_size|hidden_dim|hidden_sizes|d_model|n_embd|n_inner|embed_dim|emb_dim|dim|width|embedding_size|embedding_dim"
    r"|intermediate_size|inner_dim|ffn_dim|d_ff|d_inner|dim_feedforward|d_embed|model_dim|proj_dim|mlp_dim|n_ctx_dim"
    r"|\w*(hidden_size|hidden_dim|intermediate_size|ffn_dim|feedforward_dim|ffn_hidden_size|projection_dim|projector_dim"
    r"|intermediate_dim|intermediate_sizes|hidden_sizes|embed_dim|proj_size|mlp_hidden_dim|feed_forward_hidden_size)"
    r"|out_hidden_size|output_dim|out_dim|latent_dim|text_dim|visual_dim|vision_dim|projection_size|shared_dim|dim_ff"
    r"|hidden_size_per_layer_input|lru_width|attention_hidden_size|conv_dim|classifier_proj_size|output_proj_dims"
    r"|encoder_hidden_dim|vision_output_dim|proj_codevector_dim|codevector_dim|mm_hidden_size)$"
)
_NOT_WIDTH = re.compile(r"(coordinate_size|shape_size|time_embed|kernel)")
_HEADS = re.compile(
    r"^(num_attention_heads|num_heads|n_heads?|attention_heads|\w*(attention_heads|num_heads|n_heads|num_attention_heads))$"
)
_KV_HEADS = re.compile(r"(num_key_value_heads|num_kv_heads|n_kv_heads?|key_value_heads|num_key_value_attention_heads)$")

_EXACT: Mapping[str, int] = {
    "head_dim": WIDTH // HEADS,
    "d_kv": WIDTH // HEADS,
    "attention_head_size": WIDTH // HEADS,
    "global_head_dim": WIDTH // HEADS,
    "swa_head_dim": WIDTH // HEADS,
    "kv_channels": WIDTH // HEADS,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 16,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "index_head_dim": 16,
    "index_n_heads": 4,
    "index_topk": 8,
    "rotary_dim": 8,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "query_pre_attn_scalar": 16,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "top_k_experts": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_queries": 12,
    "sliding_window": 8,
    "mamba_d_state": 16,
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_chunk_size": 16,
    "mamba_headdim": 16,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "max_seq_len": 512,
    "codebook_size": 64,
    "n_codes": 64,
    "num_frames": 4,
    "moe_k": 2,
    "mem_len": 16,
    "mm_tokens_per_image": 4,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "attention_window": 8,
}
"""Upper bounds by name, at the level `small`."""
_UNSET: Mapping[str, int] = {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1}
"""Settings without a default that every model needs."""
_SHALLOW_EXACT = ("num_experts_per_tok", "moe_topk", "top_k_experts", "moe_k", "n_group", "topk_group",
                  "first_k_dense_replace", "attn_layer_period", "attn_layer_offset", "expert_layer_period",
                  "expert_layer_offset")  # fmt: skip


def small_config(config_class: Any, level: Level, overrides: Mapping[str, Any]) -> Any:
    """Makes a small configuration of `config_class`. `overrides`: values by their dotted path, set last.

    Raises whatever the configuration's own checks raise.
    """
    settings = _Shrinker(level).settings(config_class, {})
    _set(settings, overrides)
    return config_class(**settings)


def _set(settings: Settings, overrides: Mapping[str, Any]) -> None:
    for path, value in overrides.items():
        place = settings
        *parents, name = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value


def part_settings(model_type: str) -> Mapping[str, Any]:
    """Returns the settings that a model type needs even as a part of another one."""
    from engine.matrix.build.overrides import OVERRIDES

    return OVERRIDES[model_type].config if model_type in OVERRIDES else {}


class _Shrinker:
    """Remembers the moved special tokens, so that the parts of one model agree on them."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._moved: dict[int, int] = {}

    @staticmethod
    def nested(config_class: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = getattr(config_class, "sub_configs_defaults", {}) or {}
        return found

    def settings(self, config_class: Any, given: Mapping[str, Any]) -> Settings:
        """Returns the arguments of `config_class`. `given`: values that its parent sets in addition to the defaults."""
        values = {**_defaults(config_class), **given}
        nested = self.nested(config_class)
        kinds = _kinds_of_layers(config_class, given)
        deepest = max(
            [len(value) for name, value in values.items() if _INDEX_LIST.search(name) and _integers(value)], default=0
        )
        settings: Settings = {name: value for name, value in given.items() if name not in nested}
        # Backbones of stages keep their number of stages; only with equal layers does a stage shrink with its layer.
        named_stages = any(values.get(name) for name in ("out_features", "_out_features", "depths", "hidden_sizes",
                                                         "stage_out_channels", "layer_list_out_channels"))  # fmt: skip
        for name, value in values.items():
            if name in nested or name == "dtype" or (named_stages and name.endswith("out_indices")):
                continue
            small = self._shrunk(name, value, max(2, deepest, kinds.count))
            if small is not value:
                settings[name] = small
        settings.update(kinds.lists)
        self._follow(values, settings)
        for name, spec in nested.items():
            value = values.get(name)
            if value is None and spec.optional:
                continue
            part = self._part(spec, value)
            if part is not None:
                settings[name] = part
        self._fit_image(values, settings)
        return settings

    def _follow(self, values: Settings, settings: Settings) -> None:
        """Keeps equal settings equal, and sums of settings correct."""
        heads = [name for name in values if _HEADS.match(name) and not _KV_HEADS.search(name)]
        for name in values:
            if _KV_HEADS.search(name) and any(values[name] == values[head] for head in heads):
                same = next(head for head in heads if values[name] == values[head])
                if same in settings:
                    settings[name] = settings[same]
        stages: Any = values.get("num_heads")
        if _integers(stages) and isinstance(values.get("embed_dim"), int) and self._level == "small":
            settings["embed_dim"] = 8 * stages[0]
        for name in ("rope_parameters", "rope_scaling"):
            rope = values.get(name)
            if isinstance(rope, dict) and "mrope_section" in rope and self._level == "small":
                share = float(rope.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0)
                settings[name] = {**rope, "mrope_section": _sections(int(WIDTH // HEADS * share) // 2)}

    def _part(self, spec: Any, value: Any) -> Settings | None:
        from transformers import CONFIG_MAPPING, AutoConfig

        own = value if isinstance(value, dict) else (value.to_dict() if value is not None else {})
        own = {**(spec.init_kwargs or {}), **own}
        if spec.config_class is AutoConfig:
            model_type = own.get("model_type") or spec.model_type
            if model_type not in CONFIG_MAPPING:
                return None
            own["model_type"] = model_type
            part_class = CONFIG_MAPPING[model_type]
        else:
            part_class = spec.config_class
        settings = self.settings(part_class, own)
        _set(settings, part_settings(part_class.model_type))
        return settings

    def _shrunk(self, name: str, value: Any, depth: int) -> Any:
        """Returns the small value of a setting, or the very same object if it does not change."""
        if value is None and name in _UNSET:
            return _UNSET[name]
        if isinstance(value, bool) or value is None or isinstance(value, (str, float, dict)):
            return value
        if _IDS.search(name):
            return self._moved_ids(value)
        if _INDEX_LIST.search(name):
            return _first_indices(value)
        if _VOCABULARY.search(name):
            return _at_most(value, VOCABULARY)
        if _DEPTH.match(name):
            return _at_most(value, depth)
        if name in ("depths", "layer_depths"):
            return tuple(min(item, 1) for item in value) if _integers(value) else value
        if _EXPERTS.match(name):
            return _at_most(value, 4)
        if name in _SHALLOW_EXACT:
            return _at_most(value, _EXACT[name])
        return self._narrow(name, value) if self._level == "small" else value

    def _narrow(self, name: str, value: Any) -> Any:
        if name in _EXACT:
            return _at_most(value, _EXACT[name])
        if _KV_HEADS.search(name):
            return _at_most(value, 2)
        if _HEADS.match(name):
            return _at_most(value, HEADS) if isinstance(value, int) else value
        if _WIDTH.match(name) and not _NOT_WIDTH.search(name):
            return _narrowed(value)
        return value

    def _moved_ids(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._moved_ids(item) for item in value]
        if not isinstance(value, int) or value < FIRST_SPECIAL:
            return value
        return self._moved.setdefault(value, FIRST_SPECIAL + len(self._moved))

    def _fit_image(self, values: Settings, settings: Settings) -> None:
        """Returns an image of a few patches a side, if the model fixes its size."""
        if self._level != "small":
            return
        size, patch = values.get("image_size"), settings.get("patch_size", values.get("patch_size"))
        if not isinstance(size, int) or isinstance(size, bool):
            return
        side = patch if isinstance(patch, int) else 16
        fits = side * 4 if side >= 8 else 64
        settings["image_size"] = min(size, fits)


def _defaults(config_class: Any) -> Settings:
    found: Settings = {}
    for field in dataclasses.fields(config_class):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


class _Kinds:
    """Layers of several kinds in one model: how many layers show each kind once, and the lists that name the kinds."""

    def __init__(self, count: int, lists: Settings) -> None:
        self.count = count
        self.lists = lists


_KIND_LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "attention_layers", "block_types", "layer_type",
               "hybrid_override_pattern", "mlp_types", "ffn_types")  # fmt: skip
_MOST_KINDS = 4


def _kinds_of_layers(config_class: Any, given: Mapping[str, Any]) -> _Kinds:
    """Reads from the full-size configuration which layers differ, and keeps the first of each kind."""
    try:
        full = config_class(**given)
    except (TypeError, ValueError, AttributeError, KeyError):
        return _Kinds(0, {})
    lists = {
        name: list(value)
        for name in _KIND_LISTS
        if isinstance(value := getattr(full, name, None), (list, tuple))
        and all(isinstance(item, str) for item in value)
    }
    lists = {name: value for name, value in lists.items() if value and name in _defaults(config_class)}
    if not lists:
        return _Kinds(0, {})
    length = max(len(value) for value in lists.values())
    lists = {name: value for name, value in lists.items() if len(value) == length}
    rows = list(zip(*lists.values(), strict=True))
    chosen = [number for number, row in enumerate(rows) if row not in rows[:number]][:_MOST_KINDS]
    if len(chosen) < 2:
        chosen = list(range(min(2, length)))
    return _Kinds(len(chosen), {name: [value[number] for number in chosen] for name, value in lists.items()})


def _sections(total: int) -> list[int]:
    """Returns three numbers that add up to `total`."""
    side = total // 3
    return [total - 2 * side, side, side]


def _integers(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    )


def _first_indices(value: Any) -> Any:
    """Renumbers layers for the shallow model: they are its first ones; negative numbers, from the end, stay."""
    if not _integers(value) or any(item < 0 for item in value):
        return value
    ordered = sorted(set(value))
    return [ordered.index(item) for item in value]


def _at_most(value: Any, bound: int) -> Any:
    if isinstance(value, int):
        return min(value, bound)
    if _integers(value):
        return [min(item, bound) for item in value]
    return value


def _narrowed(value: Any) -> Any:
    """Sets one width for all; of several, the widest becomes it and the others keep their ratio."""
    if isinstance(value, int):
        return min(value, WIDTH)
    if not _integers(value) or max(value) <= WIDTH:
        return value
    return [max(item * WIDTH // max(value), 1) for item in value]
