"""Group `model`: what answers, under each provider's name for it, and where its files come from."""

from typing import Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from engine.schemas.base import Spec
from engine.schemas.model_parameters import PARAMETER, problem_of
from engine.schemas.sources import SourceSpec
from engine.schemas.tasks import Task


class ModelSpec(Spec):
    """A model."""

    name: str
    """Its canonical name; at a provider that `ids` does not list, also its id."""
    tasks: tuple[Task, ...] = ()
    """The tasks of the model; empty: all that the provider accepts."""
    ids: dict[str, str] = {}
    """Its id at each provider, by the provider's name."""
    sources: tuple[SourceSpec, ...] = ()
    """The sources of its files, in order, as mappings or URIs; only in-process runtimes use them."""
    context_length: int | None = Field(None, ge=1)
    """Tokens of prompt and answer together; null: what the model's own config says."""
    parameters: dict[str, Any] = {}
    """Body fields used where a request does not set them, such as temperature."""
    pin: bool = False
    """True: a row's own `model` is ignored; false: a remote request that names another model keeps it."""
    license: str | None = None
    """SPDX id of the weights' licence."""

    @field_validator("parameters")
    @classmethod
    def _checked(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        problem = problem_of(parameters)
        if problem is not None:
            raise PydanticCustomError(PARAMETER, "{problem}", {"problem": problem})
        return parameters
