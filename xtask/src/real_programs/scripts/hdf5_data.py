"""DIR OTHER: makes a.h5 in DIR, of several kinds of datasets; and has a reader follow a writer (SWMR) through OTHER."""
import os, subprocess, sys, time
import h5py, numpy as np

FOLLOW = """
import h5py, sys, time
f = h5py.File(sys.argv[1], "r", libver="latest", swmr=True)
d, seen, end = f["d"], 0, time.monotonic() + 60
while seen < int(sys.argv[2]):
    assert time.monotonic() < end, f"only {seen} rows came"
    d.refresh()
    now = d.shape[0]
    if now > seen:
        assert (d[seen:now] == range(seen, now)).all(), f"rows {seen} to {now} are wrong"
        seen = now
"""
ROWS = 1000

here, other = sys.argv[1:]
os.makedirs(here)
rng = np.random.default_rng(1)
with h5py.File(f"{here}/a.h5", "w") as f:
    f.create_dataset("g/plain", data=rng.standard_normal((1000, 2000)))
    f.create_dataset("g/packed", data=rng.integers(0, 1 << 30, (100, 200, 50), dtype="i4"), chunks=(10, 20, 50),
                     compression="gzip", shuffle=True, fletcher32=True)
    grows = f.create_dataset("g/grows", shape=(0, 100), maxshape=(None, 100), chunks=(64, 100), dtype="f8")
    for i in range(100):
        grows.resize((i * 16 + 16, 100))
        grows[i * 16:i * 16 + 16] = i
    f["g"].attrs["x"] = np.arange(1000)

with h5py.File(f"{here}/followed.h5", "w", libver="latest") as f:
    d = f.create_dataset("d", shape=(0,), maxshape=(None,), chunks=(100,), dtype="i8")
    f.swmr_mode = True
    reader = subprocess.Popen([sys.executable, "-c", FOLLOW, f"{other}/followed.h5", str(ROWS)])
    for i in range(ROWS):
        d.resize((i + 1,))
        d[i] = i
        d.flush()
    assert reader.wait() == 0, "the reader failed"
