"""Frozen kernels in few bits: codes and scales, turned back into numbers where they are used.

Why not qwix (0.1.8), which quantises modules from outside: it replaces a kernel on the module that a call meets. Layers
that are stacked and scanned are put together anew in each iteration of the scan, and what it replaces is dropped with
them: the stacked kernels stay float32, and int8 and nf4 are computed again in every forward pass without saving memory.
Its low-rank adapters add random generators to every module, whose scalars cannot be scanned. Its functions on arrays
(`qwix.quantize`, `qwix.einsum`) work, and agree with those here; products in training go through them, see
`quantized_product`.
"""
