//! Window arithmetic, pure: which windows a time is in. Used by the streaming operators and by bounded queries.
