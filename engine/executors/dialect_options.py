"""The dialect of a remote provider, and the knobs that not every dialect has."""

from __future__ import annotations

from engine.core.errors import ConfigError, nearest
from engine.core.registry import DIALECTS
from engine.dialects.client import ChoiceStreams, Dialect
from engine.dialects.discovery import ModelPull
from engine.schemas.provider import RemoteProviderSpec


def set_stream_options(provider: RemoteProviderSpec, dialect: Dialect) -> None:
    """Sets which end of a stream a dialect trusts, and if it requests the usage. Raises ConfigError."""
    if isinstance(dialect, ChoiceStreams):
        dialect.stream_end = provider.stream_end
        dialect.stream_usage = provider.fields.stream_usage
    elif provider.stream_end != "finish":
        raise ConfigError(
            f"provider.stream_end: got {provider.stream_end}; expected finish, for streams of the dialect "
            f"{provider.dialect!r} have one end. Fix: remove it"
        )


def pulling(provider: RemoteProviderSpec, dialect: Dialect) -> ModelPull | None:
    """The dialect, where its server must fetch a model that it lacks. Raises ConfigError."""
    if provider.pull == "never":
        return None
    if not isinstance(dialect, ModelPull):
        raise ConfigError(
            f"provider.pull: a server of the dialect {provider.dialect!r} fetches no models; set it to never"
        )
    return dialect


def dialect_of(provider: RemoteProviderSpec) -> str:
    """The wire's name in the registry; over gRPC it has one of its own. Raises ConfigError."""
    if provider.transport.kind != "grpc":
        return provider.dialect
    known = [kind.removesuffix("_grpc") for kind in DIALECTS.kinds() if kind.endswith("_grpc")]
    if provider.dialect.removesuffix("_grpc") not in known:
        raise ConfigError(
            f"provider.transport.kind: the dialect {provider.dialect!r} has no form over gRPC; {nearest('', known)}"
        )
    return provider.dialect.removesuffix("_grpc") + "_grpc"
