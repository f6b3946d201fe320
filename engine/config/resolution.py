"""Interpolations become values, once: what a variable holds is text, whatever it looks like."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException, UnsupportedInterpolationType
from yaml import dump  # type: ignore[import-untyped]

from engine.config.environment import NotReadable
from engine.core.errors import ConfigError

MISSING = "???"


class Resolution:
    """One pass over a composed config: its plain data, the keys without a value, and every problem on the way."""

    def __init__(self, config: DictConfig) -> None:
        self.missing: list[str] = []
        self.problems: dict[str, str] = {}
        """The reason why a key has no value, by dotted key."""
        try:
            self.plain: dict[str, Any] = self._container(config, "")
        except RecursionError as error:
            raise ConfigError("config: got an interpolation that contains itself; expected a value") from error

    def _container(self, config: DictConfig | ListConfig, path: str) -> Any:
        if isinstance(config, ListConfig):
            return [self._value(config, index, f"{path}[{index}]") for index in range(len(config))]
        return {key: self._value(config, key, f"{path}.{key!s}".lstrip(".")) for key in config}

    def _value(self, config: DictConfig | ListConfig, key: Any, path: str) -> Any:
        node: Any = config._get_node(key)
        written = None if node is None else node._value()
        if isinstance(written, str) and written == MISSING:
            self.missing.append(path)
            return MISSING
        try:
            value = config[key]
        except (OmegaConfBaseException, RecursionError) as error:
            self.problems[path] = f"got {written}; {_reason(error)}"
            return None
        if isinstance(value, DictConfig | ListConfig):
            return self._container(value, path)
        return value


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "an interpolation contains itself"
    if isinstance(error, UnsupportedInterpolationType):
        return f"{error.msg}; expected ${{oc.env:NAME}}, ${{now:%Y-%m-%d}} or a key of the run, such as ${{seed}}"
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, NotReadable):
            return str(inner)
        inner = inner.__cause__ or inner.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__


def to_yaml(data: Any) -> str:
    """Returns plain data as YAML, in the order given, with every `${` as the text that it is."""
    text: str = dump(
        data, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper()
    )
    return text
