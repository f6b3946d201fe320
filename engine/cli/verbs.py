"""What the command line can do, and what its exit codes say."""

VERBS = {
    "run": "answer a workload (what happens without a verb)",
    "plan": "say what a run would do, without doing it",
    "check": "reach each target and say what was found",
    "schema": "print the JSON Schema of a group, or of the whole run",
    "simulate": "serve the simulated provider on loopback, for any client",
    "artifacts": "fetch models, get and put objects of S3 stores, look after the cache",
    "runs": "list, show, diff, report, resume, cancel, prune finished and stopped runs",
    "matrix": "build every model type small, run it on each hardware, and say what works",
    "bench": "measure the seed's rows, or what quantization does to a model",
    "completion": "print the completion script of bash, zsh or fish",
}
EXIT_CODES = {
    0: "everything was answered",
    1: "a defect of the engine",
    2: "the configuration is not valid; nothing was started",
    3: "finished, but some rows failed: see dead.jsonl (of a sweep: some cells failed)",
    4: "valid, but this machine can't do it: key, file, package, device",
    5: "the run directory can't be written or continued",
    6: "stalled: nothing was answered for output.stalled_s; the run can be resumed",
    7: "spent: the run has cost output.max_cost_usd; it can be resumed",
    130: "interrupted; the run can be resumed",
}
