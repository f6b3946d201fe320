from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import sys
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from engine.core.errors import SetupError
from engine.credentials.keys import Key, find_keys, sources
from engine.credentials.masking import Secret, looks_like_secret, redact
from engine.schemas.provider import CredentialSpec

NO_KEYRING = "keyring.backends.null.Keyring"
GROQ = CredentialSpec(env=("GROQ_API_KEY",), field="groq_api_key")
VALUE = "gsk_canary0123456789abcdef"


def found(
    credential: CredentialSpec,
    environ: dict[str, str],
    folder: Path,
) -> dict[str, str]:
    """Name → value, with `folder` as home and as working folder."""
    keys = find_keys(credential, "groq", environ, home=folder, folder=folder)
    return {key.name: key.secret.reveal() for key in keys}


def refused(credential: CredentialSpec, environ: dict[str, str], folder: Path) -> str:
    with pytest.raises(SetupError) as caught:
        find_keys(credential, "groq", environ, home=folder, folder=folder)
    assert "canary" not in str(caught.value)
    return str(caught.value)


def write_credentials(folder: Path, content: object, mode: int = 0o600) -> None:
    path = folder / ".ipfs_api_credentials"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)


# -- where keys come from ----------------------------------------------------------------------------------------------


def test_plain_and_numbered_variables_are_all_used_in_order(tmp_path: Path) -> None:
    environ = {"GROQ_API_KEY_10": "k10", "GROQ_API_KEY_2": "k2", "GROQ_API_KEY": "k", "GROQ_API_KEY_X": "no"}
    assert list(found(GROQ, environ, tmp_path).items()) == [
        ("GROQ_API_KEY", "k"),
        ("GROQ_API_KEY_2", "k2"),
        ("GROQ_API_KEY_10", "k10"),
    ]


def test_numbered_variables_need_no_plain_one(tmp_path: Path) -> None:
    assert found(GROQ, {"GROQ_API_KEY_1": "a", "GROQ_API_KEY": " "}, tmp_path) == {"GROQ_API_KEY_1": "a"}


def test_the_same_value_twice_is_one_key(tmp_path: Path) -> None:
    assert found(GROQ, {"GROQ_API_KEY": "a", "GROQ_API_KEY_1": "a", "GROQ_API_KEY_2": "b"}, tmp_path) == {
        "GROQ_API_KEY": "a",
        "GROQ_API_KEY_2": "b",
    }


def test_of_several_variables_the_first_that_is_set_is_used(tmp_path: Path) -> None:
    credential = CredentialSpec(env=("GEMINI_API_KEY", "GOOGLE_API_KEY"))
    assert found(credential, {"GOOGLE_API_KEY": "g"}, tmp_path) == {"GOOGLE_API_KEY": "g"}
    assert found(credential, {"GOOGLE_API_KEY": "g", "GEMINI_API_KEY_1": "m"}, tmp_path) == {"GEMINI_API_KEY_1": "m"}


def test_whitespace_and_line_breaks_around_a_key_are_dropped(tmp_path: Path) -> None:
    assert found(GROQ, {"GROQ_API_KEY": " k\r\n"}, tmp_path) == {"GROQ_API_KEY": "k"}


@pytest.mark.parametrize("value", ["canary\nX-Evil: 1", "canary\x00", "canary canary", "canary…", "‘canary’"])
def test_a_key_that_can_not_stand_in_a_header_is_refused_without_showing_it(value: str, tmp_path: Path) -> None:
    assert "GROQ_API_KEY" in refused(GROQ, {"GROQ_API_KEY": value}, tmp_path)


