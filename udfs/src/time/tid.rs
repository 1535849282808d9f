//! AT Protocol record keys that are timestamps (TIDs).

use arrow::array::ArrayRef;
use datafusion::common::Result;

use crate::function::Args;
use crate::time::instants;

/// The instant inside a TID: 13 characters of sortable base 32, microseconds in the upper 53 bits, a clock number in the lower 10.
/// Keys that are no TID (custom ones such as `self`) have none.
fn instant(key: &str) -> Option<i64> {
    if key.len() != 13 {
        return None;
    }
    let mut bits: u64 = 0;
    for byte in key.bytes() {
        let digit = match byte {
            b'2'..=b'7' => byte - b'2',
            b'a'..=b'z' => byte - b'a' + 6,
            _ => return None,
        };
        // 13 characters hold 65 bits; the top one must be clear.
        bits = bits.checked_mul(32)? | u64::from(digit);
    }
    if bits >> 63 != 0 { None } else { Some((bits >> 10) as i64) }
}

pub(crate) fn tid_time(args: &Args) -> Result<ArrayRef> {
    let keys = args.text(0)?;
    Ok(instants((0..args.rows()).map(|row| keys.get(row).and_then(instant)).collect()))
}

#[cfg(test)]
mod tests {
    use super::instant;

    #[test]
    fn keys() {
        let cases = [
            ("2222222222222", Some(0)),
            ("3jzfcijpj2z2a", Some(1_688_137_381_887_007)), // the example of the specification
            ("self", None),
            ("3jzfcijpj2z2", None),
            ("3jzfcijpj2z21", None),
            ("zzzzzzzzzzzzz", None),
            ("3JZFCIJPJ2Z2A", None),
        ];
        for (key, expected) in cases {
            assert_eq!(instant(key), expected, "{key}");
        }
    }
}
