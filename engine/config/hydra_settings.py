"""Hydra's own settings: which this engine follows, and what does the same here for those that it does not."""

from __future__ import annotations

FOLLOWED = "hydra.searchpath"
"""The only setting of Hydra that is followed, in config.yaml and on the command line."""
_SAME_HERE = {
    "hydra.run.dir": "output.dir=PATH names a run's directory, output.root=PATH the folder of all of them",
    "hydra.sweep.dir": "output.root=PATH names the folder of a sweep, which is PATH/sweeps/ID",
    "hydra.sweep.subdir": "output.root=PATH names the folder of a sweep; its cells are numbered",
    "hydra.output_subdir": "a run's directory has the composed configuration in config.yaml, always",
    "hydra.job.chdir": "a run stays in the working directory; output.dir=PATH names its directory",
    "hydra.job.name": "output.dir=PATH names a run's directory",
    "hydra.job.env_set": "set the variables before the command: NAME=VALUE python -m engine …",
    "hydra.job.env_copy": "set the variables before the command: NAME=VALUE python -m engine …",
    "hydra.job_logging": "telemetry.log_level=LEVEL is the level of run.log",
    "hydra.hydra_logging": "telemetry.log_level=LEVEL is the level of run.log",
    "hydra.verbose": "telemetry.log_level=debug writes more to run.log",
    "hydra.mode": "-m runs a sweep",
    "hydra.launcher": "-m runs the cells of a sweep one after another; policy.queue.concurrency=N runs N rows at once",
    "hydra.sweeper": "-m with KEY=A,B runs every combination of the values",
    "hydra.callbacks": "no code is run from configuration; the library (docs/library.md) is for code of your own",
    "hydra.help": "--help shows the help",
    "hydra.hydra_help": "--help shows the help",
    "hydra.env": "choose options in config.yaml of a folder: --config-dir DIR",
}
"""By setting, longest match first: the sentence that names what does the same here."""


def refusal(setting: str, value: str = "") -> str:
    """Returns the error for a setting of Hydra, such as `hydra.run.dir` or `hydra/launcher`."""
    name = setting.lstrip("+~").replace("/", ".").partition("@")[0]
    matches = [known for known in _SAME_HERE if name == known or name.startswith(f"{known}.")]
    matches = matches or [known for known in _SAME_HERE if known.startswith(f"{name}.")]
    instead = _SAME_HERE[max(matches, key=len)] if matches else "leave it out; see docs/cli.md"
    got = f"{value}, " if value else ""
    return f"{setting}: got {got}a setting of Hydra that has no effect here; expected only {FOLLOWED}. Fix: {instead}"
