//! What the reports of the lab's commands are made of: pages that need nothing else, charts, tables and
//! lines of progress.

pub mod chart;
pub(crate) mod page;
pub mod terminal;

use crate::error::Error;
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// What a report is written into.
const FILES: [&str; 2] = ["report.json", "report.html"];
/// A report is about so large, bytes.
const ROOM: usize = 256 * 1024;

/// Makes `directory`, if it is not there, and finds out whether a report can be written into it: before the
/// work, so that it is not lost after it.
///
/// # Errors
/// [`Error::Usage`]: another directory has to be named.
pub fn prepare(directory: &Path) -> Result<(), Error> {
    let try_it = || {
        fs::create_dir_all(directory)?;
        for name in FILES {
            match fs::OpenOptions::new()
                .append(true)
                .open(directory.join(name))
            {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut probe = tempfile::tempfile_in(directory)?;
        probe.write_all(&vec![0; ROOM])?;
        probe.sync_data()
    };
    try_it().map_err(|error| {
        let shown = directory.display();
        Error::Usage(format!("no report can be written into {shown}: {error}"))
    })
}

/// Writes `report.json` and `report.html` into `directory`, which is made if it is not there.
pub(crate) fn write(report: &impl Serialize, page: &str, directory: &Path) -> Result<(), Error> {
    let action = || Error::system(format!("write the report into {}", directory.display()));
    fs::create_dir_all(directory).map_err(action())?;
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Error::unexpected("a report", error.to_string()))?;
    let [data, shown] = FILES.map(|name| directory.join(name));
    fs::write(data, json + "\n").map_err(action())?;
    fs::write(shown, page).map_err(action())
}

/// Release of the kernel, as `uname -r` says it.
pub(crate) fn kernel() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel.trim().into()
}
