"""DIR OTHER: arrays mapped into memory, changed here and there, grown, saved; read back by maps, by reads, and in OTHER."""
import os, sys
import numpy as np

here, other = sys.argv[1:]
os.makedirs(here)
os.chdir(here)
rng = np.random.default_rng(2)
want = rng.standard_normal((2048, 2048))
m = np.memmap("m", dtype="f8", mode="w+", shape=want.shape)
m[:] = want
m.flush()
rows = rng.integers(0, 2048, 500)
for a in (m, want):
    a[rows, 7] = 3.25
    a[:, 100:200] *= 2
m.flush()
del m
m = np.memmap(f"{other}/m", dtype="f8", mode="r+", shape=want.shape)
assert (m == want).all(), "the other mount maps something else"
for a in (m, want):
    a[::7] += 1
m.flush()
del m
assert (np.fromfile("m", dtype="f8").reshape(want.shape) == want).all(), "what the other mount's map wrote is not read"

own = np.memmap("m", dtype="f8", mode="c", shape=want.shape)
own[0] = 0
assert (np.fromfile("m", dtype="f8", count=2048) == want[0]).all(), "a private map wrote to the file"
del own

STEP = 1_000_003
for k in range(5):
    m = np.memmap("grows", dtype="u4", mode="r+" if k else "w+", shape=((k + 1) * STEP,))
    m[k * STEP:] = np.arange(STEP) + k
    del m
grown = np.fromfile(f"{other}/grows", dtype="u4").reshape(5, STEP)
assert all((grown[k] == np.arange(STEP) + k).all() for k in range(5)), "a file that grew under its maps"

np.save("a.npy", want)
assert (np.load(f"{other}/a.npy", mmap_mode="r") == want).all(), "a.npy"
np.savez_compressed("z.npz", a=want[:200], b=rows)
z = np.load(f"{other}/z.npz")
assert (z["a"] == want[:200]).all() and (z["b"] == rows).all(), "z.npz"
