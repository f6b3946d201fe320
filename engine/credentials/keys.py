"""Finds keys, and keeps their values out of all output.

The only file that reads an environment variable for a secret.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import SetupError
from engine.credentials import keyring
from engine.credentials.masking import Secret
from engine.schemas.provider import CredentialSpec
from engine.schemas.storage import S3Spec

CREDENTIALS_FILE = ".ipfs_api_credentials"
"""In the home folder: a flat JSON object, field name → key."""


class NoKey(SetupError):
    """No place holds a key where one is required."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key under the name of the place where it was found, such as `OPENAI_API_KEY_2`."""

    name: str
    secret: Secret
    place: str = ""
    """Its source, such as `.env`."""


def find_keys(
    credential: CredentialSpec,
    provider: str,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    folder: Path | None = None,
) -> list[Key]:
    """Returns the keys of a provider, in a stable order, each value once.

    Places, in order: environment variables, `.env` in `folder` (it fills in variables that are not set), the
    credentials file in `home`, the system's keyring (where a key is required), the mounted file. The first place that
    holds a key is used, with all its keys: a stale key further down never joins a fresh one. Of several variables the
    first that is set is used, with its numbered ones (NAME, NAME_1, NAME_2 …, gaps allowed). Raises SetupError, which
    never shows a value: a file that others can read, a broken file, a key with characters that can't be in a
    header, and NoKey: no key where one is required.
    """
    variables = os.environ if environ is None else environ
    home = Path.home() if home is None else home
    folder = Path.cwd() if folder is None else folder
    dotenv = _read_dotenv(folder / ".env")
    found = _from_variables(credential.env, {**dotenv, **variables})
    place = ""
    if not found and credential.field:
        place = f"~/{CREDENTIALS_FILE}"
        found = _numbered(credential.field, _read_credentials_file(home / CREDENTIALS_FILE))
    if not found and credential.required:
        place = "keyring"
        found = keyring.read(provider, environ)
    if not found and credential.file:
        place = credential.file
        found = _read_mounted(Path(credential.file).expanduser())
    keys: dict[str, Key] = {}
    for name, raw in found:
        value = raw.strip()
        if not value:
            continue
        if not all("!" <= character <= "~" for character in value):
            raise SetupError(
                f"provider {provider!r}: the key {name} has a space, a control or a non-ASCII character inside. "
                "Next: set it again, without quotes or line breaks"
            )
        keys.setdefault(value, Key(name, Secret(value), place or ("environment" if name in variables else ".env")))
    if not keys and credential.required:
        raise NoKey(_nothing_found(credential, provider))
    return list(keys.values())


def bearer_token(name: str) -> Secret:
    """Returns a token from an environment variable (or `.env` here) by its name. Raises SetupError when it is not
    set."""
    value = _secret_text(name)
    if not value:
        raise SetupError(f"the environment variable {name} is not set. Next: export {name}=…")
    return Secret(value)


def s3_keys(spec: S3Spec) -> tuple[Secret, Secret] | None:
    """Returns the access key's id and the secret key of an S3 store: from the variables that the spec names, `.env`, or
    the fields `s3_access_key` and `s3_secret_key` of the credentials file. None: neither is set. Raises SetupError when
    only one of the two is."""
    access, secret = _secret_text(spec.access_key_env), _secret_text(spec.secret_key_env)
    if not access and not secret:
        fields = _read_credentials_file(Path.home() / CREDENTIALS_FILE)
        access, secret = fields.get("s3_access_key", "").strip(), fields.get("s3_secret_key", "").strip()
    if bool(access) != bool(secret):
        there, missing = spec.access_key_env, spec.secret_key_env
        there, missing = (there, missing) if access else (missing, there)
        raise SetupError(f"{there} is set, but {missing} is not. Next: export {missing}=…")
    return (Secret(access), Secret(secret)) if access else None


def variable(name: str) -> str:
    """Returns an environment variable, else the same name in `.env`; empty: not set. Raises SetupError for a broken
    `.env`."""
    return (os.environ.get(name) or _read_dotenv(Path.cwd() / ".env").get(name) or "").strip()


def _secret_text(name: str) -> str:
    """Returns the same for a secret. Raises SetupError for characters that can't be in a header."""
    value = variable(name)
    if not all("!" <= character <= "~" for character in value):
        raise SetupError(
            f"{name} has a space, a control or a non-ASCII character inside. "
            "Next: set it again, without quotes or line breaks"
        )
    return value


def sources(credential: CredentialSpec, provider: str) -> list[str]:
    """Describes the sources of a provider's keys, in order."""
    places = [f"env {name}, {name}_1…n" for name in credential.env]
    if credential.env:
        places.append(".env")
    if credential.field:
        places.append(f"~/{CREDENTIALS_FILE} ({credential.field})")
    if credential.required:
        places.append(keyring.place(provider))
    if credential.file:
        places.append(credential.file)
    return places


def _nothing_found(credential: CredentialSpec, provider: str) -> str:
    places = "; ".join(sources(credential, provider)) or "nowhere, for provider.credential names no place"
    step = f"export {credential.env[0]}=…" if credential.env else "set provider.credential.env to a variable's name"
    return f"provider {provider!r} has no key: looked in {places}. Next: {step}"


def _from_variables(names: Iterable[str], variables: Mapping[str, str]) -> list[tuple[str, str]]:
    for name in names:
        found = _numbered(name, variables)
        if found:
            return found
    return []


def _numbered(name: str, values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Returns `name` and `name_<number>` if they are set, by number."""
    start = name + "_"
    numbers = sorted(
        int(other[len(start) :])
        for other in values
        if other.startswith(start) and other[len(start) :].isascii() and other[len(start) :].isdigit()
    )
    names = dict.fromkeys([name, *(f"{start}{number}" for number in numbers)])
    return [(each, values[each]) for each in names if values.get(each, "").strip()]


def _read_dotenv(path: Path) -> dict[str, str]:
    """Reads KEY=VALUE lines: `export`, comments, single quotes as they are, double quotes with \\n \\t \\" \\\\."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path.name}: can't be read: {_reason(error)}. Next: fix or remove it") from error
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name or name.startswith("#"):
            continue
        quote = value[:1]
        end = value.find(quote, 1) if quote in ("'", '"') else -1
        while quote == '"' and end > 0 and value[end - 1] == "\\":
            end = value.find(quote, end + 1)
        if end > 0:
            value = value[1:end]
            if quote == '"':
                value = re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), value)
        else:
            value = re.split(r"\s+#", value, maxsplit=1)[0].rstrip()
        values[name] = value
    return values


def _read_credentials_file(path: Path) -> dict[str, str]:
    shown = f"~/{CREDENTIALS_FILE}"
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & 0o077:
            raise SetupError(f"{shown}: others can read it (mode {mode & 0o777:o}). Next: chmod 600 {shown}")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise SetupError(f"{shown}: can't be read: {_reason(error)}. Next: write it as one JSON object") from None
    if not isinstance(values, dict):
        raise SetupError(f'{shown}: expected one JSON object, as in {{"openai_api_key": "…"}}')
    return {str(name): value for name, value in values.items() if isinstance(value, str)}


def _read_mounted(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(
            f"provider.credential.file: {path} can't be read: {_reason(error)}. Next: make it a file of one key a line"
        ) from None
    keys = [line for line in lines if line.strip()]
    return [(path.name if index == 0 else f"{path.name}_{index}", line) for index, line in enumerate(keys)]


def _reason(error: Exception) -> str:
    """Returns the reason that a file can't be read, without any of its content."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"
