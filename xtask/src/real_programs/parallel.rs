//! What scientists run: HDF5, `NumPy`, MPI-IO; by scripts that hold what they read against what they wrote.

use super::{Cluster, PROGRAM_WITHIN};
use crate::{
    deps::PYTHON,
    run::{self, Outcome},
};
use std::path::{Path, PathBuf};

pub fn hdf5(c: &Cluster) -> Outcome {
    python(c, PYTHON.as_ref(), "hdf5")?;
    c.run("h5repack -f GZIP=3 -l CHUNK=100x200 @/hdf5/a.h5 @/hdf5/packed.h5")?;
    c.run("h5copy -i @/hdf5/a.h5 -o @/hdf5/copied.h5 -s /g -d /g")?;
    c.run("h5repack -S PAGE @/hdf5/a.h5 &/hdf5/paged.h5")?;
    for other in ["@/hdf5/packed.h5", "&/hdf5/copied.h5", "@/hdf5/paged.h5"] {
        c.run(&format!("h5diff @/hdf5/a.h5 {other}"))?;
    }
    c.run("rm -r @/hdf5")
}

/// A file dealt to many small ones and put together again, in steps of 1 KiB.
pub fn h5repart(c: &Cluster) -> Outcome {
    python(c, PYTHON.as_ref(), "hdf5")?;
    let (whole, parts) = (c.mnt().join("hdf5/a.h5"), c.mnt().join("hdf5/part%03d.h5"));
    let joined = c.local().join("joined.h5");
    run::run_within(c.command("h5repart").args(["-m", "1m"]).arg(&whole).arg(&parts), PROGRAM_WITHIN)?;
    run::run_within(c.command("h5repart").args(["-m", "1g"]).arg(&parts).arg(&joined), PROGRAM_WITHIN)?;
    c.run("h5diff @/hdf5/a.h5 %/joined.h5")?;
    c.run("rm %/joined.h5")?;
    c.run("rm -r @/hdf5")
}

pub fn numpy(c: &Cluster) -> Outcome {
    python(c, PYTHON.as_ref(), "numpy")?;
    c.run("rm -r @/numpy")
}

/// Four ranks, two of them on the other mount, which they find under the path of the first. By ROMIO: of Open MPI's own
/// component neither atomic mode nor a size set smaller works, on no file system.
pub fn mpi_io(c: &Cluster) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("          not root: MPI-IO from two mounts needs mounts of its own, and was not run");
        return Ok(());
    }
    let mut mpirun = c.command("mpirun");
    mpirun
        .args("--allow-run-as-root --oversubscribe --quiet -n 4 --mca io romio321 --mca pml ob1".split(' '));
    mpirun.args(["--mca", "btl", "self,vader", "sh"]).arg(script("on-two-mounts.sh"));
    mpirun.arg(c.mnt()).arg(c.other()).args([PYTHON, "-m", "mpi4py"]).arg(script("mpi_io.py"));
    run::run_within(mpirun.arg(c.mnt().join("mpi")), PROGRAM_WITHIN)?;
    c.run("rm -r @/mpi")
}

/// Runs a script in a directory of its name, which it finds on two mounts.
pub fn python(c: &Cluster, python: &Path, name: &str) -> Outcome {
    let mut command = c.command(python);
    command.arg(script(&format!("{name}_data.py"))).arg(c.mnt().join(name)).arg(c.other().join(name));
    run::run_within(&mut command, PROGRAM_WITHIN)
}

fn script(name: &str) -> PathBuf {
    run::root().join("xtask/src/real_programs/scripts").join(name)
}
