//! What a command prints. Who reads may have gone (`pvfs status | head -1`): that is no reason to panic.

use crate::error::CliError;
use std::{fmt::Display, io::Write as _};

/// Prints what was asked for, and tells when nobody reads any more.
pub fn write(text: impl Display) -> Result<(), CliError> {
    write!(std::io::stdout(), "{text}").map_err(|source| CliError::Output { source })
}

/// The same, as a line.
pub fn line(text: impl Display) -> Result<(), CliError> {
    write(format_args!("{text}\n"))
}

/// A line on what goes on. The work goes on too when nobody reads it.
pub fn tell(text: impl Display) {
    let _ = line(text);
}
