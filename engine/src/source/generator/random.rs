//! Random numbers as a function of (seed, event, field): no state, so any event can be made on its own.

const GOLD: u64 = 0x9E37_79B9_7F4A_7C15;
const M1: u64 = 0xBF58_476D_1CE4_E5B9;
const M2: u64 = 0x94D0_49BB_1331_11EB;

/// The finaliser of splitmix64.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(M1);
    let x = (x ^ (x >> 27)).wrapping_mul(M2);
    x ^ (x >> 31)
}

/// The draws of one event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    key: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64, event: u64) -> Self {
        Draws { key: mix(event.wrapping_mul(GOLD).wrapping_add(seed)) }
    }

    pub(crate) fn bits(self, field: u64) -> u64 {
        mix(self.key.wrapping_add(field.wrapping_mul(M2)).wrapping_add(GOLD))
    }

    /// Uniform below `bound`, which is less than 2^31.
    pub(crate) fn below(self, field: u64, bound: u64) -> u64 {
        ((self.bits(field) >> 32) * bound) >> 32
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(self, field: u64) -> f64 {
        (self.bits(field) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with the given chance.
    pub(crate) fn chance(self, field: u64, chance: f64) -> bool {
        self.unit(field) < chance
    }
}
