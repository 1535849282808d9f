//! The dictionary that frames are compressed with, trained on the events of the log.

use engine::source::generator::bluesky::Generator;

const DICTIONARY_BYTES: usize = 65_536;
const SAMPLES: u64 = 2_000;

/// A dictionary for the generator's events.
pub(super) fn train(generator: &Generator) -> std::io::Result<Vec<u8>> {
    let samples: Vec<String> = (0..SAMPLES).map(|number| generator.at(number).v2()).collect();
    zstd::dict::from_samples(&samples, DICTIONARY_BYTES)
}

/// The number in a dictionary's head.
pub(super) fn id(dictionary: &[u8]) -> u32 {
    dictionary.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}
