"""MDLM: masked diffusion, its closed-form bound and its samplers."""
