"""The controller with actors that compute nothing: what the exchange takes, and how far it scales.

Real are the controller and its files, the groups, the batches, Ray and the reward stage. Simulated are the engines and the
learners: they sleep for a given time, and several stand in one process where there are more than processes.
"""
