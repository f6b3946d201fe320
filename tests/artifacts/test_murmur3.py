"""The hash of sharded folders, against @multiformats/murmur3 and the example of UnixFS's specification."""

from __future__ import annotations

import pytest

from engine.artifacts.murmur3 import murmur3_x64_64


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("", "0000000000000000"),
        ("a", "85555565f6597889"),
        ("part-1.txt", "ba4ff034c6702b07"),
        ("470.txt", "006e88df5847e67c"),  # UnixFS's example: bucket 00, and below it 6E
        ("a name of exactly 31 characters", "66740f7e56949c1d"),
        ("x" * 47, "a8e1e52b4d2c135d"),
        ("ünïcode – 名前.json", "f715279ff5dedf5e"),
    ],
)
def test_the_first_64_bits_are_those_of_another_implementation(text: str, digest: str) -> None:
    assert murmur3_x64_64(text.encode()) == int(digest, 16)
