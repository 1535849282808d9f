//! paimon
