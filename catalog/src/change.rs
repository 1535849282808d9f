//! Rows and what happens to them: the one batch type that flows through operators, commits and memtables.

use arrow::array::{Array, Int8Array, RecordBatch};

/// Kind of a row that is added.
pub const INSERT: i8 = 1;
/// Kind of a row that is taken away. An update is a delete followed at once by an insert, the old row first.
pub const DELETE: i8 = -1;

/// A batch of rows with the kind of each.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The rows.
    pub rows: RecordBatch,
    /// [`INSERT`] or [`DELETE`] for each row; `None` means that every row is an insert (append-only).
    pub kinds: Option<Int8Array>,
}

impl Changes {
    /// Rows that are all inserts.
    pub fn append(rows: RecordBatch) -> Self {
        Changes { rows, kinds: None }
    }

    /// Rows with their kinds; a kinds column of inserts alone is dropped.
    ///
    /// # Panics
    /// When the lengths differ: a broken invariant of the caller.
    pub fn new(rows: RecordBatch, kinds: Int8Array) -> Self {
        assert_eq!(rows.num_rows(), kinds.len(), "a kind for each row");
        let kinds = kinds.values().iter().any(|kind| *kind != INSERT).then_some(kinds);
        Changes { rows, kinds }
    }

    /// Number of rows, deletes included.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// Bytes held in memory by the arrays.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.kinds.as_ref().map_or(0, |k| k.get_array_memory_size())
    }
}
