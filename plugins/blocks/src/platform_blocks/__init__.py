"""Block diffusion: text written block after block, each by any diffusion process."""
