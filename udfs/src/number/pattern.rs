//! The pattern language of `to_char` for numbers: `9 0 . , D G S MI PL SG PR L FM TH V EEEE RN` and quoted text.

use std::fmt::Write;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Word {
    Nine,
    Zero,
    Point,
    Comma,
    Sign,
    Minus,
    Plus,
    PlusMinus,
    Brackets,
    Currency,
    Ordinal { upper: bool },
    Roman { upper: bool },
    Shift,
    Scientific,
    Fill,
    Nothing,
}

const WORDS: &[(&str, Word)] = &[
    ("EEEE", Word::Scientific),
    ("FM", Word::Fill),
    ("MI", Word::Minus),
    ("PL", Word::Plus),
    ("PR", Word::Brackets),
    ("SG", Word::PlusMinus),
    ("SP", Word::Nothing),
    ("9", Word::Nine),
    ("0", Word::Zero),
    (".", Word::Point),
    (",", Word::Comma),
    ("B", Word::Nothing),
    ("D", Word::Point),
    ("G", Word::Comma),
    ("L", Word::Currency),
    ("S", Word::Sign),
    ("V", Word::Shift),
];

#[derive(Debug, PartialEq)]
enum Node {
    Literal(char),
    Word(Word),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum SignPlace {
    None,
    Before,
    Behind,
}

/// A number pattern ready for use.
#[derive(Debug)]
pub(crate) struct Pattern {
    nodes: Vec<Node>,
    /// Digit places before and behind the point, and those a `V` shifts by.
    before: usize,
    behind: usize,
    shift: usize,
    /// The first place before the point that is filled with zeros, and the last place a `0` stands at.
    zero_start: Option<usize>,
    zero_end: usize,
    decimal: bool,
    fill: bool,
    sign: SignPlace,
    minus: bool,
    plus: bool,
    brackets: bool,
    scientific: bool,
    roman: bool,
}

/// A number to be written.
pub(crate) enum Number {
    Exact { digits: i128, scale: i8 },
    Float(f64),
}

impl Number {
    pub(crate) fn exact(digits: i128, scale: i8) -> Number {
        Number::Exact { digits, scale }
    }

    pub(crate) fn float(value: f64) -> Number {
        Number::Float(value)
    }

    /// With so many digits behind the point, after multiplication with a power of ten.
    fn fixed(&self, digits_behind: usize, shift: usize) -> String {
        match *self {
            Number::Exact { digits, scale } => {
                let scale = i64::from(scale) - shift as i64;
                let dropped = scale - digits_behind as i64;
                let mut text = match u32::try_from(dropped).ok().map(|dropped| 10_i128.checked_pow(dropped)) {
                    Some(Some(unit)) => super::half_away(digits, unit).to_string(),
                    Some(None) => "0".to_owned(),
                    // The missing digits are zeros.
                    None => format!("{digits}{}", "0".repeat(if digits == 0 { 0 } else { dropped.unsigned_abs() as usize })),
                };
                if digits_behind > 0 {
                    let sign = usize::from(text.starts_with('-'));
                    let missing = (digits_behind + 1 + sign).saturating_sub(text.len());
                    text.insert_str(sign, &"0".repeat(missing));
                    text.insert(text.len() - digits_behind, '.');
                }
                // Rounded to nothing, a number has no sign.
                if text.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.')) { text.replace('-', "") } else { text }
            }
            Number::Float(value) => {
                // A double has 15 digits; places behind them stay empty.
                let value = value * 10_f64.powi(shift as i32);
                let whole = format!("{:.0}", value.abs()).len();
                format!("{value:.*}", digits_behind.min(15_usize.saturating_sub(whole)))
            }
        }
    }

    fn scientific(&self, digits_behind: usize) -> String {
        let text = match *self {
            Number::Float(value) => format!("{value:.digits_behind$e}"),
            Number::Exact { digits, scale } => exact_scientific(digits, scale, digits_behind),
        };
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        let space = if mantissa.starts_with('-') { "" } else { " " };
        format!("{space}{mantissa}e{sign}{exponent:0>2}")
    }

