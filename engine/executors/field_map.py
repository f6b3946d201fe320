"""`provider.fields`: the fields of the canonical body that a provider names differently, ignores or refuses."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from engine.core.errors import ConfigError, InvalidRequest
from engine.dialects.common.unsupported import Unsupported
from engine.schemas.provider import FieldMapSpec, RemoteProviderSpec


class FieldMaps:
    """The field maps of a provider: one for each model id, made when a request first names the model."""

    def __init__(self, provider: RemoteProviderSpec) -> None:
        """Raises ConfigError for a field that is both renamed and not sent."""
        self._provider = provider
        self._maps: dict[str, FieldMap | None] = {}
        spec = provider.fields
        for where, rules in (("", spec), *((f"models.{pattern}.", rules) for pattern, rules in spec.models.items())):
            for name in (*rules.drop, *rules.refuse):
                if rules.rename.get(name) is not None:
                    raise ConfigError(
                        f"provider.fields.{where}rename.{name}: the field is also in drop or refuse. Fix: remove one"
                    )

    def of(self, model: str) -> FieldMap | None:
        """Returns the map for a model; None if every field is sent as it is."""
        if model not in self._maps:
            spec = self._provider.fields
            rules = [spec, *(rules for pattern, rules in spec.models.items() if fnmatchcase(model, pattern))]
            made = FieldMap(self._provider.name, rules)
            self._maps[model] = made if made.changes_something else None
        return self._maps[model]


class FieldMap:
    """The rules for one model: the provider's own, then those of each pattern that fits the model."""

    def __init__(self, provider: str, rules: list[FieldMapSpec]) -> None:
        self._provider = provider
        self._rename: dict[str, str] = {}
        self._left_out: dict[str, bool] = {}
        """Path of a field → whether a request with it is refused."""
        self._values: dict[str, dict[str, str | None]] = {}
        self._roles: dict[str, str] = {}
        for rule in rules:
            for name, sent_as in rule.rename.items():
                self._left_out.pop(name, None)
                if sent_as is None:
                    self._rename.pop(name, None)
                else:
                    self._rename[name] = sent_as
            for name in (*rule.drop, *rule.refuse):
                self._rename.pop(name, None)
                self._left_out[name] = name in rule.refuse
            self._values |= rule.values
            self._roles |= rule.roles

    @property
    def changes_something(self) -> bool:
        return bool(self._rename or self._left_out or self._values or self._roles)

    def apply(self, body: dict[str, Any], drop_unsupported: bool) -> tuple[dict[str, Any], list[str]]:
        """Returns the body as the provider takes it, and warnings of what was dropped or replaced. The body itself is
        not changed. Raises InvalidRequest for a field that the provider refuses."""
        body = dict(body)
        refused = Unsupported(self._provider, drop_unsupported)
        dropped = Unsupported(self._provider, True)
        replaced: list[str] = []
        for path, refuse in self._left_out.items():
            self._leave_out(body, path, refused if refuse else dropped)
        for name, known in self._values.items():
            self._replace(body, name, known, refused, replaced)
        if self._roles and isinstance(body.get("messages"), list):
            body["messages"] = [self._in_role(message) for message in body["messages"]]
        for name, sent_as in self._rename.items():
            self._move(body, name, sent_as)
        return body, [*refused.warnings, *dropped.warnings, *replaced]

    def _leave_out(self, body: dict[str, Any], path: str, lost: Unsupported) -> None:
        first, _, rest = path.partition(".")
        if not rest:
            if first in body:
                lost.lose_field(first, body.pop(first))
            return
        if any(rest in each for each in _objects(body.get(first))):
            lost.lose(f"body.{path}")
            body[first] = _without(body[first], rest)

    def _replace(
        self, body: dict[str, Any], name: str, known: dict[str, str | None], refused: Unsupported, replaced: list[str]
    ) -> None:
        value = body.get(name)
        if not isinstance(value, str) or known.get(value) == value:
            return
        sent = known.get(value)
        if sent is not None:
            body[name] = sent
            replaced.append(f"body.{name}: {value!r} was sent as {sent!r}: {self._provider} has no {value!r}")
            return
        del body[name]
        takes = ", ".join(dict.fromkeys(each for each in known.values() if each is not None))
        refused.lose(f"body.{name}", f"{self._provider} has no {value!r}, it takes {takes}")

    def _in_role(self, message: Any) -> Any:
        role = message.get("role") if isinstance(message, dict) else None
        return {**message, "role": self._roles[role]} if isinstance(role, str) and role in self._roles else message

    def _move(self, body: dict[str, Any], name: str, sent_as: str) -> None:
        if body.get(name) is None:
            return
        value = body.pop(name)
        if body.get(sent_as) not in (None, value):
            raise InvalidRequest(
                f"body.{name}: got {value!r}, and body.{sent_as}: got {body[sent_as]!r}; {self._provider} has one "
                "field for both. Fix: remove one"
            )
        body[sent_as] = value


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            yield each


def _without(value: Any, name: str) -> Any:
    if isinstance(value, list):
        return [_without(each, name) for each in value]
    return {key: each for key, each in value.items() if key != name} if isinstance(value, dict) else value
