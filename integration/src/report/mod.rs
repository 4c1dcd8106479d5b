//! What the reports of the lab's commands are made of: pages that need nothing else, charts, tables and
//! lines of progress.

pub mod chart;
pub(crate) mod page;
pub(crate) mod terminal;

use crate::error::Error;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Writes `report.json` and `report.html` into `directory`, which is made if it is not there.
pub(crate) fn write(report: &impl Serialize, page: &str, directory: &Path) -> Result<(), Error> {
    let action = || Error::system(format!("write the report into {}", directory.display()));
    fs::create_dir_all(directory).map_err(action())?;
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Error::unexpected("a report", error.to_string()))?;
    fs::write(directory.join("report.json"), json + "\n").map_err(action())?;
    fs::write(directory.join("report.html"), page).map_err(action())
}

/// Release of the kernel, as `uname -r` says it.
pub(crate) fn kernel() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel.trim().into()
}
