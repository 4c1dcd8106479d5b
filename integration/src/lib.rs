//! The lab around `vng`: a network of namespaces with real gateways, and traffic that measures them.
//!
//! - [`lab`]: the drawing, and [`lab::Lab`], which builds it; the place to start.
//! - [`host`]: a network namespace with links, addresses and routes. [`wire`]: the provider's wire;
//!   [`fault`]: what it does wrong. [`gateway`]: `vng run` as a process, and questions to it.
//! - [`traffic`]: ping, traceroute, TCP bulk, UDP packets counted or numbered, from sockets of our own.
//! - [`demo`]: the demo. [`compare`]: vng beside its peers. [`report`]: what reports are made of.
//!   [`standing`]: a lab that is left standing.
//! - [`peer`], [`program`]: implementations that are not ours, and other programs.
//! - [`config`], [`scratch`], [`process`]: the gateways' files and processes, which never outlive the lab.
//!   [`interrupt`]: the user's wish to stop.
//! - [`stage`]: what the stages of tests share. [`pair`]: two hosts face to face, for tests and comparisons.
//!   [`random`]: chance that is the same every time.
//!
//! Threads: one for each wire, one that starts processes, two that read each gateway's output, and those
//! of the traffic while it runs.

pub mod compare;
pub mod config;
pub mod demo;
pub mod error;
pub mod fault;
pub mod gateway;
pub mod host;
pub mod interrupt;
pub mod lab;
pub mod pair;
pub mod peer;
mod plan;
pub mod process;
pub mod program;
pub mod random;
pub mod report;
pub mod scratch;
pub mod stage;
pub mod standing;
pub mod traffic;
pub mod wire;

pub use error::Error;