    fn rounded(&self) -> Option<i64> {
        match *self {
            Number::Exact { .. } => self.fixed(0, 0).parse().ok(),
            Number::Float(value) => Some(value.round_ties_even() as i64),
        }
    }
}

fn exact_scientific(digits: i128, scale: i8, digits_behind: usize) -> String {
    let text = digits.unsigned_abs().to_string();
    let mut exponent = text.len() as i64 - 1 - i64::from(scale);
    let kept = digits_behind + 1;
    let mut figures = if text.len() > kept {
        let unit = 10_i128.pow((text.len() - kept) as u32);
        super::half_away(digits.abs(), unit).to_string()
    } else {
        text.clone() + &"0".repeat(kept - text.len())
    };
    if figures.len() > kept {
        figures.truncate(kept);
        exponent += 1;
    }
    if digits == 0 {
        exponent = 0;
    }
    let sign = if digits < 0 { "-" } else { "" };
    let point = if digits_behind > 0 { "." } else { "" };
    format!("{sign}{}{point}{}e{exponent}", &figures[..1], &figures[1..])
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Pattern, Error> {
        let mut pattern = Pattern {
            nodes: Vec::new(),
            before: 0,
            behind: 0,
            shift: 0,
            zero_start: None,
            zero_end: 0,
            decimal: false,
            fill: false,
            sign: SignPlace::None,
            minus: false,
            plus: false,
            brackets: false,
            scientific: false,
            roman: false,
        };
        let mut shifting = false;
        let mut sign_after_places = None;
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if next == '"' {
                let mut chars = rest[1..].char_indices();
                let mut end = rest.len();
                while let Some((at, char)) = chars.next() {
                    match char {
                        '"' => {
                            end = at + 2;
                            break;
                        }
                        '\\' => pattern.nodes.extend(chars.next().map(|(_, escaped)| Node::Literal(escaped))),
                        other => pattern.nodes.push(Node::Literal(other)),
                    }
                }
                rest = &rest[end..];
                continue;
            }
            let Some((word, length)) = word_at(rest) else {
                pattern.nodes.push(Node::Literal(next));
                rest = &rest[next.len_utf8()..];
                continue;
            };
            rest = &rest[length..];
            let twice = |name: &str| Error::new("42601", format!("cannot use \"{name}\" twice"));
            match word {
                Word::Nine if shifting => pattern.shift += 1,
                Word::Nine if pattern.decimal => pattern.behind += 1,
                Word::Nine => pattern.before += 1,
                Word::Zero => {
                    if !pattern.decimal && pattern.zero_start.is_none() {
                        pattern.zero_start = Some(pattern.before);
                    }
                    if shifting {
                        pattern.shift += 1;
                    } else if pattern.decimal {
                        pattern.behind += 1;
                    } else {
                        pattern.before += 1;
                    }
                    pattern.zero_end = pattern.before + pattern.behind;
                }
                Word::Point if pattern.decimal => return Err(Error::new("42601", "multiple decimal points")),
                Word::Point if shifting => return Err(Error::new("42601", "cannot use \"V\" and decimal point together")),
                Word::Point => pattern.decimal = true,
                Word::Fill => pattern.fill = true,
                Word::Sign if pattern.sign != SignPlace::None => return Err(twice("S")),
                Word::Sign if pattern.decimal => pattern.sign = SignPlace::Behind,
                Word::Sign => {
                    pattern.sign = SignPlace::Before;
                    sign_after_places = Some(pattern.before);
                }
                Word::Minus => pattern.minus = true,
                Word::Plus => pattern.plus = true,
                Word::PlusMinus => (pattern.minus, pattern.plus) = (true, true),
                Word::Brackets => pattern.brackets = true,
                Word::Shift if pattern.decimal => return Err(Error::new("42601", "cannot use \"V\" and decimal point together")),
                Word::Shift => shifting = true,
                Word::Scientific => pattern.scientific = true,
                Word::Roman { .. } => pattern.roman = true,
                Word::Comma | Word::Currency | Word::Ordinal { .. } | Word::Nothing => {}
            }
            if !matches!(word, Word::Fill | Word::Nothing | Word::Shift | Word::Scientific | Word::Brackets | Word::Sign) {
                pattern.nodes.push(Node::Word(word));
            }
        }
        // An S behind all places stands behind the number.
        if pattern.sign == SignPlace::Before && sign_after_places == Some(pattern.before) {
            pattern.sign = SignPlace::Behind;
        }
        Ok(pattern)
    }

