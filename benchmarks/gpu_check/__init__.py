"""What a GPU makes of the learners: the numbers of a CPU, and how fast."""
