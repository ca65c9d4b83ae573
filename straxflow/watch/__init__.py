"""`straxflow watch`: bounded snakemake invocations, one after another and side by side, for months without a person."""
