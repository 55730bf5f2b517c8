"""Small experiments that show what the game does, and how it fails."""
