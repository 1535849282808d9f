//! Paimon's binary rows: partitions, keys and bounds inside manifests, and the hash that chooses a bucket.
//!
//! ```text
//! wire form   field count (4 bytes, big-endian) | body
//! body        row kind 0, null bits (field i is bit i + 8) | a slot of 8 bytes for each field | variable part
//! ```
//! Everything in the body is little-endian; items of the variable part are padded to 8 bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A row in its wire form. Serialised as hexadecimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BinaryRow(Vec<u8>);

/// The value of one field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    /// No value, for types that then leave nothing in the variable part.
    Null,
    /// Numbers, booleans, dates, DECIMAL up to 18 digits, TIMESTAMP up to milliseconds: the low bytes.
    Fixed([u8; 8]),
    /// STRING and BYTES.
    Bytes(Vec<u8>),
    /// DECIMAL of more than 18 digits; reserves its place even when null.
    WideDecimal(Option<i128>),
    /// TIMESTAMP finer than milliseconds, in microseconds; reserves its place even when null.
    Micros(Option<i64>),
}

impl Slot {
    /// A signed number of up to 8 bytes: written as its own width, the rest zero.
    pub(crate) fn integer<const N: usize>(bytes: [u8; N]) -> Slot {
        let mut slot = [0; 8];
        slot[..N].copy_from_slice(&bytes);
        Slot::Fixed(slot)
    }
}

impl Default for BinaryRow {
    /// The row without fields.
    fn default() -> Self {
        BinaryRow::of(&[])
    }
}

impl BinaryRow {
    /// A row of these fields.
    pub(crate) fn of(slots: &[Slot]) -> BinaryRow {
        const PREFIX: usize = 4;
        let header = (slots.len() + 63 + 8) / 64 * 8;
        let fixed = PREFIX + header + slots.len() * 8;
        let mut wire = vec![0; fixed];
        wire[..PREFIX].copy_from_slice(&(slots.len() as u32).to_be_bytes());
        for (index, slot) in slots.iter().enumerate() {
            if matches!(slot, Slot::Null | Slot::WideDecimal(None) | Slot::Micros(None)) {
                let bit = index + 8;
                wire[PREFIX + bit / 8] |= 1 << (bit % 8);
            }
            let offset = (wire.len() - PREFIX) as u64;
            let value = match slot {
                Slot::Null => [0; 8],
                Slot::Fixed(value) => *value,
                Slot::Bytes(bytes) if bytes.len() <= 7 => {
                    let mut value = [0; 8];
                    value[..bytes.len()].copy_from_slice(bytes);
                    value[7] = 0x80 | bytes.len() as u8;
                    value
                }
                Slot::Bytes(bytes) => {
                    wire.extend_from_slice(bytes);
                    wire.resize(PREFIX + offset as usize + bytes.len().next_multiple_of(8), 0);
                    (offset << 32 | bytes.len() as u64).to_le_bytes()
                }
                Slot::WideDecimal(decimal) => {
                    let bytes = decimal.map(shortest_big_endian).unwrap_or_default();
                    wire.extend_from_slice(&bytes);
                    wire.resize(PREFIX + offset as usize + 16, 0);
                    (offset << 32 | bytes.len() as u64).to_le_bytes()
                }
                Slot::Micros(micros) => {
                    let micros = micros.unwrap_or(0);
                    wire.extend_from_slice(&micros.div_euclid(1000).to_le_bytes());
                    (offset << 32 | (micros.rem_euclid(1000) as u64 * 1000)).to_le_bytes()
                }
            };
            let at = PREFIX + header + index * 8;
            wire[at..at + 8].copy_from_slice(&value);
        }
        BinaryRow(wire)
    }

    /// A row read from a manifest.
    pub(crate) fn from_wire(wire: Vec<u8>) -> BinaryRow {
        BinaryRow(wire)
    }

    /// As it stands in a manifest.
    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.0
    }
}

/// Two's complement without needless leading bytes, as Java's `BigInteger.toByteArray`.
fn shortest_big_endian(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let mut start = 0;
    while start < 15 && bytes[start] == sign && (bytes[start + 1] ^ sign) & 0x80 == 0 {
        start += 1;
    }
    bytes[start..].to_vec()
}

