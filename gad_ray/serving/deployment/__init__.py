"""The application on Ray Serve: replicas, addresses, scaling, and the channel by which a run hands over its critics."""
