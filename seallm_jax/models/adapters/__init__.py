"""Low-rank adapters on a frozen decoder, whose kernels may be quantised."""
