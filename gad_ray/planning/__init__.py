"""What a run will take before it is started: seconds of a step, hours, memory, from a cost model that a run calibrates."""
