"""`model.sources` as URIs: what they stand for, and what is said of one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config.compose import compose
from engine.core.errors import ConfigError
from engine.schemas.model import ModelSpec

SHA = "ab" * 32
CID = "bafybeifc4nzx7mxtqghgu33a6t2a2wr4wnnngkngretuhify5vd24yiysy"


@pytest.mark.parametrize(
    ("uri", "fields"),
    [
        ("hf://owner/name", {"kind": "hub", "repo": "owner/name", "revision": "main", "format": "safetensors"}),
        ("hf://owner/name@v1.0", {"kind": "hub", "repo": "owner/name", "revision": "v1.0"}),
        ("hf://owner/name@abc/a/b.gguf", {"revision": "abc", "files": ("a/b.gguf",), "format": "gguf"}),
        ("s3://bucket/a/b.gguf", {"kind": "s3", "bucket": "bucket", "key": "a/b.gguf", "format": "gguf"}),
        ("s3://bucket/a/?format=openvino", {"key": "a/", "format": "openvino"}),
        ("s3://bucket/b.gguf?versionId=7", {"key": "b.gguf", "version": "7"}),
        (f"s3://bucket/b.gguf#sha256={SHA}", {"sha256": SHA}),
        (f"ipfs://{CID}?format=gguf", {"kind": "ipfs", "cid": CID, "path": "", "format": "gguf"}),
        (f"ipfs://{CID}/a%20b/model.safetensors", {"path": "a b/model.safetensors", "format": "safetensors"}),
        (
            f"https://host/x.gguf?download=1#sha256={SHA}",
            {"kind": "https", "url": "https://host/x.gguf?download=1", "sha256": SHA, "format": "gguf"},
        ),
        ("https://host/blob#format=gguf&token_env=TOKEN", {"format": "gguf", "token_env": "TOKEN"}),
        (
            f"package://name==1.2/inside/m.gguf#sha256={SHA}",
            {"kind": "package", "package": "name", "version": "1.2", "path": "inside/m.gguf", "sha256": SHA},
        ),
        ("file:///models/m.gguf", {"kind": "file", "path": "/models/m.gguf", "format": "gguf"}),
        ("FILE:///models/m.gguf", {"kind": "file", "path": "/models/m.gguf", "format": "gguf"}),
        ("Hf://owner/Name", {"kind": "hub", "repo": "owner/Name"}),
        ("HTTPS://Host/X.gguf", {"kind": "https", "url": "https://Host/X.gguf"}),
        ("file://~/m?format=openvino", {"path": "~/m", "format": "openvino"}),
    ],
)
def test_a_uri_stands_for_a_mapping(uri: str, fields: dict[str, Any]) -> None:
    (source,) = ModelSpec.model_validate({"name": "m", "sources": [uri]}).sources
    found = source.model_dump()
    assert {name: found[name] for name in fields} == fields


def test_mappings_and_uris_may_stand_side_by_side() -> None:
    sources = ({"kind": "file", "path": "m.gguf", "format": "gguf"}, "file://m.gguf")
    first, second = ModelSpec.model_validate({"name": "m", "sources": sources}).sources
    assert first == second


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/x.gguf", "not a source; expected one of hf://…, s3://…, ipfs://…, https://…"),
        ("models/m.gguf", "not a source"),
        ("s3://bucket/weights", "its name doesn't tell the layout of the files; add #format=safetensors|gguf|openvino"),
        ("s3://bucket", "expected s3://BUCKET/KEY"),
        ("hf://name", "expected hf://OWNER/NAME"),
        ("package://name/inside.gguf", "expected package://NAME==VERSION/PATH#sha256=DIGEST"),
        ("http://host/x.gguf", "anybody on the way can change what http brings; add #sha256=…, or use https"),
        ("https://host/x.gguf#sha256=abc", "sources[0].sha256"),
        ("ipfs://notacid/x.gguf", "'notacid' is not a content id; expected ipfs://CID"),
        ("s3://bucket/m.gguf?colour=red", "sources[0].colour"),
        ("https://user:password@host/x.gguf", "looks like a secret (not shown)"),
    ],
)
def test_what_is_wrong_with_a_uri_is_said_where_it_stands(uri: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([f'model.sources=["{uri}"]'])
    assert said in str(caught.value)
    assert "model.sources" in str(caught.value)
