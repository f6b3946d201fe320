"""What every spec shares: frozen, closed to unknown keys, silent about rejected values."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A frozen description of one choice. The docstring under a field is its documentation and its schema text."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
