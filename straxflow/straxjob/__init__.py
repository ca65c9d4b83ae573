"""Run strax for one run and one product, in whatever Python has strax (standard library and strax only)."""
