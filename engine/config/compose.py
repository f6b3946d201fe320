"""Options, overrides and config repos → plain dict → RunSpec."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from pydantic import ValidationError

from engine.config.base_url import base_url
from engine.config.diagnostics import from_pydantic, refuse_secrets
from engine.config.environment import Reading, readable, reading
from engine.config.option_folders import ConfigSource, OptionLoader, first_line
from engine.config.origins import Origins
from engine.config.overrides import Checker, nested, parse, quoted
from engine.config.resolution import Resolution, to_yaml
from engine.core.errors import ConfigError, nearest
from engine.core.option_files import options, presets
from engine.schemas import RunSpec
from engine.schemas.plugins import plugin_specs
from engine.schemas.provider import SimulatedProviderSpec

TARGET_GROUPS = ("provider", "model", "hardware")
_DEFAULT_MODELS = {"simulated": SimulatedProviderSpec.model_fields["default_model"].default}


@dataclass(frozen=True)
class Composition:
    """A validated run spec, and what it was composed from."""

    spec: RunSpec
    overrides: tuple[str, ...]
    sources: tuple[ConfigSource, ...]


def compose(
    overrides: Sequence[str] = (), config_dir: str | os.PathLike[str] | None = None, now: datetime | None = None
) -> Composition:
    """Returns the run spec of the options, the overrides and the config repos. Raises ConfigError.

    `now` is the time of `${now:…}`; None: the clock's.
    """
    return Composer(overrides, config_dir, now or datetime.now()).compose()


def expand(overrides: Sequence[str], config_dir: str | os.PathLike[str] | None = None) -> list[list[str]]:
    """Returns the cells of a sweep: a list of overrides each, the cartesian product in the order as typed."""
    parsed = parse(overrides)
    loader = OptionLoader(config_dir)
    for override in parsed:
        override.config_loader = loader
    try:
        cells = list(BasicSweeper.split_arguments(parsed, None)[0])
    except HydraException as error:
        raise ConfigError(f"sweep: {first_line(error)}") from error
    for cell in cells:
        for override in parse(cell):  # before a choice becomes the name of a directory
            refuse_secrets(nested(override.key_or_group, override.value()))
    return cells


def choices(cell: Sequence[str]) -> dict[str, str]:
    """Returns the values of a cell's overrides by key, as plain text: without the quotes of Hydra's grammar."""
    return {
        override.input_line.partition("=")[0]: override.value()
        if isinstance(override.value(), str)
        else override.input_line.partition("=")[2]
        for override in parse(cell)
    }


class Composer:
    """One composition: its overrides, checked before Hydra sees them, and its search path."""

    def __init__(self, overrides: Sequence[str], config_dir: str | os.PathLike[str] | None, now: datetime) -> None:
        if config_dir is not None and not Path(config_dir).is_dir():
            raise ConfigError(
                f"--config-dir: {config_dir} is not a folder; give the folder that has provider/, model/, …"
            )
        self.overrides = tuple(overrides)
        self.parsed = parse(overrides)
        self.loader = OptionLoader(config_dir)
        self.sources = self.loader.sources(self.parsed)
        folders = [Path(source.path) for source in self.sources]
        self.options = options(folders)
        self._presets = presets(folders)
        own = all(source.origin == "engine" for source in self.sources)
        self._limits = Reading(None if own else readable(overrides), now)
        self._search = [override.input_line.lstrip("+") for override in self.parsed if override.is_hydra_override()]

    def compose(self) -> Composition:
        with reading(self._limits):
            return Composition(self._spec(), self.overrides, tuple(self.sources))

    def _spec(self) -> RunSpec:
        """Raises ConfigError. A knob that can't be right does not hide what is wrong with the others."""
        named_groups = frozenset(self.loader.groups_of_config() if self._presets else ())
        checker = Checker(self.options, self._presets, named_groups)
        lines, problems = checker.check(self.parsed)
        if not problems:
            return self._composed(lines)
        if not any(checker.chooses(override) and len(checker.check([override])[1]) for override in self.parsed):
            try:
                self._composed(lines)
            except ConfigError as error:
                problems += [line for line in str(error).splitlines() if line not in problems]
        raise ConfigError("\n".join(problems))

    def _composed(self, lines: Sequence[str]) -> RunSpec:
        config = self._load(lines)
        default = self._default_model_option(config)
        if default is not None:
            config = self._load([*lines, f"model={quoted(default)}"])
        origins = self._origins()
        plain = config.plain
        _raise_missing(config.missing)
        plain["fallbacks"] = [
            self._target(f"fallbacks[{index}]", entry, plain["hardware"])
            for index, entry in enumerate(plain.get("fallbacks") or [])
        ]
        self._finish_target(plain, "", {override.key_or_group for override in self.parsed})
        refuse_secrets(plain)
        return _validate(plain, origins)

    def _load(self, lines: Sequence[str]) -> Resolution:
        """Composes and resolves once. Raises ConfigError: every key without a value, with its file."""
        config = Resolution(self.loader.load(lines))
        refuse_secrets(config.plain)  # before any of it is quoted in another message
        origins = self._origins()
        self._check_packages()
        if config.problems:
            raise ConfigError(
                "\n".join(f"{key}: {problem}{_in_file(origins, key)}" for key, problem in config.problems.items())
            )
        self._check_groups(config.plain, origins)
        return config

    def _origins(self) -> Origins:
        groups = {*self.options, *self._presets}
        typed = [override.input_line for override in self.parsed if override.key_or_group not in groups]
        return Origins(self.loader.files, typed)

    def _check_packages(self) -> None:
        """Raises ConfigError for a preset whose file does not say that it sets several groups."""
        for file in self.loader.files:
            group = file.package.partition(".")[0]
            if group in self._presets and group not in RunSpec.model_fields:
                raise ConfigError(
                    f"{file.path}: got an option of the group {group}, which a run does not have; expected a preset, "
                    "whose keys are those of a run. Fix: make `# @package _global_` the first line"
                )

    def _default_model_option(self, config: Resolution) -> str | None:
        """Returns the option that `model=default` means for a provider in this process; None for another one."""
        model, provider = config.plain["model"], config.plain["provider"]
        if model.get("name") != "default" or provider.get("kind") != "local":
            return None
        option = provider.get("default_model")
        if option not in self.options["model"]:
            raise ConfigError(
                f"provider.default_model: {option!r} is not an option of the group model; "
                f"{nearest(str(option), self.options['model'])}"
            )
        return str(option)

    def _check_groups(self, plain: Mapping[str, Any], origins: Origins) -> None:
        """Raises ConfigError when a config repo's file has not what every run needs."""
        problems = []
        for group in ("provider", "hardware", "model", "workload"):
            chosen = plain.get(group)
            if not isinstance(chosen, dict) or (group != "model" and "kind" not in chosen):
                kinds = "" if group == "model" else " with a `kind`"
                problems.append(
                    f"{group}: not a mapping{kinds}; write one in the option's file, and choose the option with "
                    f"{group}=OPTION or in the defaults list of config.yaml{_in_file(origins, group)}"
                )
        if problems:
            raise ConfigError("\n".join(problems))

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
            if not isinstance(option, str) or option not in self.options[group]:
                raise ConfigError(f"{path}.{group}: no option {option!r}; {nearest(str(option), self.options[group])}")
            chosen.append(f"{group}={quoted(option)}")
            changes[group] = change
        config = self._load([*self._search, *chosen])
        _merge(config.plain, changes)
        default = self._default_model_option(config)
        if default is not None:
            config = self._load([*self._search, *chosen, f"model={quoted(default)}"])
            _merge(config.plain, changes)
        plain = {group: config.plain[group] for group in TARGET_GROUPS}
        if "hardware" not in entry:
            plain["hardware"] = hardware
        named = {f"{group}.{key}" for group, change in changes.items() for key in change}
        self._finish_target(plain, f"{path}.", named)
        return plain

    def _own_list(self, name: Any) -> str | None:
        """The file of a price list that a config repo has under this name."""
        files = (Path(source.path) / "prices" / f"{name}.yaml" for source in self.sources if source.origin != "engine")
        return next((str(file) for file in files if isinstance(name, str) and file.is_file()), None)

    def _finish_target(self, plain: dict[str, Any], path: str, named: set[str]) -> None:
        """Puts in what depends on the provider: its URL from the environment, its default model."""
        provider, model = plain["provider"], plain["model"]
        if not isinstance(provider, dict) or not isinstance(model, dict):
            return  # pydantic says what is wrong
        if provider.get("kind") == "remote" and "provider.base_url" not in named:
            variable = next((name for name in provider.get("base_url_env") or () if os.environ.get(name)), None)
            if variable:
                provider["base_url"] = base_url(variable, os.environ[variable])
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


def _merge(plain: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Puts changes into plain data; mappings key by key."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(plain.get(key), dict):
            _merge(plain[key], value)
        else:
            plain[key] = value


def _raise_missing(keys: Iterable[str]) -> None:
    if keys:
        raise ConfigError("\n".join(f"{key}: needs a value; add {key}=…" for key in sorted(keys)))


def _in_file(origins: Origins, key: str) -> str:
    file = origins.file(key)
    return f" ({file})" if file else ""


def _validate(plain: dict[str, Any], origins: Origins | None = None) -> RunSpec:
    origins = origins or Origins((), ())
    try:
        return RunSpec.model_validate(plain)
    except ValidationError as error:
        raise ConfigError("\n".join(from_pydantic(error, origins.written, origins.file))) from error


def load_spec(plain: dict[str, Any]) -> RunSpec:
    """The run spec that a finished composition wrote down. Raises ConfigError."""
    return _validate(plain)


def dump_yaml(data: Any) -> str:
    """Returns plain data as YAML, in the order given."""
    return to_yaml(data)


__all__ = ["Composition", "ConfigSource", "compose", "dump_yaml", "expand", "load_spec", "quoted", "varied"]
