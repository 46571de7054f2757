"""DIR: MPI-IO of all kinds by the ranks that run this, each checking what the others wrote."""
import os, sys
import numpy as np
from mpi4py import MPI

world = MPI.COMM_WORLD
rank, size = world.rank, world.size
dir = sys.argv[1]
if rank == 0:
    os.makedirs(dir)
world.Barrier()


def opened(name):
    return MPI.File.Open(world, f"{dir}/{name}", MPI.MODE_CREATE | MPI.MODE_RDWR)


def told(f):
    f.Sync()
    world.Barrier()
    f.Sync()


def check(right, what):
    assert right, f"rank {rank}: {what}"


# Collective, interleaved blocks, three times over; read by the next rank, and by a plain read.
BLOCK, COUNT = 1000, 400
blocks = MPI.INT.Create_vector(COUNT, BLOCK, BLOCK * size).Commit()
mine = lambda of, turn: np.arange(BLOCK * COUNT, dtype="i4") + of * 10**7 + turn
f = opened("collective")
f.Set_view(rank * BLOCK * 4, MPI.INT, blocks)
for turn in range(3):
    f.Write_at_all(0, mine(rank, turn))
told(f)
of = (rank + 1) % size
f.Set_view(of * BLOCK * 4, MPI.INT, blocks)
found = np.empty(BLOCK * COUNT, dtype="i4")
f.Read_at_all(0, found)
check((found == mine(of, 2)).all(), "collective")
f.Close()
whole = np.fromfile(f"{dir}/collective", dtype="i4").reshape(COUNT, size, BLOCK)
check(all((whole[:, of].reshape(-1) == mine(of, 2)).all() for of in range(size)), "a plain read")

# Independent, columns of a matrix.
N = 512
columns = MPI.DOUBLE.Create_subarray([N, N], [N, N // size], [0, rank * (N // size)]).Commit()
f = opened("matrix")
f.Set_view(0, MPI.DOUBLE, columns)
f.Write(np.full((N, N // size), rank, dtype="f8") + np.arange(N)[:, None] * 10)
told(f)
f.Set_view(0, MPI.DOUBLE, MPI.DOUBLE)
found = np.empty((N, N))
f.Read_at(0, found)
check((found == np.repeat(np.arange(size), N // size)[None, :] + np.arange(N)[:, None] * 10).all(), "matrix")
f.Close()

# A file pointer that all share.
f = opened("shared")
for k in range(25):
    f.Write_shared(np.full(64, rank * 1000 + k, dtype="i4"))
told(f)
check(f.Get_size() == size * 25 * 256, f"shared: {f.Get_size()} bytes")
found = np.empty((size * 25, 64), dtype="i4")
f.Read_at(0, found)
check((found == found[:, :1]).all(), "shared: torn")
check(sorted(found[:, 0]) == sorted(of * 1000 + k for of in range(size) for k in range(25)), "shared: lost")
f.Close()
f = opened("ordered")
for k in range(10):
    f.Write_ordered(np.full(100, rank + k * size, dtype="i4"))
told(f)
found = np.empty(size * 1000, dtype="i4")
f.Read_at_all(0, found)
check((found == np.repeat(np.arange(10 * size), 100)).all(), "ordered")
f.Close()

# Atomic mode: whole writes or none, also of pieces with gaps.
M, AT = 300_000, 12345
f = opened("atomic")
f.Set_atomicity(True)
f.Write_at(AT, np.full(M, rank, dtype="u1"))
world.Barrier()
found = np.empty(M, dtype="u1")
for k in range(30):
    if rank % 2 == 0:
        f.Write_at(AT, np.full(M, (rank * 40 + k) % 255, dtype="u1"))
    else:
        f.Read_at(AT, found)
        check((found == found[0]).all(), "atomic: torn")
f.Close()
f = opened("pieces")
f.Set_atomicity(True)
f.Set_view(0, MPI.BYTE, MPI.BYTE.Create_vector(200, 500, 1000).Commit())
for k in range(5):
    f.Write_at(0, np.full(100_000, rank, dtype="u1"))
    world.Barrier()
    found = np.empty(100_000, dtype="u1")
    f.Read_at(0, found)
    check((found == found[0]).all(), "atomic pieces: torn")
    world.Barrier()
f.Close()

# Sizes.
f = opened("size")
for change, bytes in ((f.Set_size, 1 << 20), (f.Preallocate, 2 << 20), (f.Set_size, 1000)):
    change(bytes)
    world.Barrier()
    check(f.Get_size() == bytes, f"{f.Get_size()} bytes, not {bytes}")
    world.Barrier()
f.Write_at((3 << 20) + rank, np.full(1, rank + 1, dtype="u1"))
told(f)
check(f.Get_size() == (3 << 20) + size, f"{f.Get_size()} bytes at last")
f.Close()

# One writes, all others read it after a sync, a barrier and a sync.
f = opened("turns")
for k in range(40):
    if k % size == rank:
        f.Write_at(k * 1000, np.full(5000, k + 1, dtype="u1"))
    told(f)
    found = np.zeros(5000, dtype="u1")
    f.Read_at(k * 1000, found)
    check((found == k + 1).all(), f"turn {k}: {set(found.tolist())}")
    world.Barrier()
f.Close()

f = MPI.File.Open(world, f"{dir}/gone", MPI.MODE_CREATE | MPI.MODE_RDWR | MPI.MODE_DELETE_ON_CLOSE)
f.Write_at_all(rank * 100, np.zeros(100, dtype="u1"))
f.Close()
world.Barrier()
check(not os.path.exists(f"{dir}/gone"), "deleted on close")
