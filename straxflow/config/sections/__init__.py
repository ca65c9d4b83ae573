"""The sections of the configuration, by theme; config/model.py puts them together."""
