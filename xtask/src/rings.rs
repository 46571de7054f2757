//! Has the kernel offer mounts their requests over `io_uring` while something is measured, as an operator would for good.

use std::{fs, io};

const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// While it lives, new mounts are offered that.
pub struct Offered {
    former: String,
}

/// `None`, and why is printed: the kernel cannot, or not for this user.
pub fn offer() -> Option<Offered> {
    let offer = || {
        let former = fs::read_to_string(PARAMETER)?;
        fs::write(PARAMETER, "Y")?;
        Ok::<_, io::Error>(Offered { former })
    };
    offer().inspect_err(|error| println!("mounts read the device: {PARAMETER}: {error}")).ok()
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Err(error) = fs::write(PARAMETER, self.former.trim()) {
            eprintln!("{PARAMETER} stays as it is: {error}");
        }
    }
}
