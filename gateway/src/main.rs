//! The program `vng`.

#[global_allocator]
static ALLOCATOR: gateway::device::pages::LargePages = gateway::device::pages::LargePages;

fn main() -> std::process::ExitCode {
    gateway::cli::main(std::env::args_os())
}
