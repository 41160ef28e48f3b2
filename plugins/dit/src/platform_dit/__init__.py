"""The diffusion transformer (DiT) as a backbone."""
