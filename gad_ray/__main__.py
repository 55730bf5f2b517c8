"""``python -m gad_ray``: the same as ``gad-ray``."""

from gad_ray.cli import main

if __name__ == "__main__":
    main()
