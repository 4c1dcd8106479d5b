//! The whole pipeline in memory, every way, size and SKU: what `cargo bench` ends with.
//!
//!     cargo bench -p benches --bench sku [-- --quick]
//!
//! It prints the table and writes it, as text and JSON with pictures, to `sku-table` in the target directory.

use benches::sku::Failure;
use benches::sku::rate::{Effort, measure};
use benches::sku::report::Report;
use std::io::{IsTerminal, stderr};
use std::path::Path;

/// As in the program: what is large lies in large pages.
#[global_allocator]
static ALLOCATOR: gateway::device::pages::LargePages = gateway::device::pages::LargePages;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |option: &str| arguments.iter().any(|argument| argument == option);
    // Criterion's benchmarks are chosen by parts of their names; this one's is "sku".
    let mut names = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    if names.peek().is_some() && !names.any(|name| "sku".contains(name.as_str())) {
        return Ok(());
    }
    // Without the option that cargo bench gives it is run as a test.
    let effort = match (given("--bench"), given("--quick")) {
        (false, _) => Effort::TINY,
        (true, true) => Effort::QUICK,
        (true, false) => Effort::FULL,
    };
    let progress = stderr().is_terminal();
    let rates = measure(effort, |way, size, form| {
        if progress {
            eprintln!("{}, {}, {form:?}", way.name(), size.name());
        }
    })?;
    let report = Report::new(rates, effort);
    println!("\n{}", report.text());
    if given("--bench") {
        // The compiler's own scratch directory lies in the target directory.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sku-table");
        report.write(&directory)?;
        println!("Written to {}", directory.display());
    }
    Ok(())
}
