"""A step of the game beside a step of a peer's."""
