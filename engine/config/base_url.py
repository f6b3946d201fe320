"""A provider's address, read from an environment variable as the provider's own client reads it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

_OLLAMA_PORT = 11434


def base_url(variable: str, text: str) -> str:
    """Returns the URL that a variable holds; without a scheme it is HTTP."""
    text = text.strip()
    return _READERS[variable](text) if variable in _READERS else text if "://" in text else f"http://{text}"


def _ollama(text: str) -> str:
    """Reads OLLAMA_HOST as Ollama's envconfig.Host does: scheme, host and port may each be left out.

    The host may be the one that the server listens at (0.0.0.0): then it is called on this machine.
    """
    text = text.strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("https", f"{text}:443") if text == "ollama.com" else ("http", text)
    default = {"http": 80, "https": 443}.get(scheme, _OLLAMA_PORT) if separator else _OLLAMA_PORT
    address, slash, path = rest.partition("/")
    host, port = _host_and_port(address)
    number = int(port) if port.isascii() and port.isdigit() and int(port) <= 65535 else default
    return f"{scheme or 'http'}://{_callable(host)}:{number}{slash}{path}".rstrip("/")


def _host_and_port(address: str) -> tuple[str, str]:
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, port.removeprefix(":")
    if address.count(":") > 1:  # IPv6 without brackets has no port
        return address, ""
    host, _, port = address.partition(":")
    return host, port


def _callable(host: str) -> str:
    """Returns the host as a URL has it. An address of every interface, or none, means this machine."""
    try:
        address = ipaddress.ip_address(host or "127.0.0.1")
    except ValueError:
        return host
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    return f"[{address}]" if address.version == 6 else str(address)


_READERS: dict[str, Callable[[str], str]] = {"OLLAMA_HOST": _ollama}
