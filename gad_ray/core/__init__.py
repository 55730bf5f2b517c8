"""Pure functions of arrays: what the system computes. No device, no logging, no I/O; a variant has its settings beside it."""
