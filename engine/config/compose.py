"""Hydra → plain dict → RunSpec. The only file that imports hydra or omegaconf."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]

from engine.config.diagnostics import from_pydantic, refuse_secrets, unknown_key
from engine.core.errors import ConfigError, nearest
from engine.core.option_files import conf_dir, options
from engine.schemas import RunSpec
from engine.schemas.plugins import plugin_specs
from engine.schemas.provider import SimulatedProviderSpec

CONFIG = "config"
TARGET_GROUPS = ("provider", "model", "hardware")
_DEFAULT_MODELS = {"simulated": SimulatedProviderSpec.model_fields["default_model"].default}


@dataclass(frozen=True)
class ConfigSource:
    """A folder that options came from."""

    path: str
    origin: str
    """`engine`, `--config-dir` or `hydra.searchpath`."""


@dataclass(frozen=True)
class Composition:
    """A validated run spec, and what it was composed from."""

    spec: RunSpec
    overrides: tuple[str, ...]
    sources: tuple[ConfigSource, ...]


def compose(overrides: Sequence[str] = (), config_dir: str | os.PathLike[str] | None = None) -> Composition:
    """The run spec that the options, the overrides and the config repos say. Raises ConfigError."""
    return Composer(overrides, config_dir).compose()


def expand(overrides: Sequence[str], config_dir: str | os.PathLike[str] | None = None) -> list[list[str]]:
    """The cells of a sweep: one list of overrides each, the cartesian product in the order as typed."""
    parsed = _parse(overrides)
    loader = _loader(config_dir)
    for override in parsed:
        override.config_loader = loader
    try:
        cells = list(BasicSweeper.split_arguments(parsed, None)[0])
    except HydraException as error:
        raise ConfigError(f"sweep: {_first_line(error)}") from error
    for cell in cells:
        for override in _parse(cell):  # before a choice becomes the name of a directory
            refuse_secrets(_nested(override.key_or_group, override.value()))
    return cells


def choices(cell: Sequence[str]) -> dict[str, str]:
    """What a cell's overrides say, key by key, as plain text: without the quotes of Hydra's grammar."""
    found = {}
    for override in _parse(cell):
        value = override.value()
        text = override.input_line.partition("=")[2]
        found[override.input_line.partition("=")[0]] = value if isinstance(value, str) else text
    return found


class Composer:
    """One composition: its overrides, checked before Hydra sees them, and its search path."""

    def __init__(self, overrides: Sequence[str], config_dir: str | os.PathLike[str] | None) -> None:
        if config_dir is not None and not Path(config_dir).is_dir():
            raise ConfigError(
                f"--config-dir: {config_dir} is not a folder; give the folder that has provider/, model/, …"
            )
        self.overrides = tuple(overrides)
        self.config_dir = config_dir
        self.loader = _loader(config_dir)
        self.options = options(Path(source.path) for source in _sources(self.loader, overrides))
        self.parsed = _parse(overrides)
        self._search = [override.input_line for override in self.parsed if override.is_hydra_override()]

    def compose(self) -> Composition:
        lines = self._checked()
        config = self._load(lines)
        refuse_secrets(_plain(config))  # before any of it is quoted in another message
        self._check_groups(config)
        default = self._default_model_option(config)
        if default is not None:
            config = self._load([*lines, f"model={default}"])
        self._check_missing(config)
        plain = _plain(config)
        plain["fallbacks"] = [
            self._target(f"fallbacks[{index}]", entry, plain["hardware"])
            for index, entry in enumerate(plain.get("fallbacks") or [])
        ]
        named = {override.key_or_group for override in self.parsed}
        self._finish_target(plain, "", named)
        refuse_secrets(plain)
        spec = _validate(plain)
        return Composition(spec, self.overrides, tuple(_sources(self.loader, self.overrides)))

    def _checked(self) -> list[str]:
        """The overrides as Hydra is to see them. Raises ConfigError for what can't be right, with the nearest names."""
        lines = []
        for override in self.parsed:
            key = override.key_or_group
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line}: several values are a sweep; add -m (python -m engine -m …), "
                    f"or quote a value that has a comma: '{key}=\"…\"'"
                )
            if override.is_hydra_override():
                lines.append(override.input_line)
            elif key in self.options:
                self._check_option(override, key)
                lines.append(override.input_line)
            elif "/" in key:
                raise ConfigError(f"{key}: no such group; {nearest(key, self.options)}")
            else:
                refuse_secrets(_nested(key, override.value()))
                problem = unknown_key(key, self.options)
                if problem:
                    raise ConfigError(problem)
                group = key.replace(".", "/")
                if (
                    group in self.options
                    and not override.is_delete()
                    and not isinstance(override.value(), Mapping | list)
                ):
                    raise ConfigError(
                        f"{override.input_line}: {key} has knobs of its own; an option of it is chosen with a slash: "
                        f"{group}={override.input_line.partition('=')[2]}"
                    )
                # The schema knows the key, so it may be set even where the option's YAML does not list it.
                plain = override.input_line.lstrip("+")
                lines.append(plain if override.is_delete() else f"++{plain}")
        return lines

    def _check_option(self, override: Override, group: str) -> None:
        value = override.value()
        if override.is_delete() or value is None:
            return
        if isinstance(value, str) and value in self.options[group]:
            return
        refuse_secrets(_nested(group, value))
        hint = nearest(str(value), self.options[group])
        extra = f"; any model: model=remote model.name={value}" if group == "model" else ""
        raise ConfigError(f"{group}={value}: no such option of the group {group}; {hint}{extra}")

    def _load(self, lines: list[str]) -> DictConfig:
        try:
            config: DictConfig = self.loader.load_configuration(CONFIG, lines, RunMode.RUN, from_shell=False)
            OmegaConf.set_struct(config, False)
            del config["hydra"]  # its own settings; nothing of a run
            OmegaConf.resolve(config)
            return config
        except RecursionError as error:
            raise ConfigError(
                "config: an option's defaults list names itself; a config repo's option of the same name hides ours"
            ) from error
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise ConfigError(f"config: {_first_line(error)}") from error

    def _default_model_option(self, config: DictConfig) -> str | None:
        """The option that `model=default` means for a provider in this process."""
        if config.model.get("name") != "default" or config.provider.get("kind") != "local":
            return None
        option = config.provider.get("default_model")
        if option not in self.options["model"]:
            raise ConfigError(
                f"provider.default_model: {option!r} is not an option of the group model; "
                f"{nearest(str(option), self.options['model'])}"
            )
        return str(option)

    def _check_groups(self, config: DictConfig) -> None:
        """Raises ConfigError when a config repo's file has not what every run needs."""
        for group in ("provider", "hardware", "model", "workload"):
            chosen = config.get(group)
            if not isinstance(chosen, DictConfig) or (group != "model" and "kind" not in chosen):
                kinds = "" if group == "model" else " with a `kind`"
                raise ConfigError(
                    f"{group}: not a mapping{kinds}; write one in the option's file, and choose the option with "
                    f"{group}=OPTION or in the defaults list of config.yaml"
                )

    def _check_missing(self, config: DictConfig) -> None:
        missing = OmegaConf.missing_keys(config)
        if missing:
            raise ConfigError("\n".join(f"{key}: needs a value; add {key}=…" for key in sorted(missing)))

    def _target(self, path: str, entry: Any, hardware: Any) -> dict[str, Any]:
        """A fallback: each of provider, model and hardware is an option's name or {use: option, …overrides}.

        One that names no hardware runs on the run's own, `hardware`.
        """
        if not isinstance(entry, Mapping) or not set(entry) <= set(TARGET_GROUPS) or "provider" not in entry:
            raise ConfigError(f"{path}: expected {{provider: …, model: …, hardware: …}}, with at least provider")
        if all(isinstance(value, Mapping) and "kind" in value for group, value in entry.items() if group != "model"):
            return dict(entry)  # a resolved spec, as a finished run recorded it
        chosen, changes = [], {}
        for group in TARGET_GROUPS:
            value = entry.get(group, {"provider": None, "model": "default", "hardware": "auto"}[group])
            change = dict(value) if isinstance(value, Mapping) else {}
            option = change.pop("use", None) if isinstance(value, Mapping) else value
            if option is None and group == "model" and "name" in change:
                option = "remote"
            if option not in self.options[group]:
                raise ConfigError(f"{path}.{group}: no option {option!r}; {nearest(str(option), self.options[group])}")
            chosen.append(f"{group}={option}")
            changes[group] = change
        config = self._load([*self._search, *chosen])
        config = self._with(config, changes)
        default = self._default_model_option(config)
        if default is not None:
            config = self._with(self._load([*self._search, *chosen, f"model={default}"]), changes)
        plain = {group: _plain(config[group]) for group in TARGET_GROUPS}
        if "hardware" not in entry:
            plain["hardware"] = hardware
        named = {f"{group}.{key}" for group, change in changes.items() for key in change}
        self._finish_target(plain, f"{path}.", named)
        return plain

    def _own_list(self, name: Any) -> str | None:
        """The file of a price list that a config repo has under this name."""
        files = (
            Path(source.path) / "prices" / f"{name}.yaml"
            for source in _sources(self.loader, self.overrides)
            if source.origin != "engine"
        )
        return next((str(file) for file in files if isinstance(name, str) and file.is_file()), None)

    @staticmethod
    def _with(config: DictConfig, changes: dict[str, dict[str, Any]]) -> DictConfig:
        for group, change in changes.items():
            config[group] = OmegaConf.merge(config[group], change)
        return config

    def _finish_target(self, plain: dict[str, Any], path: str, named: set[str]) -> None:
        """Puts in what depends on the provider: its URL from the environment, its default model."""
        provider, model = plain["provider"], plain["model"]
        if not isinstance(provider, dict) or not isinstance(model, dict):
            return  # pydantic says what is wrong
        if provider.get("kind") == "remote" and "provider.base_url" not in named:
            url = next((os.environ[name] for name in provider.get("base_url_env") or () if os.environ.get(name)), None)
            if url:
                # OLLAMA_HOST, as Ollama itself reads it, may leave the scheme out.
                provider["base_url"] = url if "://" in url else f"http://{url}"
        own = self._own_list(provider.get("prices"))
        if own is not None:
            provider["prices"] = own
        if model.get("name") == "default":
            name = provider.get("default_model") or _default_model(str(provider.get("kind")))
            if not name and provider.get("kind") not in ("remote", "local"):
                return  # pydantic says what is wrong with the kind
            if not name:
                raise ConfigError(
                    f"{path}model: provider {provider.get('name')!r} has no default model; "
                    f"add {path}model=remote {path}model.name=NAME"
                )
            model["name"] = name
        ids = model.get("ids") or {}
        if provider.get("kind") == "remote" and ids and provider.get("name") not in ids:
            raise ConfigError(
                f"{path}model.ids: model {model['name']!r} has no id at provider {provider.get('name')!r}; "
                f"add {path}model.ids.{provider.get('name')}=ID, or choose one of: {', '.join(sorted(ids))}"
            )


