"""A teacher with two modes and a student with one: what SeqKD covers and the game seeks."""
