"""seallm_jax: adapt open language models to Southeast Asian and other low-resource languages, on one JAX mesh."""

__version__ = "0.1.0"
