//! The program `vng-lab`.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = integration::process::run_as_gateway(&arguments) {
        return code;
    }
    ExitCode::from(2)
}
