checkpoint claim:
    """Claim pending runs in the run database, newest first, at most `claim.max_runs`."""
    output:
        "batches/{batch}.json",
    log:
        "logs/batches/{batch}.log",
    benchmark:
        "benchmarks/batches/{batch}.tsv"
    shell:
        "straxflow-step claim {output} {log}"


rule rundoc:
    """Write the acquisition facts of a run from its document."""
    input:
        valid_run_id,
    output:
        "runs/{run}/run.json",
    log:
        "logs/{run}/rundoc.log",
    benchmark:
        "benchmarks/{run}/rundoc.tsv"
    shell:
        "straxflow-step rundoc {output} {log}"
