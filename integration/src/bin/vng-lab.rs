//! The program `vng-lab`.
fn main() {}
