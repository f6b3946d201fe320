"""`policy.stream`: what happens to a stream that breaks after its first chunk."""

from typing import Literal

from pydantic import Field

from engine.schemas.base import Spec


class StreamSpec(Spec):
    """Rescue of broken streams. The caller sees one stream, and never a false clean end."""

    rescue: Literal["continue", "restart", "off"] = "continue"
    """continue: another attempt continues the delivered text, where its target can (provider.prefill), else it
    restarts; restart: the answer is requested again, what is equal to the delivered text is left out, and a marked
    chunk says so if it differs; off: the stream ends with its error."""
    max_rescues: int = Field(2, ge=1)
    """Rescues of one stream at most."""
