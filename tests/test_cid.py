"""engine/cid.py, against ids that others have published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.cid import JSON, RAW, canonical_json, cid, cid_of_digest, cid_of_file, cid_of_json


@pytest.mark.parametrize(
    ("data", "codec", "expected"),
    [
        (b"", RAW, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        # the example of the JavaScript library `multiformats`
        (b'{"hello":"world"}', JSON, "bagaaierasords4njcts6vs7qvdjfcvgnume4hqohf65zsfguprqphs3icwea"),
    ],
)
def test_published_ids(data: bytes, codec: int, expected: str) -> None:
    assert cid(data, codec) == expected


def test_the_order_of_keys_does_not_matter() -> None:
    assert cid_of_json({"a": 1, "b": {"c": 2, "d": 3}}) == cid_of_json({"b": {"d": 3, "c": 2}, "a": 1})


def test_canonical_json_is_utf8_without_spaces() -> None:
    assert canonical_json({"b": "é", "a": [1, 2.5]}) == '{"a":[1,2.5],"b":"é"}'.encode()


def test_nan_has_no_content_id() -> None:
    with pytest.raises(ValueError, match="JSON"):
        cid_of_json(float("nan"))


def test_a_file_has_the_id_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    assert cid_of_file(path) == cid(b"x" * 3_000_000)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        cid_of_digest(hashlib.sha1(b"").digest())
