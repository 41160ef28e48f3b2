"""D3PM: discrete diffusion in T steps, absorbing or uniform."""
