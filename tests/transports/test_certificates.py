"""Certificates that can't be trusted: what is wrong with each, and what to do about it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.core.errors import ConnectFailed
from engine.transports.transport import Transport
from tests.servers.scripted import Exchange, ScriptedServer
from tests.transports.test_hostile import failure
from tests.transports.test_hostile import make as make

Serve = Callable[..., Awaitable[ScriptedServer]]
Make = Callable[..., Transport]


def write_certificate(folder: Path, host: str, days: int) -> Path:
    """A self-signed certificate with its key in one PEM file; it ended `-days` ago where that is negative."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        subject = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path


async def tls_server(serve: Serve, path: Path) -> str:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, b"safe")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return (await serve(script, tls=context)).url


@pytest.mark.parametrize(
    ("host", "days", "known", "what", "step"),
    [
        ("127.0.0.1", 2, False, "self-signed certificate", "provider.transport.verify to the path"),
        ("127.0.0.1", -1, True, "certificate has expired", "renew"),
        ("api.example.com", 2, True, "127.0.0.1", "the host name that it was made for"),
    ],
    ids=["self-signed", "expired", "wrong-host"],
)  # fmt: skip
async def test_a_bad_certificate_is_a_failed_connection_that_says_what_is_wrong(
    make: Make, serve: Serve, tmp_path: Path, host: str, days: int, known: bool, what: str, step: str
) -> None:
    path = write_certificate(tmp_path, host, days)
    error = await failure(make(verify=str(path) if known else True), await tls_server(serve, path))
    assert isinstance(error, ConnectFailed)
    assert "its certificate is not trusted" in error.message
    assert what in error.message
    assert step in error.message


async def test_plain_http_to_a_port_of_tls_is_malformed_or_a_failed_connection(
    make: Make, serve: Serve, tmp_path: Path
) -> None:
    url = await tls_server(serve, write_certificate(tmp_path, "127.0.0.1", 2))
    error = await failure(make(), url.replace("https://", "http://"))
    assert error.kind in ("malformed", "connect")