def varied(cells: list[dict[str, str]]) -> list[str]:
    """Returns the keys that differ between the cells of a sweep; all keys of a sweep of one."""
    values: dict[str, set[str]] = {}
    for cell in cells:
        for key, value in cell.items():
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1] or list(values)


def _default_model(kind: str) -> str | None:
    """Returns the default of `default_model` in the spec of a provider's kind; None without one."""
    if kind in _DEFAULT_MODELS:
        return str(_DEFAULT_MODELS[kind])
    spec = None if kind in ("remote", "local") else plugin_specs("executors").get(kind)
    return spec.model_fields["default_model"].default if spec and "default_model" in spec.model_fields else None


def _validate(plain: dict[str, Any]) -> RunSpec:
    try:
        return RunSpec.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("\n".join(from_pydantic(error))) from error


def load_spec(plain: dict[str, Any]) -> RunSpec:
    """The run spec that a finished composition wrote down. Raises ConfigError."""
    return _validate(plain)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, in the order given."""
    return str(OmegaConf.to_yaml(OmegaConf.create(data)))


def _loader(config_dir: str | os.PathLike[str] | None) -> ConfigLoaderImpl:
    return _loader_of(None if config_dir is None else Path(config_dir).resolve())


@lru_cache(maxsize=16)
def _loader_of(config_dir: Path | None) -> ConfigLoaderImpl:
    Plugins.instance()  # registers Hydra's own config sources
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    if config_dir is not None:  # before ours: the first that has an option wins, so that a config repo overrides
        path.append("--config-dir", f"file://{config_dir}")
    path.append("main", f"file://{conf_dir()}")
    path.append("schema", "structured://")
    return ConfigLoaderImpl(path)


def _sources(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> list[ConfigSource]:
    found = []
    for source in loader.get_search_path().get_path():
        if source.provider in ("main", "--config-dir") and source.path:
            origin = "engine" if source.provider == "main" else source.provider
            found.append(ConfigSource(source.path.removeprefix("file://"), origin))
    for path in _search_path(loader, overrides):
        plain = path.removeprefix("file://")
        if not path.startswith("pkg://"):
            if not Path(plain).is_dir():
                raise ConfigError(f"hydra.searchpath: {plain} is not a folder")
            found.append(ConfigSource(str(Path(plain).resolve()), "hydra.searchpath"))
    return found


def _search_path(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> list[str]:
    for override in _parse(overrides):
        if override.key_or_group == "hydra.searchpath":
            value = override.value()
            return [str(item) for item in value] if isinstance(value, list) else []
    try:
        loaded = loader.repository.load_config(CONFIG)
        listed = OmegaConf.select(loaded.config, "hydra.searchpath") if loaded is not None else None
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"config: {_first_line(error)}") from error
    return [str(item) for item in listed or ()]


def _parse(overrides: Sequence[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for line in overrides:
        try:
            parsed.append(parser.parse_override(_literal(parser, line)))
        except HydraException:
            break
    else:
        return parsed
    # Outside the handler: Hydra's error quotes the value, and a traceback that shows it would show a secret.
    refuse_secrets(_nested(*line.partition("=")[::2]))
    key = line.partition("=")[0]
    raise ConfigError(f"{key}: can't be read as key=value; quote values with special characters: '{key}=\"…\"'")


def _literal(parser: OverridesParser, line: str) -> str:
    """The override, quoted where Hydra's grammar can't read it and it can only be plain text: a path such as
    `~/runs/a=b`, a URL with a query. Lists, mappings, choices and quotes stay as they are, and so do their errors."""
    key, equals, value = line.partition("=")
    try:
        parser.parse_override(line)
    except HydraException:
        if equals and value and value[0] not in "[{(\"'" and "," not in value and '"' not in value:
            return f'{key}="{value}"' if not value.endswith("\\") else line
    return line


def _plain(config: Any) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"config: {_first_line(error)}") from error
    assert isinstance(plain, dict)
    return plain  # type: ignore[return-value]


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.lstrip("+~").split(".")):
        value = {part: value}
    return value if isinstance(value, dict) else {}


def _first_line(error: BaseException) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:  # of a YAML file; the whole error would also quote its text
        return f"{mark.name}:{mark.line + 1}: not valid YAML: {getattr(error, 'problem', None) or 'it ends too early'}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[0]) if lines else type(error).__name__


__all__ = ["Composition", "ConfigSource", "compose", "dump_yaml", "expand", "load_spec", "varied"]
