rule transfer:
    """Bring the live data in by rsync, compare every file with the sender's digest, check its format."""
    input:
        valid_run_id,
    output:
        "runs/{run}/live/transferred.json",
    log:
        "logs/{run}/live.transfer.log",
    benchmark:
        "benchmarks/{run}/live.transfer.tsv"
    priority: priority
    threads: cores("transfer")
    resources:
        **partition("transfer"),
        mem_mb=resource("transfer", "mem_mb"),
        runtime=resource("transfer", "runtime_min"),
        transfers=1,
    shell:
        "straxflow-step transfer {output} {log} {threads}"


rule register_live:
    """Register the arrived copy, so that the DAQ's own cleaners see it."""
    input:
        "runs/{run}/live/transferred.json",
    output:
        "runs/{run}/live/registered.json",
    log:
        "logs/{run}/live.register.log",
    benchmark:
        "benchmarks/{run}/live.register.tsv"
    priority: priority
    threads: cores("register_live")
    shell:
        "straxflow-step register_live {output} {log}"