    pub(crate) fn write(&self, number: &Number, out: &mut String) {
        if self.scientific {
            return out.push_str(&number.scientific(self.behind));
        }
        if self.roman {
            return self.write_roman(number, out);
        }
        let before = self.before + self.shift;
        let text = number.fixed(self.behind, self.shift);
        let (negative, digits) = text.strip_prefix('-').map_or((false, text.as_str()), |digits| (true, digits));
        let whole = digits.find('.').unwrap_or(digits.len());
        let overflow;
        let (digits, spaces) = if whole > before {
            overflow = format!("{}.{}", "#".repeat(before), "#".repeat(self.behind));
            (overflow.as_str(), 0)
        } else {
            (digits, before - whole)
        };
        Writer::new(self, digits, negative, spaces).write(out);
    }

    fn write_roman(&self, number: &Number, out: &mut String) {
        const FIGURES: [(i64, &str); 13] = [
            (1000, "M"),
            (900, "CM"),
            (500, "D"),
            (400, "CD"),
            (100, "C"),
            (90, "XC"),
            (50, "L"),
            (40, "XL"),
            (10, "X"),
            (9, "IX"),
            (5, "V"),
            (4, "IV"),
            (1, "I"),
        ];
        let mut text = String::new();
        match number.rounded().filter(|value| (1..4000).contains(value)) {
            None => text.push_str(&"#".repeat(15)),
            Some(mut value) => {
                for (amount, figure) in FIGURES {
                    while value >= amount {
                        text.push_str(figure);
                        value -= amount;
                    }
                }
            }
        }
        let upper = self.nodes.contains(&Node::Word(Word::Roman { upper: true }));
        let text = if upper { text } else { text.to_lowercase() };
        let _ = if self.fill { out.write_str(&text) } else { write!(out, "{text:>15}") };
    }
}

fn word_at(text: &str) -> Option<(Word, usize)> {
    for (name, upper) in [("RN", true), ("rn", false)] {
        if text.starts_with(name) {
            return Some((Word::Roman { upper }, 2));
        }
    }
    for (name, upper) in [("TH", true), ("th", false)] {
        if text.starts_with(name) {
            return Some((Word::Ordinal { upper }, 2));
        }
    }
    let matches = |name: &str| text.starts_with(name) || text.starts_with(&name.to_ascii_lowercase());
    WORDS.iter().find(|(name, _)| matches(name)).map(|(name, word)| (*word, name.len()))
}

/// Walks places and digits side by side; the conditions are those of Postgres's formatter, one for one.
struct Writer<'a> {
    pattern: &'a Pattern,
    digits: &'a [u8],
    text: &'a str,
    negative: bool,
    /// Places before the number's first digit.
    spaces: usize,
    /// The next digit, and the place it would be written at.
    next: usize,
    place: usize,
    sign_written: bool,
    brackets: bool,
    /// Where the digits end that FM keeps.
    last_relevant: Option<usize>,
    places: usize,
    inside: bool,
}

impl<'a> Writer<'a> {
    fn new(pattern: &'a Pattern, text: &'a str, negative: bool, spaces: usize) -> Self {
        let digits = text.as_bytes();
        let signed_apart = pattern.plus || pattern.minus;
        let sign_written =
            if signed_apart { pattern.minus } else { !negative && pattern.fill && pattern.sign == SignPlace::None };
        let mut last_relevant = None;
        if pattern.fill
            && pattern.decimal
            && let Some(point) = text.find('.')
        {
            let kept = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(point).max(point);
            let wanted = pattern.zero_end.checked_sub(spaces).filter(|&end| end > 0).map_or(0, |end| end.min(digits.len() - 1));
            last_relevant = Some(kept.max(wanted));
        }
        let mut places = (pattern.behind + pattern.before + pattern.shift).saturating_sub(1);
        if !sign_written && spaces == 0 {
            places += 1;
        }
        Writer {
            pattern,
            digits,
            text,
            negative,
            spaces,
            next: 0,
            place: 0,
            sign_written,
            brackets: pattern.brackets && (negative || !pattern.fill),
            last_relevant,
            places,
            inside: false,
        }
    }

