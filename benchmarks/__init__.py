"""Studies: what we measured, for anyone to measure again. Outside the package, and tested with it."""
