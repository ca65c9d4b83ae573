"""The run database: touched by snakemake's main process and its local rules only."""
