"""GAD-Ray: generative adversarial distillation of a text-only teacher, on Ray.

The package root imports nothing heavy: neither torch nor ray. Take what you need from the
submodules, e.g. ``from gad_ray.config import load_config``.
"""

__version__ = "0.1.0"
