//! Continuous queries: a logical plan becomes operators of the engine.

use catalog::ObjectId;
use engine::plan::SourceNode;

use super::provider::Names;
use crate::{Continuous, Error, Result, Statement};

pub(crate) fn plan(names: &Names<'_>, id: ObjectId, statement: &Statement) -> Result<Continuous> {
    let _ = (names, id, statement);
    Err(Error::new("0A000", "not there yet"))
}

pub(crate) fn stored(id: ObjectId, source: SourceNode) -> Result<Continuous> {
    let _ = (id, source);
    Err(Error::new("0A000", "not there yet"))
}

pub(crate) fn explain(continuous: &Continuous) -> String {
    format!("{continuous:?}")
}
