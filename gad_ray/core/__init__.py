"""Pure functions of tensors: what the system computes. No config, no device, no logging, no I/O."""
