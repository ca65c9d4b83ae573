"""The steps of a run: each module has the work of one, `step` says how it is run."""
