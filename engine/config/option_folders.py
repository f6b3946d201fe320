"""The folders that options are read from, as Hydra's config sources. No folder can run code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins import basic_launcher, basic_sweeper  # noqa: F401 - they store their own options
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import BaseLoader, YAMLError, load  # type: ignore[import-untyped]

from engine.config.hydra_settings import FOLLOWED, refusal
from engine.core.errors import ConfigError
from engine.core.option_files import conf_dir

CONFIG = "config"
_OWN = "pkg://hydra.conf"
"""Hydra's own settings, the only package that is read."""


@dataclass(frozen=True)
class ConfigSource:
    """A folder that options came from."""

    path: str
    origin: str
    """`engine`, `--config-dir` or `hydra.searchpath`."""


@dataclass(frozen=True)
class OptionFile:
    """A file that took part in a composition."""

    path: Path
    package: str
    """The dotted key that its content is put under; empty: the run itself."""
    origin: str
    content: Any


class OptionFolder(FileConfigSource):  # type: ignore[misc] # Hydra has no types
    """A folder of options. Its errors name the file; it can neither name packages nor set what Hydra would ignore."""

    def load_config(self, config_path: str) -> Any:
        """Raises ConfigError."""
        file = Path(self.path) / self._normalize_file_name(config_path)
        try:
            result = super().load_config(config_path)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"config: {file}:{line}: got the byte 0x{byte:02x}; expected text in UTF-8. Fix: save the file as UTF-8"
            ) from error
        except YAMLError as error:
            raise ConfigError(f"config: {_yaml_problem(error, file)}") from error
        except (OSError, ValueError, OmegaConfBaseException) as error:
            raise ConfigError(f"config: {file}: {_content_problem(error, file)}") from error
        self._check(config_path, file, result)
        return result

    def _check(self, config_path: str, file: Path, result: Any) -> None:
        package = str(result.header.get("package") or "")
        if config_path.startswith("hydra/") or package.split(".")[0] == "hydra":
            setting = package if package.startswith("hydra") else os.path.dirname(config_path)
            raise ConfigError(f"{file}: {refusal(setting)}")
        if not isinstance(result.config, DictConfig):
            return
        problems = [refusal(f"hydra.{key}") for key in self._settings(config_path, result.config)]
        problems += [refusal(group, name) for group, name in _hydra_options(result.config)]
        if problems:
            raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))

    def _settings(self, config_path: str, config: DictConfig) -> list[str]:
        settings = _data(config).get("hydra") or {}
        if not isinstance(settings, Mapping):
            return [str(settings)]
        allowed = ("searchpath",) if config_path == CONFIG else ()
        found: list[str] = []
        for key, value in settings.items():
            if key not in allowed:
                nested = isinstance(value, Mapping) and len(value) == 1
                found.append(f"{key}.{next(iter(value))}" if nested else str(key))
        return found


def _data(config: DictConfig) -> dict[Any, Any]:
    """Returns a config as plain data, interpolations as they are."""
    data = OmegaConf.to_container(config, resolve=False)
    return data if isinstance(data, dict) else {}


def _hydra_options(config: DictConfig) -> list[tuple[str, str]]:
    """Returns what a defaults list chooses of Hydra's own groups."""
    listed = _data(config).get("defaults") or ()
    if not isinstance(listed, list):
        return []
    entries = [item for item in listed if isinstance(item, Mapping)]
    pairs = [(str(key).split(" ")[-1].lstrip("/"), str(value)) for item in entries for key, value in item.items()]
    pairs += [(str(item).lstrip("/").rpartition("/")[0], str(item)) for item in listed if isinstance(item, str)]
    return [(group, value) for group, value in pairs if group.split("/")[0].partition("@")[0] == "hydra"]


def _yaml_problem(error: Any, file: Path) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{file}: not valid YAML"
    # The whole error would also quote the file's text.
    return f"{file}:{mark.line + 1}: not valid YAML: {getattr(error, 'problem', None) or 'it ends too early'}"