def test_dotenv_fills_in_what_the_environment_does_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GROQ_API_KEY=old\nGROQ_API_KEY_1=one\n")
    assert found(GROQ, {"GROQ_API_KEY": "new"}, tmp_path) == {"GROQ_API_KEY": "new", "GROQ_API_KEY_1": "one"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("GROQ_API_KEY=k", "k"),
        ("export GROQ_API_KEY = k ", "k"),
        ("GROQ_API_KEY=k # mine", "k"),
        ("GROQ_API_KEY=k#1", "k#1"),
        ("GROQ_API_KEY='k' # mine", "k"),
        ('GROQ_API_KEY="k"', "k"),
        ('GROQ_API_KEY="k\\"q"', 'k"q'),
        ("GROQ_API_KEY='k\\n'", "k\\n"),
        ("\ufeffGROQ_API_KEY=k\r", "k"),
        ("GROQ_API_KEY==k=", "=k="),
    ],
)
def test_a_line_of_dotenv_is_read(line: str, value: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{line}\n# GROQ_API_KEY=comment\nno line\n", encoding="utf-8")
    assert found(GROQ, {}, tmp_path) == {"GROQ_API_KEY": value}


def test_the_credentials_file_is_read_when_no_variable_is_set(tmp_path: Path) -> None:
    write_credentials(tmp_path, {"groq_api_key": "k", "groq_api_key_1": "k1", "openai_api_key": "o", "n": 1})
    assert found(GROQ, {}, tmp_path) == {"groq_api_key": "k", "groq_api_key_1": "k1"}
    assert found(GROQ, {"GROQ_API_KEY": "env"}, tmp_path) == {"GROQ_API_KEY": "env"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_credentials_file_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    write_credentials(tmp_path, {"groq_api_key": VALUE}, mode)
    assert "chmod 600 ~/.ipfs_api_credentials" in refused(GROQ, {}, tmp_path)


@pytest.mark.parametrize("content", ['{"groq_api_key": "canary', "[1]", "\xff\xfe canary"])
def test_a_broken_credentials_file_is_refused_without_showing_it(content: str, tmp_path: Path) -> None:
    write_credentials(tmp_path, content)
    assert "~/.ipfs_api_credentials" in refused(GROQ, {}, tmp_path)


# -- the keyring: a real one, kept in a file ---------------------------------------------------------------------------


def keyring_in(folder: Path, **keys: str) -> dict[str, str]:
    """A keyring below `folder` that holds these keys, stored as a user would; the environment that chooses it."""
    chosen = {"PYTHON_KEYRING_BACKEND": "keyrings.alt.file.PlaintextKeyring", "XDG_DATA_HOME": str(folder)}
    for user, value in keys.items():
        command = [sys.executable, "-m", "keyring", "set", "ipfs-accelerate", user]
        subprocess.run(command, input=value, text=True, check=True, env={**os.environ, **chosen}, capture_output=True)
    return chosen


@pytest.mark.slow
def test_the_keyring_is_read_where_no_variable_and_no_file_has_a_key(tmp_path: Path) -> None:
    environ = keyring_in(tmp_path, groq="k", groq_1="k1", openai="o")
    assert found(GROQ, environ, tmp_path) == {"keyring:groq": "k", "keyring:groq_1": "k1"}
    assert found(GROQ, {**environ, "GROQ_API_KEY": "env"}, tmp_path) == {"GROQ_API_KEY": "env"}


@pytest.mark.slow
def test_the_keyring_comes_before_the_mounted_file(tmp_path: Path) -> None:
    environ = keyring_in(tmp_path, groq="k")
    (tmp_path / "token").write_text("mounted")
    credential = GROQ.model_copy(update={"file": str(tmp_path / "token")})
    assert found(credential, environ, tmp_path) == {"keyring:groq": "k"}
    assert found(credential, {"PYTHON_KEYRING_BACKEND": NO_KEYRING}, tmp_path) == {"token": "mounted"}


@pytest.mark.slow
def test_the_keyring_is_not_opened_for_a_provider_that_needs_no_key(tmp_path: Path) -> None:
    environ = keyring_in(tmp_path, groq="k")
    assert found(GROQ.model_copy(update={"required": False}), environ, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", ["keyrings.alt.file.EncryptedKeyring", "keyring.backends.fail.Keyring", "no.such.Keyring"]
)
def test_a_keyring_that_asks_for_a_password_or_is_none_is_one_without_the_key(backend: str, tmp_path: Path) -> None:
    environ = {"PYTHON_KEYRING_BACKEND": backend, "XDG_DATA_HOME": str(tmp_path)}
    assert "the system's keyring (service ipfs-accelerate, user groq)" in refused(GROQ, environ, tmp_path)


def test_a_keyring_module_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keyring.py").write_text(
        "def get_password(service, user): return 'canary' if '_' not in user else None"
    )
    monkeypatch.chdir(tmp_path)
    refused(GROQ, {"PYTHON_KEYRING_BACKEND": NO_KEYRING}, tmp_path)


# -- files and errors --------------------------------------------------------------------------------------------------


def test_a_mounted_file_holds_one_key_a_line(tmp_path: Path) -> None:
    path = tmp_path / "groq-token"
    path.write_text("a\n\n b \n")
    credential = CredentialSpec(env=("GROQ_API_KEY",), file=str(path))
    assert found(credential, {}, tmp_path) == {"groq-token": "a", "groq-token_1": "b"}


def test_a_mounted_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    assert "provider.credential.file" in refused(CredentialSpec(file=str(tmp_path)), {}, tmp_path)


def test_no_key_at_all_is_one_line_that_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    assert refused(GROQ, {}, tmp_path) == (
        "provider 'groq' has no key: looked in env GROQ_API_KEY, GROQ_API_KEY_1…n; .env; "
        "~/.ipfs_api_credentials (groq_api_key); the system's keyring (service ipfs-accelerate, user groq). "
        "Next: export GROQ_API_KEY=…"
    )


def test_a_provider_that_names_no_place_says_so(tmp_path: Path) -> None:
    assert "provider.credential.env" in refused(CredentialSpec(), {}, tmp_path)


def test_no_key_is_fine_where_none_is_required(tmp_path: Path) -> None:
    assert found(CredentialSpec(env=("VLLM_API_KEY",), required=False), {}, tmp_path) == {}


def test_the_places_can_be_told_without_looking() -> None:
    credential = CredentialSpec(env=("A", "B"), field="a", file="/run/secrets/a")
    assert sources(credential, "a") == [
        "env A, A_1…n",
        "env B, B_1…n",
        ".env",
        "~/.ipfs_api_credentials (a)",
        "the system's keyring (service ipfs-accelerate, user a)",
        "/run/secrets/a",
    ]


# -- how they stay unseen ----------------------------------------------------------------------------------------------


def test_a_secret_prints_as_stars() -> None:
    key = Key("GROQ_API_KEY", Secret(VALUE))
    shown = [str(key.secret), repr(key.secret), f"{key.secret}", f"{key.secret:>5}", repr(key), repr([key])]
    assert not any("canary" in text for text in shown)
    assert str(key.secret) == "***"


def test_a_secret_can_not_be_written_by_accident() -> None:
    secret = Secret(VALUE)
    for write in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode):
        with pytest.raises(TypeError) as caught:
            write(secret)
        assert "canary" not in str(caught.value)
    with pytest.raises(TypeError):
        vars(secret)


