//! What a gateway does to the machine it runs on: kernel routes, settings of interfaces, neighbours. What
//! the machine had before it has again afterwards, and what others change meanwhile is put back or said.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod idle;
mod neighbor;
mod routes;
mod settings;
mod stage;
