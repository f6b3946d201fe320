"""The run spec: the whole validated configuration of one run."""

from pydantic import Field

from engine.schemas.base import Spec
from engine.schemas.hardware import HardwareSpec
from engine.schemas.media import MediaSpec
from engine.schemas.model import ModelSpec
from engine.schemas.output import OutputSpec
from engine.schemas.policy import PolicySpec
from engine.schemas.prompt import PromptSpec
from engine.schemas.provider import ProviderSpec
from engine.schemas.storage import StorageSpec
from engine.schemas.telemetry import TelemetrySpec
from engine.schemas.workload import WorkloadSpec


class TargetSpec(Spec):
    """Provider × model × hardware: something that can answer."""

    provider: ProviderSpec
    model: ModelSpec
    hardware: HardwareSpec

    @property
    def name(self) -> str:
        """provider/model, with the hardware where it matters."""
        where = f"@{self.hardware.kind}" if self.provider.kind == "local" else ""
        return f"{self.provider.name}/{self.model_id}{where}"

    @property
    def model_id(self) -> str:
        """The model's id at this provider."""
        return self.model.ids.get(self.provider.name, self.model.name)


class RunSpec(Spec):
    """The whole configuration of one run."""

    provider: ProviderSpec
    hardware: HardwareSpec
    model: ModelSpec
    fallbacks: tuple[TargetSpec, ...] = ()
    """Targets to try, in order, when the one before has failed for good."""
    policy: PolicySpec = PolicySpec()
    workload: WorkloadSpec
    prompt: PromptSpec = PromptSpec()
    media: MediaSpec = MediaSpec()
    output: OutputSpec = OutputSpec()
    storage: StorageSpec = StorageSpec()
    telemetry: TelemetrySpec = TelemetrySpec()
    seed: int = Field(0, ge=0)
    """Seed of every random choice that the engine makes."""

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The primary target and its fallbacks, in order."""
        primary = TargetSpec(provider=self.provider, model=self.model, hardware=self.hardware)
        return (primary, *self.fallbacks)