def test_secrets_with_the_same_value_are_equal() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "sk-proj-0123456789abcdefghij",
        "sk-ant-api03-0123456789abcdef",
        "gsk_0123456789abcdef0123",
        "hf_0123456789abcdefABCDEF",
        "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        "AKIAIOSFODNN7EXAMPLE",
        "xai-0123456789abcdef0123",
        "r8_0123456789abcdef0123",
        "glpat-0123456789abcdef0123",
        "ghp_0123456789abcdef0123456789abcdef0123",
        "Bearer abcdefgh12345678",
        "https://user:hunter2@example.com/v1",
        "prefix sk-0123456789abcdefghij suffix",
    ],
)
def test_what_looks_like_a_secret_is_seen(text: str) -> None:
    assert looks_like_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt-4o-mini",
        "sk-",
        "task-scheduler-for-long-names",
        "disk-0123456789abcdefghij",
        "accounts/fireworks/models/llama-v3p1-8b-instruct",
        "http://127.0.0.1:8000/v1",
        "https://api.openai.com/v1",
        "s3://bucket/key@v1",
        "OPENAI_API_KEY",
        "bearer of news",
        "hf_tgi",
    ],
)
def test_what_is_no_secret_is_let_through(text: str) -> None:
    assert not looks_like_secret(text)


def test_a_secret_is_masked_wherever_it_stands() -> None:
    assert redact(f"bad key {VALUE}, {VALUE}!", [Secret(VALUE)]) == "bad key ***, ***!"


AWKWARD = 'sk-"can\\ary/+0123456789'


@pytest.mark.parametrize(
    "form",
    [
        json.dumps(AWKWARD)[1:-1],
        json.dumps(AWKWARD)[1:-1].replace("/", "\\/"),
        quote(AWKWARD, safe=""),
        re.sub("%..", lambda match: match[0].lower(), quote(AWKWARD, safe="")),
        b64encode(AWKWARD.encode()).decode(),
        urlsafe_b64encode(b"Bearer " + AWKWARD.encode() + b"\n").decode(),
        b64encode(b"user:" + AWKWARD.encode() + b"!").decode(),
    ],
    ids=["json", "json-slash", "url", "url-lower", "base64", "base64-bearer", "base64-login"],
)
def test_a_secret_is_masked_however_it_is_written(form: str) -> None:
    shown = redact(f"bad key <{form}>", [Secret(AWKWARD)])
    middle = form[8:-8]
    assert middle not in shown
    assert "***" in shown


def test_a_short_secret_is_no_word_to_look_for_in_answers() -> None:
    assert Secret("lm-studio").forms() == ()


@pytest.mark.parametrize("end", ["", "…"])
def test_a_secret_that_the_end_cuts_off_is_masked(end: str) -> None:
    assert redact(f"bad key {VALUE[:10]}{end}", [Secret(VALUE)]) == f"bad key ***{end}"


def test_a_text_without_the_secret_is_unchanged() -> None:
    assert redact("the model gsk does not exist", [Secret(VALUE), Secret("")]) == "the model gsk does not exist"
