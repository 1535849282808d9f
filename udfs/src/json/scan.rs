//! JSON text walked without being parsed: a value is found by skipping what lies before it.
//!
//! Values come from decoders that checked them, so the walk looks only at what it needs; text that is no JSON where it
//! looks has no value there. Of duplicate keys the first one counts.

use std::borrow::Cow;

use memchr::memchr2;

/// One step into a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// `-> 'key'`: a member of an object.
    Key(String),
    /// `-> 2`: an item of an array, from the end where negative.
    Index(i64),
    /// An element of a `#>` path: a member of an object or, where it is a number, an item of an array.
    Either(String, Option<i64>),
}

impl Step {
    pub(crate) fn of_path(text: &str) -> Step {
        Step::Either(text.to_owned(), text.trim().parse().ok())
    }
}

fn skip_space(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

/// The position behind the string whose opening quote is at `at`, and whether it has escapes.
fn skip_string(text: &str, at: usize) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    let mut at = at + 1;
    let mut escaped = false;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some((at + 1, escaped));
        }
        escaped = true;
        at += 2;
    }
}

/// The position behind the value that begins at `at`.
fn skip_value(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b'"' => skip_string(text, at).map(|(end, _)| end),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = at;
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = skip_string(text, at)?.0;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let length =
                bytes[at..].iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r')).count();
            (length > 0).then_some(at + length)
        }
    }
}

/// The value without the space around it.
pub(crate) fn root(text: &str) -> Option<&str> {
    let start = skip_space(text, 0);
    let end = skip_value(text, start)?;
    text.get(start..end)
}

/// The members of an object, in their order; stops at the first thing that is no member.
pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

pub(crate) fn members(value: &str) -> Option<Members<'_>> {
    value.starts_with('{').then_some(Members { text: value, at: 1 })
}

impl<'a> Iterator for Members<'a> {
    /// The key between its quotes, whether it has escapes, the value.
    type Item = (&'a str, bool, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (text, bytes) = (self.text, self.text.as_bytes());
        let mut at = skip_space(text, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(text, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (key_end, escaped) = skip_string(text, at)?;
        let key = &text[at + 1..key_end - 1];
        let colon = skip_space(text, key_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_space(text, colon + 1);
        let end = skip_value(text, start)?;
        self.at = end;
        Some((key, escaped, &text[start..end]))
    }
}

/// The items of an array.
pub(crate) struct Items<'a> {
    text: &'a str,
    at: usize,
}

pub(crate) fn items(value: &str) -> Option<Items<'_>> {
    value.starts_with('[').then_some(Items { text: value, at: 1 })
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let (text, bytes) = (self.text, self.text.as_bytes());
        let mut at = skip_space(text, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(text, at + 1);
        }
        if matches!(bytes.get(at), None | Some(b']')) {
            return None;
        }
        let end = skip_value(text, at)?;
        self.at = end;
        Some(&text[at..end])
    }
}

/// The member of an object with this key.
pub(crate) fn member<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let same = |key: &str, escaped: bool| if escaped { unescape(key).is_some_and(|key| key == wanted) } else { key == wanted };
    members(value)?.find(|(key, escaped, _)| same(key, *escaped)).map(|(_, _, value)| value)
}

fn item(value: &str, index: i64) -> Option<&str> {
    let from_start = match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => items(value)?.count().checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    items(value)?.nth(from_start)
}

/// The value some steps into this one.
pub(crate) fn walk<'a>(text: &'a str, steps: &[Step]) -> Option<&'a str> {
    let start = skip_space(text, 0);
    // The root's end is not looked for unless it is itself wanted.
    let mut value = if steps.is_empty() { root(text)? } else { &text[start..] };
    for step in steps {
        value = match step {
            Step::Key(key) => member(value, key)?,
            Step::Index(index) => item(value, *index)?,
            Step::Either(key, index) => match value.as_bytes().first()? {
                b'[' => item(value, (*index)?)?,
                _ => member(value, key)?,
            },
        };
    }
    Some(value)
}

/// What `->>` gives for a value: the text of a string, NULL for null, else the JSON.
pub(crate) fn as_text(value: &str) -> Option<Cow<'_, str>> {
    if value == "null" {
        return None;
    }
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => unescape(inner),
        None => Some(Cow::Borrowed(value)),
    }
}

/// The text between quotes with its escapes resolved; `None` where they are broken.
pub(crate) fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else { return Some(Cow::Borrowed(inner)) };
    let mut text = String::with_capacity(inner.len());
    text.push_str(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        text.push(match escape {
            b'"' | b'\\' | b'/' => escape as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = u32::from_str_radix(rest.get(..4)?, 16).ok()?;
                rest = &rest[4..];
                match unit {
                    0xD800..0xDC00 => {
                        let low = u32::from_str_radix(rest.strip_prefix("\\u")?.get(..4)?, 16).ok()?;
                        rest = &rest[6..];
                        char::from_u32(0x10000 + ((unit - 0xD800) << 10) + low.checked_sub(0xDC00).filter(|&low| low < 0x400)?)?
                    }
                    // Text cannot hold NUL.
                    0 => '\u{FFFD}',
                    _ => char::from_u32(unit)?,
                }
            }
            _ => return None,
        });
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// Writes a text as a JSON string.
pub(crate) fn quote(text: &str, out: &mut String) {
    use std::fmt::Write;
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            8 => "\\b",
            12 => "\\f",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[from..at]);
        from = at + 1;
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}"); // writing to a String cannot fail
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}
