//! The configuration file: one TOML file, every error of it reported at once.

pub mod schema;
