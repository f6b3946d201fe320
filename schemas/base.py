"""The base of every spec: frozen, closed to unknown keys, silent about rejected values."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen description of one choice. The text under a field is its documentation, also in its JSON Schema."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,
        protected_namespaces=(),
    )
