"""The HTTP application: requests, batches, forward passes and versions of the critic. It knows nothing of Ray."""
