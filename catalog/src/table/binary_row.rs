//! Paimon's binary rows.

use serde::{Deserialize, Serialize};

/// A row in the form it has inside Avro: field count, then header, slots and variable part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct BinaryRow(Vec<u8>);
