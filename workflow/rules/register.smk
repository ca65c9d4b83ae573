rule register:
    """Write the product's data entries to the run document, in one atomic write."""
    input:
        "runs/{run}/{product}/stored.json",
    output:
        "runs/{run}/{product}/registered.json",
    log:
        "logs/{run}/{product}.register.log",
    benchmark:
        "benchmarks/{run}/{product}.register.tsv"
    priority: priority
    threads: cores("register")
    shell:
        "straxflow-step register {output} {log}"
