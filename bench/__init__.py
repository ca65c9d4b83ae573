"""Speed and memory of straxflow against plain tools, side by side in the same run: `python -m bench`."""
