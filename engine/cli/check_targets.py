"""Reaches targets with their keys, for `engine check`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from pydantic import ValidationError

from engine.api.build import executor_for, target_names
from engine.batches import operations
from engine.config.compose import compose
from engine.core.errors import ConfigError, EngineError, SetupError
from engine.core.option_files import conf_dir
from engine.credentials.keys import NoKey, find_keys
from engine.executors.key_check import KeyCheck, State
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Executor, Services
from engine.executors.target_check import TargetCheck
from engine.schemas import RunSpec, TargetSpec
from engine.schemas.provider import CredentialSpec

_BASE = "_remote"
"""The file that the options of HTTP APIs build on."""


@dataclass
class Line:
    """One target."""

    target: str
    state: State
    found: str
    keys: list[KeyCheck] = field(default_factory=list)


def chosen(words: Sequence[str], config_dir: str | None, every: bool) -> tuple[list[RunSpec], list[Line]]:
    """Returns the specs whose targets are to be checked, and a line for each problem of finding keys.

    `every`: of all providers for which a key is found. Raises ConfigError, SetupError.
    """
    if not every:
        return [compose(words, config_dir).spec], []
    specs, troubles = _with_keys(words, config_dir)
    if not specs and not troubles:
        raise SetupError("no provider has a key here. Next: export OPENAI_API_KEY=… (or another provider's)")
    return specs, [Line("keys", "failed", trouble) for trouble in troubles]


def _with_keys(words: Sequence[str], config_dir: str | None) -> tuple[list[RunSpec], list[str]]:
    """The run spec of every provider option for which a key is found, and why keys could not be looked for."""
    if any(word.startswith("provider=") for word in words):
        raise ConfigError(
            "check --all: it takes every provider for which a key is found; leave out --all or provider=…"
        )
    names = provider_options(config_dir)
    with ThreadPoolExecutor(4) as threads:  # a keyring answers slowly
        looked = list(threads.map(_may_have_key, names.values()))
    troubles = list(dict.fromkeys(has for has in looked if isinstance(has, str)))
    found = [name for name, has in zip(names, looked, strict=True) if has is True]
    specs = [spec for name in found if (spec := _with_key(name, words, config_dir)) is not None]
    # An option of a config repo may be another name of the same provider.
    return list({spec.provider.name: spec for spec in specs}.values()), troubles


def provider_options(config_dir: str | None) -> dict[str, dict[str, Any]]:
    """Reads the file of each provider option, but for those of ours that are other names of others."""
    found = {name: option for name, option in _read(conf_dir()).items() if not _builds_on_another(option)}
    if config_dir is not None:
        found |= _read(Path(config_dir))
    inherited = found[_BASE].get("credential")
    for option in found.values():
        if _BASE in (option.get("defaults") or ()):
            option["credential"] = _mapping(inherited) | _mapping(option.get("credential"))
    return {name: option for name, option in sorted(found.items()) if not name.startswith("_")}


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.stem: _mapping(yaml.safe_load(file.read_text())) for file in (folder / "provider").glob("*.yaml")}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _builds_on_another(option: dict[str, Any]) -> bool:
    return any(item not in (_BASE, "_self_") for item in option.get("defaults") or ())


def _may_have_key(option: dict[str, Any]) -> bool | str:
    """Returns False if a key is surely not there: composing every option would take seconds. A text is the reason why
    keys could not be looked for."""
    if _builds_on_another(option):
        return True
    if option.get("kind", "remote") != "remote" or "credential" not in option:
        return False
    try:
        return bool(find_keys(CredentialSpec.model_validate(option["credential"]), str(option.get("name"))))
    except (NoKey, ValidationError):
        return False
    except SetupError as error:
        return _in_one_line(error)


def _with_key(option: str, words: Sequence[str], config_dir: str | None) -> RunSpec | None:
    spec = compose([*words, f"provider={option}", "model=remote", "model.name=any"], config_dir).spec
    provider = spec.provider
    if provider.kind != "remote":
        return None
    try:
        if not find_keys(provider.credential, provider.name):
            return None
    except SetupError:
        return None
    return spec if provider.default_model is None else compose([*words, f"provider={option}"], config_dir).spec


async def check(specs: Sequence[RunSpec], every: bool) -> list[Line]:
    """Reaches each target of each spec; `every` as in `chosen`."""
    return [line for spec in specs for line in await _check(spec, every)]


async def _check(spec: RunSpec, every: bool) -> list[Line]:
    services = Services(
        seed=spec.seed, storage=spec.storage, notify=lambda text: print(text, file=sys.stderr, flush=True)
    )
    named = zip(target_names(spec.targets), spec.targets, strict=True)
    in_jobs = spec.policy.batch.strategy == "provider"
    try:
        return [
            await _one(name, target, services, in_jobs and place == 0, every and target.provider.default_model is None)
            for place, (name, target) in enumerate(named)
        ]
    finally:
        await services.aclose()


async def _one(name: str, target: TargetSpec, services: Services, jobs: bool, any_model: bool) -> Line:
    try:
        executor = executor_for(target, services)
        try:
            line = await _reached(name, executor, any_model)
            if jobs and line.state == "works":
                line.found += f"; {await _probe(executor, services)}"
            return line
        finally:
            await executor.aclose()
    except EngineError as error:
        return Line(name, "failed", _in_one_line(error))


async def _reached(name: str, executor: Executor, any_model: bool) -> Line:
    """Raises EngineError where the target has no keys of its own to say it of."""
    if not isinstance(executor, RemoteExecutor):
        return Line(name, "works", await executor.check())
    checks = await TargetCheck(executor).by_key(any_model)
    works = [check for check in checks if check.state == "works"]
    found = f"{checks[0].endpoint}: {len(works)} of {len(checks)} {'keys work' if executor.keys else 'answer'}"
    server_info = f"; {executor.server_info.found}" if executor.server_info.found else ""
    return Line(name, worst(check.state for check in checks), found + server_info, checks)


def worst(states: Iterable[State]) -> State:
    """Returns failed if one is, else unverified if one is, else works."""
    found = set(states)
    return next((each for each in ("failed", "unverified") if each in found), "works")


async def _probe(executor: Executor, services: Services) -> str:
    """Reaches the batch API. Raises EngineError."""
    if not isinstance(executor, RemoteExecutor):
        raise ConfigError(f"policy.batch.strategy: {executor.target.name} is not remote and has no batch API")
    return await operations.probe(executor, services, services.clock.wall())


def _in_one_line(error: EngineError) -> str:
    return " ".join(str(error).split())
