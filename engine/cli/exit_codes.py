"""The exit codes of the command line."""

EXIT_CODES = {
    0: "success: every row was answered",
    1: "a defect of the engine",
    2: "the command line or the configuration is not valid; nothing was started",
    3: "finished, but some rows failed: see dead.jsonl (of a sweep: some cells failed)",
    4: "valid, but this machine can't do it: key, file, package, device",
    5: "the run directory can't be written or continued",
    6: "stalled: no progress for output.stalled_s; the run can be resumed",
    7: "spent: the run has cost output.max_cost_usd; it can be resumed",
    130: "interrupted; the run can be resumed",
}
