"""Overrides: what was typed as `key=value`, read, checked and written as Hydra is to see it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from engine.config.diagnostics import refuse_secrets, unknown_key
from engine.config.hydra_settings import FOLLOWED, refusal
from engine.core.errors import ConfigError, nearest


def parse(overrides: Sequence[str]) -> list[Override]:
    """Raises ConfigError."""
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
    refuse_secrets(nested(*line.partition("=")[::2]))
    key = line.partition("=")[0]
    raise ConfigError(f"{key}: can't be read as key=value; quote values with special characters: '{key}=\"…\"'")


TEXTS = frozenset({"prompt.template", "prompt.system", "prompt.image", "prompt.audio"})
"""Knobs whose values are texts, with commas, colons and braces as they come."""
_WRITTEN = re.compile(r"""["']|\{\s*file\s*:|null$|choice\(""")
"""The beginning of a value in Hydra's own grammar."""


def _literal(parser: OverridesParser, line: str) -> str:
    """Returns the override, quoted where Hydra's grammar can't read it and it can only be plain text.

    Such as a path (`~/runs/a=b`), a URL with a query. Lists, mappings, choices and quotes stay as they are, and so do
    their errors.
    """
    key, equals, value = line.partition("=")
    if key.lstrip("+") in TEXTS and value and not _WRITTEN.match(value):
        # Hydra reads \" as a quote, and backslashes in pairs only before one and at the end.
        text = re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
        return f'{key}="{text}"'
    try:
        parser.parse_override(line)
    except HydraException:
        if equals and value and value[0] not in "[{(\"'" and "," not in value and '"' not in value:
            return f'{key}="{value}"' if not value.endswith("\\") else line
    return line


def nested(key: str, value: Any) -> dict[str, Any]:
    """Returns a value below its dotted key, as the config has it."""
    for part in reversed(key.lstrip("+~").split(".")):
        value = {part: value}
    return value if isinstance(value, dict) else {}


class Checker:
    """Checks overrides against what there is, and writes them as Hydra is to see them."""

    def __init__(
        self, options: Mapping[str, list[str]], presets: Mapping[str, list[str]], named: frozenset[str]
    ) -> None:
        """`presets` are the groups of a config repo whose options set several groups; config.yaml has those `named`."""
        self._options = options
        self._presets = presets
        self._named = named

    def check(self, overrides: Sequence[Override]) -> tuple[list[str], list[str]]:
        """Returns the lines for Hydra, and a problem for each override that can't be right, with the nearest names."""
        lines, problems = [], []
        for override in overrides:
            try:
                lines.append(self._line(override))
            except ConfigError as error:
                problems.append(str(error))
        return lines, problems

    def chooses(self, override: Override) -> bool:
        """Returns True if an override chooses an option or a preset."""
        return override.key_or_group in self._options or override.key_or_group in self._presets

    def _line(self, override: Override) -> str:
        key, line = str(override.key_or_group), str(override.input_line)
        if override.package is not None:
            raise ConfigError(
                f"{line}: got a package after @; expected GROUP=OPTION, for an option sets its own group. "
                f"Fix: {key}={written(override)}"
            )
        if override.is_sweep_override():
            raise ConfigError(
                f"{line}: several values are a sweep; add -m (python -m engine -m …), "
                f"or quote a value that has a comma: '{key}=\"…\"'"
            )
        if override.is_hydra_override():
            if key != FOLLOWED or override.is_delete():
                raise ConfigError(refusal(key, written(override)))
            return line.lstrip("+")  # with a plus, Hydra would not follow it
        if key in self._options:
            return self._group(override, key)
        if key in self._presets:
            return self._preset(override, key)
        if "/" in key:
            raise ConfigError(f"{key}: no such group; {nearest(key, [*self._options, *self._presets])}")
        return self._knob(override, key, line)

    def _knob(self, override: Override, key: str, line: str) -> str:
        refuse_secrets(nested(key, override.value()))
        group = key.replace(".", "/")
        if override.is_delete() and group in self._options:
            return self._group(override, group)
        problem = unknown_key(key, {**self._options, **self._presets})
        if problem:
            raise ConfigError(problem)
        if group in self._options and not override.is_delete() and not isinstance(override.value(), Mapping | list):
            raise ConfigError(
                f"{line}: {key} has knobs of its own; an option of it is chosen with a slash: "
                f"{group}={written(override)}"
            )
        # The schema knows the key, so it may be set even where the option's YAML does not list it.
        plain = line.lstrip("+")
        return plain if override.is_delete() else f"++{plain}"

    def _group(self, override: Override, group: str) -> str:
        """Returns the choice of an option. Without one the group is off."""
        known = self._options[group]
        if override.is_delete() or override.value() is None:
            if "off" not in known:
                raise ConfigError(
                    f"{override.input_line}: got no option; expected one of {group}, which can't be off. "
                    f"Fix: {group}=OPTION; {nearest(group, known)}"
                )
            return f"{group}=off"
        value = written(override)
        if value in known and not isinstance(override.value(), list):
            return f"{group}={quoted(value)}"
        refuse_secrets(nested(group, override.value()))
        extra = f"; any model: model=remote model.name={value}" if group == "model" else ""
        raise ConfigError(f"{group}={value}: no such option of the group {group}; {nearest(value, known)}{extra}")

    def _preset(self, override: Override, group: str) -> str:
        if override.is_delete():
            return str(override.input_line)
        value = override.value()
        names = [str(name) for name in value] if isinstance(value, list) else [written(override)]
        for name in names:
            if name not in self._presets[group]:
                refuse_secrets(nested(group, name))
                raise ConfigError(f"{group}={name}: no such preset; {nearest(name, self._presets[group])}")
        chosen = f"[{','.join(map(quoted, names))}]" if isinstance(value, list) else quoted(names[0])
        return f"{'' if group in self._named else '+'}{group}={chosen}"


def written(override: Override) -> str:
    """Returns the value as it was typed, without quotes."""
    value = override.value()
    return value if isinstance(value, str) else str(override.input_line).partition("=")[2].strip()


def quoted(text: str) -> str:
    """Returns a text in Hydra's grammar, in which it stays that text; a plain word as it is."""
    if re.fullmatch(r"[A-Za-z_][\w/-]*", text) and text.lower() not in ("true", "false", "null", "inf", "nan"):
        return text
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return (
        '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (f"\\{found[2]}" if found[2] else ""), literal) + '"'
    )