    fn write(mut self, out: &mut String) {
        let fill = self.pattern.fill;
        let sign = if self.negative { '-' } else { '+' };
        for node in &self.pattern.nodes {
            match node {
                Node::Literal(char) => out.push(*char),
                Node::Word(Word::Nine) => self.write_place(false, out),
                Node::Word(Word::Zero) => self.write_place(true, out),
                Node::Word(Word::Point) => self.write_place(false, out),
                Node::Word(Word::Comma) if self.inside => out.push(','),
                Node::Word(Word::Comma | Word::Currency) => {
                    if !fill || *node == Node::Word(Word::Currency) {
                        out.push(' ');
                    }
                }
                Node::Word(Word::Ordinal { upper }) => {
                    if !self.negative && !self.pattern.decimal && !self.text.starts_with('#') {
                        let case =
                            if *upper { crate::time::pattern::Ordinal::Upper } else { crate::time::pattern::Ordinal::Lower };
                        let last_two = &self.text[self.text.len().saturating_sub(2)..];
                        out.push_str(crate::time::ordinal_ending(last_two.parse().unwrap_or(0), case));
                    }
                }
                Node::Word(Word::PlusMinus) => out.push(sign),
                Node::Word(Word::Minus) if self.negative => out.push('-'),
                Node::Word(Word::Plus) if !self.negative => out.push('+'),
                Node::Word(Word::Minus | Word::Plus) => {
                    if !fill {
                        out.push(' ');
                    }
                }
                Node::Word(_) => {}
            }
        }
    }

    fn zero_from_here(&self) -> bool {
        self.pattern.zero_start.is_some_and(|start| start <= self.place)
    }

    /// `0.1` by `9.9` is ` .1`: the zero before the point is not written.
    fn silent_zero(&self) -> bool {
        self.pattern.zero_start.is_none() && self.next == 0 && self.digits.first() == Some(&b'0') && self.pattern.behind != 0
    }

    fn ends_at_point(&self) -> bool {
        self.last_relevant.is_some_and(|last| self.digits.get(last) == Some(&b'.'))
    }

    fn write_sign(&mut self, out: &mut String) {
        let due = self.place >= self.spaces || self.pattern.zero_start == Some(self.place);
        if self.sign_written || !due || (self.silent_zero() && !self.ends_at_point()) {
            return;
        }
        let sign = if self.negative { '-' } else { '+' };
        match self.pattern.sign {
            SignPlace::Before => out.push(sign),
            SignPlace::Behind => return,
            SignPlace::None if self.brackets => out.push(if self.negative { '<' } else { ' ' }),
            SignPlace::None if self.negative => out.push('-'),
            SignPlace::None if !self.pattern.fill => out.push(' '),
            SignPlace::None => {}
        }
        self.sign_written = true;
    }

    fn write_place(&mut self, zero: bool, out: &mut String) {
        self.write_sign(out);
        if self.place < self.spaces {
            if self.zero_from_here() {
                out.push('0');
                self.inside = true;
            } else if !self.pattern.fill {
                out.push(' ');
            }
        } else {
            match self.digits.get(self.next) {
                Some(b'.') if self.ends_at_point() && !self.pattern.fill => {}
                Some(b'.') => out.push('.'),
                Some(_) if self.last_relevant.is_some_and(|last| self.next > last) && !zero => {}
                Some(_) if self.silent_zero() => {
                    if !self.pattern.fill {
                        out.push(' ');
                    } else if self.ends_at_point() {
                        out.push('0');
                    }
                }
                Some(digit) => {
                    out.push(*digit as char);
                    self.inside = true;
                }
                None => {}
            }
            self.next = (self.next + 1).min(self.digits.len());
        }
        let mut end = self.places + usize::from(self.spaces > 0) + usize::from(self.pattern.decimal);
        if self.last_relevant.is_some_and(|last| last == self.next) {
            end = self.place;
        }
        if self.place + 1 == end {
            if self.sign_written && self.brackets {
                out.push(if self.negative { '>' } else { ' ' });
            } else if self.pattern.sign == SignPlace::Behind {
                out.push(if self.negative { '-' } else { '+' });
            }
        }
        self.place += 1;
    }
}
