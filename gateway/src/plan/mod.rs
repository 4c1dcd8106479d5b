//! The plan: what a configuration means for the data path, before any device is opened.
//!
//! 1. Circuits, then sites, become owners; links, then tunnels, become paths and ledger ports.
//! 2. Prefixes and user-defined routes become route candidates, the policy table its rules.
//! 3. The snapshot is built with the paths' health as it is, so that a reload never shows a wrong word.

mod change;
mod layout;
mod path;

pub use path::{Origin, PathPlan};
pub(crate) mod difference;
pub mod forwarding;
pub(crate) mod limit;

use crate::config::schema::Config;
use crate::plan::change::changes;
use crate::plan::layout::Layout;
use ipnet::IpNet;
use routing::health::Usability;
use routing::path::PathId;
use routing::rib::RouteSource;
use routing::snapshot::{BuildError, Snapshot};
use std::fmt;
use std::mem;
use std::num::NonZeroU32;
use std::sync::Arc;

/// What a configuration means for the data path.
#[derive(Clone, Debug)]
pub struct Plan {
    /// ExpressRoute links in file order, then sites in file order, then the clients' path. What reloads have
    /// added comes behind that.
    pub paths: Vec<PathPlan>,
    /// Names of the ledger's ports: `vnet`, `local`, `underlay`, then the paths.
    pub ports: Vec<String>,
    /// The forwarding state.
    pub snapshot: Arc<Snapshot>,
    /// Prefixes that kernel routes through the device are wanted for: those whose active route leads to
    /// a path, without the links' own subnets. Empty without `vnet.host_routes`.
    pub host_routes: Vec<IpNet>,
}

/// Why there is no plan. A validated configuration does not get here by its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// A rule or route names a circuit or site that the file does not have.
    UnknownPath {
        /// The rule or route.
        by: String,
        /// The name that it gives.
        name: String,
    },
    /// A route has a next hop that says too little.
    NextHop {
        /// The route.
        by: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More of something than the forwarding state holds.
    Build(BuildError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPath { by, name } => {
                write!(
                    formatter,
                    "{by} names {name}, which is neither a circuit nor a site"
                )
            }
            Self::NextHop { by, why } => write!(formatter, "{by} {why}"),
            Self::Build(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for PlanError {}

impl From<BuildError> for PlanError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl Plan {
    /// Makes the plan of a validated configuration. `generation` tells its snapshot from all before it
    /// in this process; `usability` is what flows may do with each path now.
    ///
    /// # Errors
    /// A name that is not there, or more of something than fits.
    pub fn new(
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        Self::with_places(&[], config, generation, usability)
    }

    /// The same after a reload: a path that was there keeps its id, whatever comes before it in the file now.
    ///
    /// # Errors
    /// [`PlanError`]: a rule or route names what the file does not have, a next hop says too little, or there is
    /// more of something than the forwarding state holds.
    pub fn after(
        &self,
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        Self::with_places(&self.paths, config, generation, usability)
    }

    fn with_places(
        places: &[PathPlan],
        config: &Config,
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Self, PlanError> {
        let layout = Layout::new(config, places);
        let builder = layout.builder(config, generation)?;
        let paths = layout.paths;
        let snapshot = builder.build(|id| {
            paths
                .get(usize::from(id.0))
                .map_or(Usability::None, &usability)
        })?;
        Ok(Self::of(config, paths, snapshot))
    }

    /// The plan after a change of the configuration from `old`, which this plan is of, to `new`, where only
    /// routes differ; `None` where more does. It shares what stays, and takes milliseconds however many
    /// routes there are.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn with_routes(
        &self,
        (old, new): (&Config, &Config),
        generation: NonZeroU32,
        usability: impl Fn(&PathPlan) -> Usability,
    ) -> Result<Option<Self>, PlanError> {
        let mut before = Layout::new(old, &self.paths).builder(old, generation)?;
        let layout = Layout::new(new, &self.paths);
        let mut after = layout.builder(new, generation)?;
        let changes = changes(
            &mem::take(&mut before.routes),
            &mem::take(&mut after.routes),
        );
        if before != after || self.paths != layout.paths {
            return Ok(None);
        }
        let snapshot = self.snapshot.with_routes(generation, &changes, |id| {
            self.paths
                .get(usize::from(id.0))
                .map_or(Usability::None, &usability)
        })?;
        Ok(Some(Self::of(new, layout.paths, snapshot)))
    }

    fn of(config: &Config, paths: Vec<PathPlan>, snapshot: Snapshot) -> Self {
        let host_routes = if config.vnet.host_routes {
            host_routes(&snapshot)
        } else {
            Vec::new()
        };
        Self {
            ports: port_names(&paths),
            paths,
            snapshot: Arc::new(snapshot),
            host_routes,
        }
    }

    /// The words of the path groups for this health of the paths, in the order of the groups' ids.
    /// [`Snapshot::update`] writes them.
    pub fn words(&self, usability: impl Fn(PathId) -> Usability) -> Vec<u64> {
        let usability = self.snapshot.usability(usability);
        let groups = self.snapshot.groups();
        groups.iter().map(|group| group.word(&usability)).collect()
    }

    /// The path of this name.
    pub fn path_named(&self, name: &str) -> Option<&PathPlan> {
        self.live().find(|path| path.name == name)
    }

    /// The paths of the configuration, without those that are gone.
    pub fn live(&self) -> impl Iterator<Item = &PathPlan> {
        self.paths.iter().filter(|path| path.origin != Origin::Gone)
    }
}

fn port_names(paths: &[PathPlan]) -> Vec<String> {
    let fixed = ["vnet", "local", "underlay"].map(str::to_owned);
    let paths = paths.iter().map(|path| path.name.clone());
    fixed.into_iter().chain(paths).collect()
}

fn host_routes(snapshot: &Snapshot) -> Vec<IpNet> {
    let rib = snapshot.rib();
    let to_paths = rib.routes().filter_map(|same| {
        let candidate = same.first()?.candidate;
        let wanted =
            snapshot.group_of(same).is_some() && candidate.source != RouteSource::Connected;
        wanted.then_some(candidate.prefix)
    });
    to_paths.collect()
}

#[cfg(test)]
mod tests;
