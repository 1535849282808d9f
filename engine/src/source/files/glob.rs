//! Patterns of paths: `*` and `?` within a component, `[abc]`, and `**` for any number of components.

/// Whether `path` fits `pattern`.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    components_fit(&pattern, &path)
}

fn components_fit(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| components_fit(rest, &path[skip..])),
        (Some((first, rest)), Some((name, names))) => {
            // As in a shell, a wildcard does not find hidden files.
            let hidden = name.starts_with('.') && !first.starts_with('.');
            !hidden && name_fits(first.as_bytes(), name.as_bytes()) && components_fit(rest, names)
        }
        _ => false,
    }
}

fn name_fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|skip| name_fits(rest, &name[skip..])),
        [b'?', rest @ ..] => !name.is_empty() && name_fits(rest, &name[1..]),
        [b'[', class @ ..] => match (class.iter().skip(1).position(|byte| *byte == b']'), name.split_first()) {
            (Some(end), Some((byte, names))) => class_holds(&class[..end + 1], *byte) && name_fits(&class[end + 2..], names),
            _ => false,
        },
        [byte, rest @ ..] => name.first() == Some(byte) && name_fits(rest, &name[1..]),
    }
}

fn class_holds(class: &[u8], byte: u8) -> bool {
    let (negated, mut class) = match class {
        [b'!' | b'^', rest @ ..] if !rest.is_empty() => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    while let [first, rest @ ..] = class {
        class = match rest {
            [b'-', last, behind @ ..] => {
                found |= (*first..=*last).contains(&byte);
                behind
            }
            _ => {
                found |= *first == byte;
                rest
            }
        };
    }
    found != negated
}

/// Whether there is a wildcard at all.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The part of a pattern before its first component with a wildcard.
pub(super) fn base(pattern: &str) -> &str {
    match pattern.find(['*', '?', '[']) {
        None => pattern,
        Some(wildcard) => &pattern[..pattern[..wildcard].rfind('/').map_or(0, |slash| slash + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_paths() {
        for (pattern, path, expected) in [
            ("/d/*.jsonl", "/d/part-0.jsonl", true),
            ("/d/*.jsonl", "/d/e/part-0.jsonl", false),
            ("/d/**/*.jsonl", "/d/e/f/part-0.jsonl", true),
            ("/d/**/*.jsonl", "/d/part-0.jsonl", true),
            ("/d/part-?.csv", "/d/part-10.csv", false),
            ("/d/part-[0-3].csv", "/d/part-2.csv", true),
            ("/d/part-[!0-3].csv", "/d/part-2.csv", false),
            ("/d/*", "/d/.hidden", false),
            ("/d/a", "/d/a", true),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
        assert_eq!(base("/d/e/*.x"), "/d/e/");
        assert_eq!(base("*.x"), "");
        assert_eq!(base("/d/e"), "/d/e");
    }
}