def _content_problem(error: BaseException, file: Path) -> str:
    try:
        content = load(file.read_text(encoding="utf-8"), BaseLoader)
    except (OSError, YAMLError):
        content = {}
    if not isinstance(content, dict | list):
        return "got a single value; expected keys. Fix: write `key: value` in each line"
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class _Repository(ConfigRepository):  # type: ignore[misc] # Hydra has no types
    """Hydra's repository without its plug-ins: these import packages that a folder names."""

    def initialize_sources(self, config_search_path: Any) -> None:
        self.sources = [_source(entry.provider, entry.path) for entry in config_search_path.get_path()]

    def _create_defaults_list(self, config_path: str, defaults: Any) -> Any:
        for item in defaults._iter_ex(resolve=False):
            for key in item if isinstance(item, DictConfig) else ():
                if type(item._get_node(key)._value()) in (int, float, bool):
                    item[key] = self._as_written(config_path, str(key)) or str(item[key])
        return super()._create_defaults_list(config_path, defaults)

    def _as_written(self, config_path: str, group: str) -> str | None:
        """Returns an option's name that YAML took for a number, as the file has it."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if not isinstance(source, OptionFolder):
            return None
        file = Path(source.path) / source._normalize_file_name(config_path)
        listed = load(file.read_text(encoding="utf-8"), BaseLoader).get("defaults")
        return next((str(item[group]) for item in listed if isinstance(item, dict) and group in item), None)


def _source(provider: str, path: str) -> Any:
    scheme = path.partition("://")[0] if "://" in path else "file"
    if path == _OWN:
        return ImportlibResourcesConfigSource(provider, path)
    if scheme == "structured":
        return StructuredConfigSource(provider, path)
    if scheme != "file":
        raise ConfigError(
            f"{FOLLOWED}: got {path}; expected a folder, because options of a package would run its code. "
            "Fix: file:///PATH of a folder"
        )
    return OptionFolder(provider, path)


class OptionLoader(ConfigLoaderImpl):  # type: ignore[misc] # Hydra has no types
    """Composes configs. `files` are those of the latest composition, the ones that win last."""

    def __init__(self, config_dir: str | os.PathLike[str] | None = None) -> None:
        path = ConfigSearchPathImpl()
        path.append("hydra", _OWN)
        if config_dir is not None:  # before ours: the first that has an option wins, so that a config repo overrides
            path.append("--config-dir", f"file://{Path(config_dir).resolve()}")
        path.append("main", f"file://{conf_dir()}")
        path.append("schema", "structured://")
        self.config_search_path = path
        self.repository = _Repository(path)
        self.files: list[OptionFile] = []

    def load(self, lines: Sequence[str]) -> DictConfig:
        """Raises ConfigError."""
        try:
            config: DictConfig = self.load_configuration(CONFIG, list(lines), RunMode.RUN, from_shell=False)
        except RecursionError as error:
            raise ConfigError(
                "config: an option's defaults list names itself; a config repo's option of the same name hides ours"
            ) from error
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, OSError) as error:
            raise ConfigError(f"config: {first_line(error)}") from error
        OmegaConf.set_struct(config, False)
        del config["hydra"]  # its own settings; nothing of a run
        return config

    def _compose_config_from_defaults_list(self, defaults: Any, repo: Any) -> Any:
        self.files = []
        for default in defaults:
            found = repo.load_config(default.config_path)
            if found is None or found.provider in ("hydra", "schema"):
                continue
            package = default.package if default.package is not None else found.header["package"] or ""
            file = Path(found.path.removeprefix("file://")) / f"{default.config_path.removesuffix('.yaml')}.yaml"
            origin = _ORIGINS.get(found.provider, FOLLOWED)
            self.files.append(OptionFile(file, package.removeprefix("_global_").lstrip("."), origin, found.config))
        return super()._compose_config_from_defaults_list(defaults, repo)

    def sources(self, overrides: Sequence[Override]) -> list[ConfigSource]:
        """Returns the folders in the order in which they are searched. Raises ConfigError."""
        found = [
            ConfigSource(source.path.removeprefix("file://"), _ORIGINS[source.provider])
            for source in self.get_search_path().get_path()
            if source.provider in _ORIGINS
        ]
        for path in self._further(overrides):
            if "://" in path:
                _source(FOLLOWED, path)
            plain = path.removeprefix("file://")
            if not Path(plain).is_dir():
                raise ConfigError(f"{FOLLOWED}: {plain} is not a folder")
            found.append(ConfigSource(str(Path(plain).resolve()), FOLLOWED))
        return found

    def _further(self, overrides: Sequence[Override]) -> list[str]:
        for override in overrides:
            if override.key_or_group == FOLLOWED:
                return _strings(override.value())
        try:
            loaded = self.repository.load_config(CONFIG)
            listed = OmegaConf.select(loaded.config, FOLLOWED) if loaded is not None else None
            return _strings(listed)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(f"config: {first_line(error)}") from error

    def groups_of_config(self) -> set[str]:
        """Returns the groups that the defaults list of config.yaml names."""
        loaded = self.repository.load_config(CONFIG)
        listed = loaded.defaults_list if loaded is not None else ()
        return {str(item.group).lstrip("/") for item in listed if getattr(item, "group", None)}


_ORIGINS = {"--config-dir": "--config-dir", "main": "engine"}


def _strings(listed: Any) -> list[str]:
    if listed is None:
        return []
    if isinstance(listed, str | Mapping) or not all(isinstance(item, str) for item in listed):
        raise ConfigError(f"{FOLLOWED}: got {listed}; expected a list of folders. Fix: {FOLLOWED}=[file:///PATH]")
    return list(listed)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's text, and of its cause's."""
    if isinstance(error, YAMLError):
        return _yaml_problem(error, Path(getattr(getattr(error, "problem_mark", None), "name", "a file")))
    texts = [str(error), str(error.__cause__ or "")]
    lines = [next((line.strip() for line in text.splitlines() if line.strip()), "") for text in texts]
    return " ".join(": ".join(filter(None, lines)).split()).replace("override ++", "override ") or type(error).__name__