impl Serialize for BinaryRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let hex: String = self
            .0
            .iter()
            .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
            .map(char::from)
            .collect();
        serializer.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for BinaryRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let invalid = || serde::de::Error::custom("a binary row is pairs of hexadecimal digits");
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8).ok_or_else(invalid);
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if !rest.is_empty() {
            return Err(invalid());
        }
        pairs.iter().map(|[high, low]| Ok(digit(*high)? << 4 | digit(*low)?)).collect::<Result<_, _>>().map(BinaryRow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// murmur3-32 with seed 42 over 4-byte words: what Paimon's writers choose a bucket by.
    fn murmur(body: &[u8]) -> i32 {
        let mut hash: u32 = 42;
        for word in body.as_chunks::<4>().0 {
            let mixed = u32::from_le_bytes(*word).wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
            hash = (hash ^ mixed).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
        }
        hash ^= body.len() as u32;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        (hash ^ (hash >> 16)) as i32
    }

    #[test]
    fn rows_equal_those_of_java() {
        let text = |text: &str| Slot::Bytes(text.as_bytes().to_vec());
        let millis = 1_715_648_523_456_i64;
        let cases: Vec<(Vec<Slot>, &str, i32)> = vec![
            (vec![Slot::integer(1_i64.to_le_bytes())], "00000000000000000100000000000000", 1_465_514_398),
            (vec![Slot::integer((-5_i64).to_le_bytes())], "0000000000000000fbffffffffffffff", -716_660_054),
            (vec![Slot::integer(7_i32.to_le_bytes())], "00000000000000000700000000000000", -348_168_691),
            (vec![text("abcdefg")], "00000000000000006162636465666787", -1_431_907_323),
            (vec![text("abcdefgh")], "000000000000000008000000100000006162636465666768", -843_760_178),
            (vec![text("")], "00000000000000000000000000000080", 302_122_119),
            (vec![Slot::Null], "00010000000000000000000000000000", -1_748_325_344),
            (
                vec![Slot::integer(42_i64.to_le_bytes()), text("abcdefgh")],
                "00000000000000002a0000000000000008000000180000006162636465666768",
                -320_926_808,
            ),
            (vec![Slot::integer(millis.to_le_bytes())], "0000000000000000c0ec9e748f010000", 518_192_047),
            (vec![Slot::Micros(Some(millis * 1000 + 789))], "0000000000000000080a0c0010000000c0ec9e748f010000", -1_508_629_575),
            (vec![Slot::Micros(None)], "000100000000000000000000100000000000000000000000", -340_882_661),
            (vec![Slot::integer(1334_i64.to_le_bytes())], "00000000000000003605000000000000", 2_067_032_456),
            (
                vec![Slot::WideDecimal(Some(-12_345_678_901_312_345))],
                "00000000000000000700000010000000d423aba29384a7000000000000000000",
                -1_646_666_036,
            ),
            (
                vec![Slot::integer([1]), Slot::integer(1.5_f64.to_le_bytes())],
                "00000000000000000100000000000000000000000000f83f",
                814_747_038,
            ),
        ];
        for (slots, body, hash) in cases {
            let row = BinaryRow::of(&slots);
            assert_eq!(row.as_wire()[..4], (slots.len() as u32).to_be_bytes());
            assert_eq!(hex(&row.as_wire()[4..]), body, "{slots:?}");
            assert_eq!(murmur(&row.as_wire()[4..]), hash, "{slots:?}");
            let json = serde_json::to_string(&row).expect("a string");
            assert_eq!(serde_json::from_str::<BinaryRow>(&json).expect("what was written"), row);
        }
        assert_eq!(BinaryRow::default().as_wire(), [0; 12]);
        assert!(serde_json::from_str::<BinaryRow>("\"0g\"").is_err());
        assert!(serde_json::from_str::<BinaryRow>("\"012\"").is_err());
    }

    #[test]
    fn wide_decimals_are_as_short_as_java_makes_them() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0, 0x80]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (-1, vec![0xff]),
        ] {
            assert_eq!(shortest_big_endian(value), bytes, "{value}");
        }
        assert_eq!(shortest_big_endian(i128::MIN).len(), 16);
    }
}
