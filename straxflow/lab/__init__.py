"""Throwaway real parts for the demo and the tests: run database, sshd, Slurm and a simulated DAQ."""
