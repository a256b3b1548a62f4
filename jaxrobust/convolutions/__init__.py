"""Fast convolutions on CPU, inside loops too, for any network, without touching the network.

Why this exists. XLA's CPU backend has a fast convolution for one layout only: images
`[n, *space, c]`, kernel `[*space, in, out]`. The gradients that JAX derives ask for others, with
the kernel's channels swapped, or with batch and channels swapped. At the top level of a program a
compiler pass inserts the transposes that put this right. It does not look inside loop bodies, so
there (PGD, a scanned training step) a scalar loop nest runs instead: 3 to 50 times slower for the
gradient of the images, 20 to 150 times for that of the kernel. The cure is to write the transposes
down. `_forms` holds the mathematics: one convolution, same value, derivatives in the fast layout.
`_rewrite` finds every convolution of a foreign function in its trace and puts that form in its
place. `_fast_on_cpu` is the switch. Nothing else of the function changes. `_winograd` has the form
of large 3x3 convolutions, `_compiler` options for an XLA whose own convolutions are slow.
"""

from jaxrobust.convolutions._compiler import compiler_options as compiler_options
from jaxrobust.convolutions._compiler import jit as jit
from jaxrobust.convolutions._fast_on_cpu import fast_on_cpu as fast_on_cpu
