"""NO_PROXY in the forms that curl, Go and Python read: names, addresses, networks, each also with a port."""

from __future__ import annotations

import ipaddress
import re

_WITH_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:\[\]]*):(?P<port>\d+)")


def is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    """Returns True if a host is reached without a proxy.

    An entry is `*`, a domain (with what is below it), an address such as [::1], or a network such as 10.0.0.0/8. One
    with a port is for that port.
    """
    host = host.strip("[]").rstrip(".").lower()
    return any(_names(entry.strip().lower(), host, port) for entry in re.split(r"[,\s]+", no_proxy) if entry.strip())


def _names(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    found = _WITH_PORT.fullmatch(entry)
    if found is not None:
        if int(found["port"]) != port:
            return False
        entry = found["host"]
    entry = entry.strip("[]").rstrip(".")
    if not entry:
        return False
    addresses = _addresses(host)
    if addresses:
        try:
            network = ipaddress.ip_network(entry.replace("]", ""), strict=False)
        except ValueError:
            return False
        return any(address in network for address in addresses)
    domain = entry.removeprefix("*").removeprefix(".")
    return host == domain or (domain != "" and host.endswith(f".{domain}"))


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Returns the address that a host is written as, and the IPv4 address inside an IPv6 one; empty for a name."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return []
    mapped = getattr(address, "ipv4_mapped", None)
    return [address] if mapped is None else [address, mapped]
