"""The critic over HTTP: scores by the path of training, behind a Ray Serve application that is safe to expose."""
