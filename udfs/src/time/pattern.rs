//! The pattern language of `to_char`, `to_timestamp` and `to_date` for dates and times, parsed once.

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Literal(String),
    Field { field: Field, fill: bool, ordinal: Ordinal },
}

/// The case of a name, after the case its pattern word is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Upper,
    Capital,
    Lower,
}

/// `TH` or `th` behind a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordinal {
    None,
    Upper,
    Lower,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Era {
        case: Case,
        dots: bool,
    },
    Meridian {
        case: Case,
        dots: bool,
    },
    Century,
    DayName(Case),
    DayShort(Case),
    DayOfYear,
    IsoDayOfYear,
    DayOfMonth,
    DayOfWeek,
    IsoDayOfWeek,
    /// `FF1` … `FF6`, `MS`, `US`: that many digits of the fraction of a second.
    Fraction(u32),
    Hour24,
    Hour12,
    Minute,
    Second,
    SecondOfDay,
    Julian,
    Month,
    MonthName(Case),
    MonthShort(Case),
    MonthRoman(Case),
    Quarter,
    WeekOfYear,
    WeekOfMonth,
    IsoWeek,
    /// That many last digits of the year.
    Year(u32),
    IsoYear(u32),
    YearWithComma,
    ZoneName(Case),
    ZoneHour,
    ZoneMinute,
    ZoneOffset,
}

/// Longest words first among those with a common beginning; matching is by exact case, as in Postgres.
const WORDS: &[(&str, Field)] = {
    use Case::{Capital, Lower, Upper};
    use Field::*;
    &[
        ("A.D.", Era { case: Upper, dots: true }),
        ("a.d.", Era { case: Lower, dots: true }),
        ("B.C.", Era { case: Upper, dots: true }),
        ("b.c.", Era { case: Lower, dots: true }),
        ("AD", Era { case: Upper, dots: false }),
        ("ad", Era { case: Lower, dots: false }),
        ("BC", Era { case: Upper, dots: false }),
        ("bc", Era { case: Lower, dots: false }),
        ("A.M.", Meridian { case: Upper, dots: true }),
        ("a.m.", Meridian { case: Lower, dots: true }),
        ("P.M.", Meridian { case: Upper, dots: true }),
        ("p.m.", Meridian { case: Lower, dots: true }),
        ("AM", Meridian { case: Upper, dots: false }),
        ("am", Meridian { case: Lower, dots: false }),
        ("PM", Meridian { case: Upper, dots: false }),
        ("pm", Meridian { case: Lower, dots: false }),
        ("CC", Century),
        ("cc", Century),
        ("DAY", DayName(Upper)),
        ("Day", DayName(Capital)),
        ("day", DayName(Lower)),
        ("DDD", DayOfYear),
        ("ddd", DayOfYear),
        ("DD", DayOfMonth),
        ("dd", DayOfMonth),
        ("DY", DayShort(Upper)),
        ("Dy", DayShort(Capital)),
        ("dy", DayShort(Lower)),
        ("D", DayOfWeek),
        ("d", DayOfWeek),
        ("FF1", Fraction(1)),
        ("ff1", Fraction(1)),
        ("FF2", Fraction(2)),
        ("ff2", Fraction(2)),
        ("FF3", Fraction(3)),
        ("ff3", Fraction(3)),
        ("FF4", Fraction(4)),
        ("ff4", Fraction(4)),
        ("FF5", Fraction(5)),
        ("ff5", Fraction(5)),
        ("FF6", Fraction(6)),
        ("ff6", Fraction(6)),
        ("HH24", Hour24),
        ("hh24", Hour24),
        ("HH12", Hour12),
        ("hh12", Hour12),
        ("HH", Hour12),
        ("hh", Hour12),
        ("IDDD", IsoDayOfYear),
        ("iddd", IsoDayOfYear),
        ("ID", IsoDayOfWeek),
        ("id", IsoDayOfWeek),
        ("IW", IsoWeek),
        ("iw", IsoWeek),
        ("IYYY", IsoYear(4)),
        ("iyyy", IsoYear(4)),
        ("IYY", IsoYear(3)),
        ("iyy", IsoYear(3)),
        ("IY", IsoYear(2)),
        ("iy", IsoYear(2)),
        ("I", IsoYear(1)),
        ("i", IsoYear(1)),
        ("J", Julian),
        ("j", Julian),
        ("MI", Minute),
        ("mi", Minute),
        ("MM", Month),
        ("mm", Month),
        ("MONTH", MonthName(Upper)),
        ("Month", MonthName(Capital)),
        ("month", MonthName(Lower)),
        ("MON", MonthShort(Upper)),
        ("Mon", MonthShort(Capital)),
        ("mon", MonthShort(Lower)),
        ("MS", Fraction(3)),
        ("ms", Fraction(3)),
        ("OF", ZoneOffset),
        ("of", ZoneOffset),
        ("Q", Quarter),
        ("q", Quarter),
        ("RM", MonthRoman(Upper)),
        ("rm", MonthRoman(Lower)),
        ("SSSSS", SecondOfDay),
        ("sssss", SecondOfDay),
        ("SSSS", SecondOfDay),
        ("ssss", SecondOfDay),
        ("SS", Second),
        ("ss", Second),
        ("TZH", ZoneHour),
        ("tzh", ZoneHour),
        ("TZM", ZoneMinute),
        ("tzm", ZoneMinute),
        ("TZ", ZoneName(Upper)),
        ("tz", ZoneName(Lower)),
        ("US", Fraction(6)),
        ("us", Fraction(6)),
        ("WW", WeekOfYear),
        ("ww", WeekOfYear),
        ("W", WeekOfMonth),
        ("w", WeekOfMonth),
        ("Y,YYY", YearWithComma),
        ("y,yyy", YearWithComma),
        ("YYYY", Year(4)),
        ("yyyy", Year(4)),
        ("YYY", Year(3)),
        ("yyy", Year(3)),
        ("YY", Year(2)),
        ("yy", Year(2)),
        ("Y", Year(1)),
        ("y", Year(1)),
    ]
};

