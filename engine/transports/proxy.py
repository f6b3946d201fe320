"""Checks the proxy on the way to a provider before a run begins: with one that can't be used, every call fails."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from engine.core.errors import SetupError
from engine.schemas.provider import TransportSpec
from engine.transports.transport import origin, proxy_for

_SPOKEN = ("http", "https")
_SOCKS = ("socks5", "socks5h")
"""Kinds that httpx speaks as well, with its extra."""


def check_proxy(url: str, spec: TransportSpec) -> None:
    """Raises SetupError for a proxy that the transport can't speak to."""
    if spec.kind == "grpc":
        return  # gRPC reads the environment by itself
    parts = urlsplit(url)
    proxy = proxy_for(parts.scheme, parts.hostname or "", spec, parts.port)
    if not proxy:
        return
    scheme = proxy.partition("://")[0].lower()
    readable = _is_readable(proxy)
    if readable and (scheme in _SPOKEN or (spec.kind == "httpx" and scheme in _SOCKS and find_spec("socksio"))):
        return
    where = "provider.transport.proxy" if spec.proxy is not None else "ALL_PROXY, HTTPS_PROXY or HTTP_PROXY"
    # It may hold a password: only its kind is shown.
    got = f"a proxy of the kind {scheme}" if readable else "an address that can't be read"
    fix = "name an http:// proxy"
    if scheme in _SOCKS:
        fix = "set provider.transport.kind=httpx and pip install 'httpx[socks]'"
    raise SetupError(
        f"{where}: got {got} on the way to {origin(url)}; expected a proxy of the kind http or https. "
        f"Fix: {fix}, or set provider.transport.trust_env=false to call without one"
    )


def _is_readable(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
