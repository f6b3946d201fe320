"""Group `storage`: where a model's files are fetched from and kept, and how S3 stores and IPFS gateways are reached."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec
from engine.schemas.provider import TransportSpec


class S3Spec(Spec):
    """S3 stores: one bucket may be served by several endpoints."""

    endpoints: tuple[str, ...] = ()
    """Addresses that hold the same buckets, tried in this order; empty: $S3_ENDPOINT (several: commas), else AWS."""
    region: str | None = None
    """Region that requests are signed for; null: $AWS_REGION, else us-east-1."""
    access_key_env: str = "S3_ACCESS_KEY"
    """Environment variable that holds the access key's id; not set: the AWS chain (environment, profile, instance)."""
    secret_key_env: str = "S3_SECRET_KEY"
    """Environment variable that holds the secret key."""
    anonymous: bool = False
    """True: requests are not signed, for public buckets."""
    part_bytes: int = Field(16 * 1024 * 1024, ge=5 * 1024 * 1024)
    """Size of a range of a download and of a part of an upload, in bytes; S3 takes no part under 5 MiB."""
    parallel: int = Field(8, ge=1, le=64)
    """Ranges or parts in flight at once."""
    retries: int = Field(2, ge=0)
    """Further tries at one endpoint before the next one."""


class IpfsSpec(Spec):
    """Trustless IPFS gateways. What they send is verified block by block, so they need not be trusted."""

    gateways: tuple[str, ...] = ()
    """Addresses, tried in this order; empty: $IPFS_GATEWAY (several: commas), else a local node, else public ones."""
    car: bool = True
    """True: one CAR stream first, and single blocks only for what it lacks; false: single blocks only."""
    parallel: int = Field(8, ge=1, le=64)
    """Single blocks in flight at once."""
    max_block_bytes: int = Field(4 * 1024 * 1024, ge=1024)
    """A larger block is refused, in bytes; IPFS makes blocks of up to 2 MiB."""


class StorageSpec(Spec):
    """The sources and the cache of models."""

    cache_dir: str | None = None
    """Folder of the cache; null: $ENGINE_CACHE, else $XDG_CACHE_HOME/ipfs-accelerate, else ~/.cache/ipfs-accelerate."""
    cache_max_bytes: int | None = Field(None, ge=0)
    """The least recently used files are deleted above this, in bytes, never those in use; null: no limit."""
    offline: bool = False
    """True: nothing is fetched, only what is cached is used; ENGINE_OFFLINE=1 says the same."""
    strategy: Literal["first", "fastest"] = "first"
    """first: sources are tried in order; fastest: all that fit are started side by side, and the first whose files are
    verified wins."""
    tries: int = Field(5, ge=1)
    """Tries of a download that breaks, each going on where the last one stopped."""
    max_bytes: int = Field(512 * 1024**3, ge=1)
    """A model larger than this is refused, in bytes."""
    transport: TransportSpec = TransportSpec(read_s=60.0, max_connections=64, max_body_bytes=512 * 1024**3)
    """The HTTP client and its limits."""
    s3: S3Spec = S3Spec()
    """S3 stores."""
    ipfs: IpfsSpec = IpfsSpec()
    """IPFS gateways."""