/// Takes a pattern apart. Every text is a pattern: what is no word stands for itself.
pub(crate) fn parse(pattern: &str) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let mut fill = true;
        for prefix in ["FM", "fm", "TM", "tm", "FX", "fx"] {
            if let Some(after) = rest.strip_prefix(prefix) {
                fill &= !prefix.eq_ignore_ascii_case("FM");
                rest = after;
                break;
            }
        }
        if let Some((word, field)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            rest = &rest[word.len()..];
            let mut ordinal = Ordinal::None;
            for (suffix, meaning) in [("TH", Ordinal::Upper), ("th", Ordinal::Lower), ("SP", Ordinal::None)] {
                if let Some(after) = rest.strip_prefix(suffix) {
                    ordinal = meaning;
                    rest = after;
                    break;
                }
            }
            nodes.push(Node::Field { field: *field, fill, ordinal });
            continue;
        }
        if !rest.starts_with(next) {
            continue; // a prefix was taken, and more may follow
        }
        rest = match next {
            '"' => quoted(&rest[1..], &mut nodes),
            '\\' if rest[1..].starts_with('"') => {
                literal(&mut nodes, '"');
                &rest[2..]
            }
            other => {
                literal(&mut nodes, other);
                &rest[other.len_utf8()..]
            }
        };
    }
    nodes
}

/// The text up to the closing quote stands for itself; a backslash takes the next character as it is.
fn quoted<'a>(text: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return &text[at + 1..],
            '\\' => {
                if let Some((_, escaped)) = chars.next() {
                    literal(nodes, escaped);
                }
            }
            other => literal(nodes, other),
        }
    }
    ""
}

fn literal(nodes: &mut Vec<Node>, char: char) {
    match nodes.last_mut() {
        Some(Node::Literal(text)) => text.push(char),
        _ => nodes.push(Node::Literal(char.to_string())),
    }
}
