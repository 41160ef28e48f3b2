"""DUO: uniform-state diffusion, and the Gaussian diffusion behind it."""
