"""Forward, backward and step on one rank. No ray import: learners run wherever torch runs."""
