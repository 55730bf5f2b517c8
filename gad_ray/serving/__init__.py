"""The critic over HTTP: an application that scores, and its deployment on Ray Serve. Clients are in ``gad_ray.client``."""
