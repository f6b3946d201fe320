"""The keys of one remote target: which one a call has, its headers, and what comes back without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.core.errors import AuthFailed, ConfigError, InferenceError, Internal, nearest
from engine.core.request import Attempt
from engine.credentials.keys import Key, find_keys
from engine.credentials.masking import redact
from engine.dialects.common.retry_hints import LONGEST_S
from engine.schemas.provider import RemoteProviderSpec

if TYPE_CHECKING:
    from engine.dialects.client import Dialect


class CallKeys:
    """The keys of a provider, by name. Raises ConfigError and SetupError."""

    def __init__(self, provider: RemoteProviderSpec, dialect: Dialect) -> None:
        own = _endpoint_keys(provider)
        self.own: tuple[str, ...] = tuple(key.name for key in own)
        """The key of each endpoint, in the order of the addresses, where each has its own; else empty."""
        shared = [] if own else find_keys(provider.credential, provider.name)
        self.shared: tuple[str, ...] = tuple(key.name for key in shared)
        """The keys that every endpoint takes."""
        self._found: dict[str, Key] = {key.name: key for key in (*own, *shared)}
        self.headers = self._prepare_headers(provider.headers, dialect)
        """Key → the headers of its calls, plain and streaming."""
        self.echoes: dict[str | None, tuple[bytes, ...]] = {None: ()}
        """Key → its spellings in a reply that repeats it."""
        for name, found in self._found.items():
            self.echoes[name] = tuple(form.encode() for form in found.secret.forms())
        self._spelled = {name: found.secret.forms() or (found.secret.reveal(),) for name, found in self._found.items()}

    def of(self, attempt: Attempt | None) -> str | None:
        """Returns the name of the key for an attempt; the only or first one if no stage chose."""
        if self.own:
            return self.own[attempt.place if attempt is not None else 0]
        key = attempt.key if attempt is not None else None
        if key is None:
            return self.shared[0] if self.shared else None
        if key not in self.headers:
            raise Internal(f"no key {key!r} at this target; it has: {', '.join(self.shared) or 'none'}")
        return key

    def by_address(self, addresses: Sequence[str]) -> list[tuple[str, str | None]]:
        """Returns each address with its own key; else the first address with each key, the others with the first."""
        if self.own:
            return list(zip(addresses, self.own, strict=True))
        names: tuple[str | None, ...] = self.shared or (None,)
        return [(addresses[0], name) for name in names] + [(address, names[0]) for address in addresses[1:]]

    def place(self, key: str | None) -> str | None:
        """Returns where a key was found."""
        return self._found[key].place if key is not None else None

    def settle(self, error: InferenceError, attempt: Attempt | None, key: str | None) -> None:
        """Notes an error in its attempt, and takes an echoed key out of it."""
        error.message = self._clean(error.message, key) or ""
        if error.retry_after_s is not None and error.retry_after_s > LONGEST_S:
            days = error.retry_after_s / 86400
            error.message += f"; retry hint: got {days:.1f} days; expected 1 day at most, which is used"
            error.retry_after_s = LONGEST_S
        error.args = (error.message,)
        error.code = self._clean(error.code, key)
        if error.usage is not None and error.usage.unsaid:
            error.usage = None
        error.provider_request_id = self._clean(error.provider_request_id, key)
        if attempt is not None:
            if error.status is not None:
                attempt.status = error.status
            if error.provider_request_id is not None:
                attempt.provider_request_id = error.provider_request_id
        if isinstance(error, AuthFailed):
            who = f"key {key}" if key is not None else "no key was sent"
            error.message = f"{who}: {error.message}"
            error.args = (error.message,)

    def without_key(self, request_id: str | None, key: str | None) -> str | None:
        """Returns a provider's id of a call, printable and without the key."""
        if request_id is None:
            return None
        if not (request_id.isascii() and request_id.isprintable()):
            request_id = "".join(each if each.isascii() and each.isprintable() else "?" for each in request_id)
        if key is None:
            return request_id
        secret = self._found[key].secret
        if "\\" in request_id or "%" in request_id or any(form in request_id for form in self._spelled[key]):
            return redact(request_id, (secret,))
        return request_id

    def _clean(self, text: str | None, key: str | None) -> str | None:
        """Returns a provider's text without a key that it echoes."""
        if not text:
            return text
        # A header that is not UTF-8 has lone surrogates, which can't be written to a file.
        text = text.encode("utf-8", "replace").decode()
        return redact(text, [found.secret for found in self._found.values()]) if key is not None else text

    def _prepare_headers(
        self, extra: Mapping[str, str], dialect: Dialect
    ) -> dict[str | None, tuple[dict[str, str], dict[str, str]]]:
        """Returns the headers of each key's calls, plain and streaming. Raises ConfigError."""
        for name, value in extra.items():
            if not (name + value).isascii() or not (name + value).isprintable():
                raise ConfigError(f"provider.headers.{name}: expected printable ASCII")
        lowered = {name.lower(): value for name, value in extra.items()}
        plain = {**dialect.constant_headers(False), **lowered}
        streaming = {**dialect.constant_headers(True), **lowered}
        prepared: dict[str | None, tuple[dict[str, str], dict[str, str]]] = {}
        if not self._found:
            prepared[None] = (plain, streaming)
        for name, key in self._found.items():
            auth = dialect.auth_headers(key.secret.reveal())
            prepared[name] = ({**plain, **auth}, {**streaming, **auth})
        return prepared


def _endpoint_keys(provider: RemoteProviderSpec) -> list[Key]:
    """Returns the key of each address, in their order; none if they share keys. Raises ConfigError and SetupError."""
    said = provider.endpoint_credentials
    if not said:
        return []
    addresses = (provider.base_url, *provider.endpoints)
    for address in said:
        if address not in addresses:
            raise ConfigError(
                f"provider.endpoint_credentials: {address!r} is not one of the addresses; {nearest(address, addresses)}"
            )
    missing = [address for address in addresses if address not in said]
    if missing:
        raise ConfigError(
            f"provider.endpoint_credentials: {missing[0]} has no key; name one for each, or use provider.credential"
        )
    found = [(find_keys(said[address], f"{provider.name} at {address}"), address) for address in addresses]
    for keys, address in found:
        if len(keys) != 1:
            raise ConfigError(f"provider.endpoint_credentials: {address} has {len(keys)} keys; it can have one")
    return [keys[0] for keys, _ in found]
