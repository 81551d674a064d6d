"""Pipelines of diffusers and judges of their latents: loading, encoding, sampling, saving."""
