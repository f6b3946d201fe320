"""Group `provider`: who answers. A remote API, a model in this process, or the simulation."""

from typing import Annotated, Literal

from pydantic import Field

from engine.schemas.base import Spec
from engine.schemas.plugins import open_kinds, own_kinds
from engine.schemas.prices import PriceSpec
from engine.schemas.simulated import SimulatedProviderSpec
from engine.schemas.tasks import Task

StreamEnd = Literal["finish", "done", "both"]


class CredentialSpec(Spec):
    """The sources of keys. Config holds names, never values."""

    env: tuple[str, ...] = ()
    """Environment variables, tried in this order; NAME, NAME_1, NAME_2 … are all used."""
    field: str | None = None
    """The name of the key in `~/.ipfs_api_credentials`."""
    file: str | None = None
    """A mounted secret file that holds one key a line."""
    required: bool = True
    """False if the server may be used without a key; the system's keyring is read only if this is true."""


class TransportSpec(Spec):
    """The HTTP client and its limits."""

    kind: Literal["aiohttp", "httpx", "grpc"] = "aiohttp"
    """The client: aiohttp is the cheapest on CPU; httpx takes any httpx transport; grpc speaks gRPC, for the dialects
    that have it (kserve)."""
    connect_s: float = Field(10.0, gt=0)
    """Limit for DNS, TCP and TLS together, in seconds."""
    read_s: float = Field(600.0, gt=0)
    """Longest wait for a reply's headers, and longest silence between two reads of its body, in seconds."""
    max_connections: int = Field(1000, ge=1)
    """Open connections at most, over all hosts."""
    keepalive_s: float = Field(30.0, ge=0)
    """Lifetime of an idle connection, in seconds."""
    max_body_bytes: int = Field(256 * 1024 * 1024, ge=1024)
    """A reply larger than this is refused, in bytes, received or decoded."""
    verify: bool | str = True
    """TLS verification: true, false, or the path of a CA bundle."""
    proxy: str | None = None
    """Proxy URL, such as http://proxy:3128."""
    trust_env: bool = True
    """True: HTTP_PROXY, HTTPS_PROXY and NO_PROXY are honoured."""


class BatchApiSpec(Spec):
    """The provider's batch API, which answers many requests within a day at a lower price (policy/batch=provider)."""

    api: str
    """Its wire: openai is files and batches, anthropic is message batches, gemini is batchGenerateContent; or an
    installed one of the port `batch_dialects`."""
    tasks: tuple[Task, ...] = ("chat",)
    """Tasks that it takes; rows of others are answered by live calls."""
    max_rows: int = Field(50_000, ge=1)
    """Requests in one job."""
    max_bytes: int = Field(200_000_000, ge=1024)
    """Bytes of one job's requests."""


class FieldMapSpec(Spec):
    """Rules for fields of the canonical body, which is OpenAI's, that a provider has in another form or not at all. A
    field is named by its name, or by `messages.name` for a field of each message."""

    rename: dict[str, str | None] = {}
    """Field → its name at the provider; null takes a rule back."""
    drop: tuple[str, ...] = ()
    """Fields that are never sent, with a warning: the answer is the same without them, or they have one value only."""
    refuse: tuple[str, ...] = ()
    """Fields that the provider can't express: the request is refused, or with `drop_unsupported` sent without them."""
    values: dict[str, dict[str, str | None]] = {}
    """Field → its values → what is sent for each, with a warning where it differs. Other values are refused."""
    roles: dict[str, str] = {}
    """Role of a message → its role at the provider."""


class FieldsSpec(FieldMapSpec):
    """A provider's field map, and what differs by model."""

    stream_usage: bool = True
    """True: a streaming call requests the usage (`stream_options: {include_usage: true}`); false: the provider refuses
    stream_options, or reports usage without them."""
    models: dict[str, FieldMapSpec] = {}
    """Pattern of a model id, such as `gpt-5*` → further rules, which replace those of the same field."""


