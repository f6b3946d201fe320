"""What NO_PROXY names is reached directly."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.schemas.provider import TransportSpec
from engine.transports.no_proxy import is_direct
from engine.transports.transport import proxy_for


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("*", "any.invalid", 80, True),
        ("a.invalid", "a.invalid", 80, True),
        ("a.invalid", "b.a.invalid", 80, True),
        (".a.invalid", "b.a.invalid", 80, True),
        ("*.a.invalid", "b.a.invalid", 80, True),
        ("a.invalid", "ba.invalid", 80, False),
        ("A.Invalid.", "a.invalid", 80, True),
        ("a.invalid:8000", "a.invalid", 8000, True),
        ("a.invalid:8000", "a.invalid", 80, False),
        ("x, a.invalid:443 y", "a.invalid", 443, True),
        ("127.0.0.1:8000", "127.0.0.1", 8000, True),
        ("127.0.0.1:8000", "127.0.0.1", 8001, False),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("10.0.0.0/8:80", "10.1.2.3", 81, False),
        ("10.1.2.3/8", "10.9.9.9", 80, True),
        ("[::1]", "::1", 80, True),
        ("::1", "::1", 80, True),
        ("[::1]:8000", "::1", 8000, True),
        ("[::1]:8000", "::1", 80, False),
        ("fd00::/8", "fd12::1", 80, True),
        ("127.0.0.1", "::ffff:127.0.0.1", 80, True),
        ("0.0.1", "127.0.0.1", 80, False),
        ("10.0.0.0/99, :, [, /", "10.0.0.1", 80, False),
        ("", "a.invalid", 80, False),
    ],
)
def test_each_form(no_proxy: str, host: str, port: int, direct: bool) -> None:
    assert is_direct(host, port, no_proxy) is direct


@given(st.ip_addresses(), st.integers(1, 65535), st.data())
def test_an_address_is_in_each_network_around_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, data: st.DataObject
) -> None:
    bits = data.draw(st.integers(0, address.max_prefixlen))
    shown = f"[{address}]" if address.version == 6 else str(address)
    for entry in (f"{address}/{bits}", str(address), f"{shown}:{port}"):
        assert is_direct(str(address), port, f"none.invalid,{entry}")


@given(st.text("*.:[]/,a1 ", max_size=10), st.text("a1.:", max_size=6))
def test_any_text_is_read(no_proxy: str, host: str) -> None:
    is_direct(host, 80, no_proxy)


def test_the_port_of_a_url_without_one_is_its_schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://proxy.invalid:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "a.invalid:443, [::1]")
    assert proxy_for("https", "a.invalid", TransportSpec()) is None
    assert proxy_for("https", "::1", TransportSpec(), 8000) is None
    assert proxy_for("https", "a.invalid", TransportSpec(), 8443) == "http://proxy.invalid:1"
