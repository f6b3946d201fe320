"""The verbs of the command line, and its exit codes."""

VERBS = {
    "run": "answer a workload (the verb that may be left out)",
    "plan": "show what a run or a sweep would do, without doing it",
    "check": "reach each target with each key",
    "schema": "print the JSON Schema of a group, or of the whole run",
    "plugins": "list the installed kinds of each port, and where they come from",
    "simulate": "serve the simulated provider on loopback, for any client",
    "artifacts": "fetch models, get and put objects of S3 stores, look after the cache",
    "runs": "list, show, compare, report, resume, cancel and prune earlier runs",
    "matrix": "build every model type small and run it on each hardware",
    "bench": "measure the seed's rows, or what quantization does to a model",
    "completion": "print the completion script of bash, zsh or fish",
}
"""Verb → summary. The module of a verb is `engine.cli.VERB`; it has `COMMAND` or `COMMANDS` (engine.cli.command)."""
EXIT_CODES = {
    0: "success: every row was answered",
    1: "a defect of the engine",
    2: "the configuration is not valid; nothing was started",
    3: "finished, but some rows failed: see dead.jsonl (of a sweep: some cells failed)",
    4: "valid, but this machine can't do it: key, file, package, device",
    5: "the run directory can't be written or continued",
    6: "stalled: no progress for output.stalled_s; the run can be resumed",
    7: "spent: the run has cost output.max_cost_usd; it can be resumed",
    130: "interrupted; the run can be resumed",
}