class CommonProviderSpec(Spec):
    """Knobs that every provider has. The spec of an installed kind extends this one."""

    kind: str
    name: str
    """The provider's name in targets, results and `model.ids`."""
    default_model: str | None = None
    """The model that `model=default` means here."""
    price: PriceSpec | None = None
    """The price of its tokens, in US dollars a million; null: unknown."""


class RemoteProviderSpec(Spec):
    """An HTTP API."""

    kind: Literal["remote"]
    name: str
    """The provider's name in targets, results and `model.ids`."""
    dialect: str = "openai"
    """The wire protocol that it speaks, ours or an installed one: `engine plugins` lists them."""
    base_url: str
    """Its address, with the version prefix: https://api.openai.com/v1."""
    endpoints: tuple[str, ...] = ()
    """Further addresses that serve the same models with the same keys, such as replicas."""
    endpoint_credentials: dict[str, CredentialSpec] = {}
    """The key of each address, where they differ: by base_url and every one of endpoints. In place of `credential`."""
    base_url_env: tuple[str, ...] = ()
    """Environment variables that replace base_url when set and no override names it."""
    credential: CredentialSpec = CredentialSpec()
    default_model: str | None = None
    """The model that `model=default` means here: its id at this provider."""
    headers: dict[str, str] = {}
    """Extra request headers; never a secret."""
    prices: str | None = None
    """The prices of its models: a list of conf/prices by its name, or the path of a YAML file of your own; null:
    unknown, unless the provider's replies report their cost."""
    price: PriceSpec | None = None
    """The price of this target's model, in place of the list's."""
    pull: Literal["never", "missing"] = "never"
    """missing: a model that the server lacks is fetched by it before the first call (Ollama only); never: it is not."""
    drop_unsupported: bool = False
    """True: a parameter that this provider can't express is dropped with a warning; false: the request is refused."""
    fields: FieldsSpec = FieldsSpec()
    """Fields that it names differently, ignores or refuses, by provider and by model."""
    prefill: Literal["none", "assistant", "prefix", "continue_final_message"] = "none"
    """The way to have it continue the beginning of an answer, for a broken stream (policy.stream.rescue):
    assistant: it continues a last message of the assistant; prefix: that message also says `prefix: true`;
    continue_final_message: the body says so, as vLLM has it; none: it can't."""
    stream_end: StreamEnd = "finish"
    """The end of a stream of choices on OpenAI's wire; a stream without it is `truncated`. finish: the finish_reason of
    each choice, then `[DONE]` or the end of the body; done: `[DONE]`, for a server without finish reasons; both:
    `[DONE]` after the finish reasons, for a proxy that ends a body cleanly after it lost its server."""
    batch: BatchApiSpec | None = None
    """Its batch API; null: none, or none that is known."""
    transport: Annotated[TransportSpec, *open_kinds("transports", own_kinds(TransportSpec))] = TransportSpec()
    """A plug-in of the port `transports` adds a kind, whose spec extends this one."""


class LocalProviderSpec(Spec):
    """A model in this process, on `hardware`."""

    kind: Literal["local"]
    name: str = "local"
    default_model: str
    """The model that `model=default` means here: an option of the group `model`."""
    price: PriceSpec | None = None
    """The price that its tokens count as, in US dollars; null: unknown."""


ProviderSpec = Annotated[
    Annotated[RemoteProviderSpec | LocalProviderSpec | SimulatedProviderSpec, Field(discriminator="kind")],
    *open_kinds("executors", own_kinds(RemoteProviderSpec, LocalProviderSpec, SimulatedProviderSpec)),
]
"""A plug-in of the port `executors` adds a kind."""

__all__ = [
    "BatchApiSpec",
    "CommonProviderSpec",
    "CredentialSpec",
    "FieldMapSpec",
    "FieldsSpec",
    "LocalProviderSpec",
    "ProviderSpec",
    "RemoteProviderSpec",
    "SimulatedProviderSpec",
    "StreamEnd",
    "TransportSpec",
]
