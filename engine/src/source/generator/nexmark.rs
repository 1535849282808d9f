//! Nexmark: persons, auctions and bids, 1 : 3 : 46 in every block of 50 event numbers.
//!
//! The distributions follow the published generator (hot keys, log-uniform prices, padded `extra`); every draw is a
//! function of (seed, event number, field). One streaming table has one of the three kinds, chosen by `table`; event
//! numbers count all three, so three tables of one seed belong together. `rows` is the number of events of all kinds.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use catalog::ErrorRecord;

use super::random::Draws;
use super::{Events, Pace, columns_by_name};
use crate::Result;
use crate::plan::{ColumnOrigin, ConnectorSpec, SourceColumn, SourceNode};
use crate::source::options::Options;
use crate::source::rows::BATCH_ROWS_MAX;

const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;
/// Event numbers of a block.
const BLOCK: u64 = 50;
/// The first person's and the first auction's id.
const FIRST_ID: i64 = 1000;
const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: u64 = 5;
/// The hot seller, bidder, auction is the first (bidder: the second) of the last so many.
const HOT_BATCH: i64 = 100;
/// Ids that may refer to a person or an auction not made yet.
const ID_LEAD: u64 = 10;
const ACTIVE_PEOPLE: i64 = 1000;
const IN_FLIGHT_AUCTIONS: i64 = 100;
const BASE_MS: i64 = 1_436_918_400_000;
const CHANNELS: u64 = 10_000;

const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// `n` letters, with `special` in one place of 13 when given.
fn letters(seed: u64, n: u64, special: Option<char>) -> String {
    let letter = |at| {
        let draws = Draws::new(seed, at);
        match special {
            Some(special) if draws.below(2, 13) == 0 => special,
            _ => (b'a' + draws.below(1, 26) as u8) as char,
        }
    };
    (0..n).map(letter).collect()
}

static EXTRA: LazyLock<String> = LazyLock::new(|| letters(11, 1 << 20, None));
static WORDS: LazyLock<String> = LazyLock::new(|| letters(12, 1 << 20, Some(' ')));

/// Name and URL of each channel, the hot ones first.
static CHANNEL: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let pool = letters(13, 1 << 16, Some('_'));
    let url = |at: u64| {
        let draws = Draws::new(14, at);
        let part = |field| {
            let start = draws.below(field, pool.len() as u64 - 64) as usize;
            &pool[start..start + 3 + draws.below(field + 1, 2) as usize]
        };
        let (a, b, c) = (part(1), part(3), part(5));
        (format!("https://www.nexmark.com/{a}/{b}/{c}/item.htm?query=1"), draws.below(9, 10) > 0)
    };
    let hot = HOT_CHANNELS.iter().zip(CHANNELS..).map(|(name, at)| ((*name).to_owned(), url(at).0));
    let cold = (0..CHANNELS).map(|at| {
        let (mut url, with_id) = url(at);
        if with_id {
            url += &format!("&channel_id={}", ((at as u32).reverse_bits() as i32).unsigned_abs());
        }
        (format!("channel-{at}"), url)
    });
    hot.chain(cold).collect()
});

/// The three kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Person,
    Auction,
    Bid,
}

impl Kind {
    fn of(options: &Options<'_>) -> Result<Kind> {
        options.required("table", "table = 'person', 'auction' or 'bid'.")?;
        Ok(match options.choice("table", &["person", "auction", "bid"])? {
            "person" => Kind::Person,
            "auction" => Kind::Auction,
            _ => Kind::Bid,
        })
    }

    /// Places within a block.
    fn places(self) -> std::ops::Range<u64> {
        match self {
            Kind::Person => 0..PERSONS,
            Kind::Auction => PERSONS..PERSONS + AUCTIONS,
            Kind::Bid => PERSONS + AUCTIONS..BLOCK,
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            Kind::Person => &["id", "name", "email_address", "credit_card", "city", "state", "date_time", "extra"],
            Kind::Auction => &[
                "id",
                "item_name",
                "description",
                "initial_bid",
                "reserve",
                "date_time",
                "expires",
                "seller",
                "category",
                "extra",
            ],
            Kind::Bid => &["auction", "bidder", "price", "channel", "url", "date_time", "extra"],
        }
    }
}

fn column_type(name: &str) -> DataType {
    match name {
        "date_time" | "expires" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "id" | "initial_bid" | "reserve" | "seller" | "category" | "auction" | "bidder" | "price" => DataType::Int64,
        _ => DataType::Utf8,
    }
}

fn options_of(spec: &ConnectorSpec) -> Result<(Kind, Pace, u64, f64)> {
    let options = Options::new("connector \"nexmark\"", &spec.options);
    let known: Vec<&str> = Pace::OPTIONS.iter().copied().chain(["table", "event.rate"]).collect();
    options.check_known(&known, &[])?;
    let event_rate = options.whole("event.rate", 10_000)?;
    if event_rate == 0 {
        return Err(options.invalid("event.rate", "0", "It is the number of events per second of event time, 1 or more."));
    }
    Ok((Kind::of(&options)?, Pace::of(&options)?, options.whole("seed", 42)?, event_rate as f64))
}

pub(in crate::source) fn check_options(spec: &ConnectorSpec) -> Result<()> {
    options_of(spec).map(|_| ())
}

pub(in crate::source) fn own_columns(spec: &ConnectorSpec) -> Result<Vec<SourceColumn>> {
    let (kind, ..) = options_of(spec)?;
    let column = |name: &&str| SourceColumn {
        field: Arc::new(Field::new(*name, column_type(name), false)),
        origin: ColumnOrigin::Field((*name).to_owned()),
    };
    Ok(kind.columns().iter().map(column).collect())
}

/// The events of one kind.
pub(in crate::source) struct Nexmark {
    kind: Kind,
    seed: u64,
    delay_us: f64,
    /// For each output column its index in the kind's columns.
    columns: Vec<usize>,
    node: SourceNode,
}

impl Nexmark {
    pub(in crate::source) fn open(node: &SourceNode) -> Result<(Self, Pace)> {
        let (kind, pace, seed, event_rate) = options_of(&node.connector)?;
        let columns = columns_by_name(node, kind.columns())?;
        Ok((Nexmark { kind, seed, delay_us: 1e6 / event_rate, columns, node: node.clone() }, pace))
    }

    fn time_ms(&self, event: u64) -> i64 {
        BASE_MS + (event as f64 * self.delay_us) as i64 / 1000
    }

    fn column(&self, name: &str, events: &[u64]) -> ArrayRef {
        let number = |value: &dyn Fn(u64) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(events.iter().map(|at| value(*at))))
        };
        let micros = |value: &dyn Fn(u64) -> i64| -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|at| value(*at) * 1000)))
        };
        let text = |value: &dyn Fn(u64, &mut String)| -> ArrayRef {
            let mut builder = StringBuilder::with_capacity(events.len(), events.len() * 64);
            let mut scratch = String::new();
            for at in events {
                scratch.clear();
                value(*at, &mut scratch);
                builder.append_value(&scratch);
            }
            Arc::new(builder.finish())
        };
        let draws = |at| Draws::new(self.seed, at);
        match (self.kind, name) {
            (_, "date_time") => micros(&|at| self.time_ms(at)),
            (Kind::Person, "id") => number(&|at| last_person(at) + FIRST_ID),
            (Kind::Person, "extra") => text(&|at, out| {
                let draws = draws(at);
                let used: usize = PERSON_TEXTS.iter().map(|name| person_text(name, draws).len()).sum();
                out.push_str(extra(draws, 22, 8 + used as i64, 200));
            }),
            (Kind::Person, name) => text(&|at, out| out.push_str(&person_text(name, draws(at)))),
            (Kind::Auction, "id") => number(&|at| last_auction(at) + FIRST_ID),
            (Kind::Auction, "item_name") => text(&|at, out| out.push_str(words(draws(at), 3, 20))),
            (Kind::Auction, "description") => text(&|at, out| out.push_str(words(draws(at), 5, 100))),
            (Kind::Auction, "initial_bid") => number(&|at| price(draws(at), 7)),
            (Kind::Auction, "reserve") => number(&|at| price(draws(at), 7) + price(draws(at), 8)),
            (Kind::Auction, "expires") => micros(&|at| {
                // The event-time length within which the next IN_FLIGHT_AUCTIONS auctions appear.
                let ahead = IN_FLIGHT_AUCTIONS as u64 * BLOCK / AUCTIONS;
                let now = self.time_ms(at);
                let horizon = self.time_ms(at + ahead) - now;
                now + 1 + draws(at).below(9, (2 * horizon).max(1) as u64) as i64
            }),
            (Kind::Auction, "seller") => number(&|at| {
                let draws = draws(at);
                let hot = draws.below(1, 4) > 0;
                FIRST_ID + if hot { last_person(at) / HOT_BATCH * HOT_BATCH } else { some_person(draws, 2, at) }
            }),
            (Kind::Auction, "category") => number(&|at| FIRST_CATEGORY + draws(at).below(10, CATEGORIES) as i64),
            (Kind::Auction, _) => text(&|at, out| {
                let draws = draws(at);
                let used = 48 + words(draws, 3, 20).len() + words(draws, 5, 100).len();
                out.push_str(extra(draws, 11, used as i64, 500));
            }),
            (Kind::Bid, "auction") => number(&|at| {
                let (draws, last) = (draws(at), last_auction(at));
                let low = (last - IN_FLIGHT_AUCTIONS).max(0);
                let hot = draws.below(1, 2) > 0;
                let cold = || low + draws.below(2, (last - low + 1) as u64 + ID_LEAD) as i64;
                FIRST_ID + if hot { last / HOT_BATCH * HOT_BATCH } else { cold() }
            }),
            (Kind::Bid, "bidder") => number(&|at| {
                let draws = draws(at);
                // The hot bidder is the second of the batch, so that hot bidders are never hot sellers.
                let hot = draws.below(3, 4) > 0;
                FIRST_ID + if hot { last_person(at) / HOT_BATCH * HOT_BATCH + 1 } else { some_person(draws, 4, at) }
            }),
            (Kind::Bid, "price") => number(&|at| price(draws(at), 5)),
            (Kind::Bid, "channel") => text(&|at, out| out.push_str(&channel(draws(at)).0)),
            (Kind::Bid, "url") => text(&|at, out| out.push_str(&channel(draws(at)).1)),
            (Kind::Bid, _) => text(&|at, out| out.push_str(extra(draws(at), 9, 32, 100))),
        }
    }
}

impl Events for Nexmark {
    fn rows(&mut self, from: u64, to: u64, _started_us: i64) -> Result<(RecordBatch, Vec<ErrorRecord>, u64)> {
        let places = self.kind.places();
        let mut events = Vec::new();
        let mut block = from / BLOCK;
        let mut next = from;
        'blocks: while next < to {
            for place in places.clone() {
                let event = block * BLOCK + place;
                if event >= to || events.len() == BATCH_ROWS_MAX / 2 {
                    next = if event >= to { to } else { event };
                    break 'blocks;
                }
                if event >= from {
                    events.push(event);
                }
            }
            block += 1;
            next = (block * BLOCK).min(to);
        }
        let names = self.kind.columns();
        let columns = self.columns.iter().map(|column| self.column(names[*column], &events)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(events.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.node.schema), columns, &options)?;
        Ok((batch, Vec::new(), next))
    }
}

fn last_person(event: u64) -> i64 {
    (event / BLOCK) as i64
}

fn last_auction(event: u64) -> i64 {
    let (block, place) = ((event / BLOCK) as i64, event % BLOCK);
    let auctions = AUCTIONS as i64;
    if place < PERSONS {
        (block - 1) * auctions + auctions - 1
    } else {
        block * auctions + ((place - PERSONS).min(AUCTIONS - 1)) as i64
    }
}

fn some_person(draws: Draws, field: u64, event: u64) -> i64 {
    let people = last_person(event) + 1;
    let active = people.min(ACTIVE_PEOPLE);
    people - active + draws.below(field, active as u64 + ID_LEAD) as i64
}

fn price(draws: Draws, field: u64) -> i64 {
    (10f64.powf(draws.unit(field) * 6.0) * 100.0).round_ties_even() as i64
}

fn channel(draws: Draws) -> &'static (String, String) {
    let hot = draws.below(6, 2) > 0;
    let index =
        if hot { draws.below(7, HOT_CHANNELS.len() as u64) } else { HOT_CHANNELS.len() as u64 + draws.below(8, CHANNELS) };
    &CHANNEL[index as usize]
}

fn words(draws: Draws, field: u64, length_max: u64) -> &'static str {
    let length = 3 + draws.below(field, length_max - 3) as usize;
    let start = draws.below(field + 1, WORDS.len() as u64 - 256) as usize;
    WORDS[start..start + length].trim()
}

/// Padding to `average` bytes, a fifth more or less.
fn extra(draws: Draws, field: u64, used: i64, average: i64) -> &'static str {
    let want = (average - used).max(0);
    let delta = (want as f64 * 0.2).round_ties_even() as i64;
    let length = want - delta + draws.below(field, (2 * delta).max(1) as u64) as i64;
    let start = draws.below(field + 1, EXTRA.len() as u64 - 1024) as usize;
    &EXTRA[start..start + length as usize]
}

const PERSON_TEXTS: [&str; 5] = ["name", "email_address", "credit_card", "city", "state"];

fn person_text(name: &str, draws: Draws) -> String {
    let pick = |values: &[&'static str], field| values[draws.below(field, values.len() as u64) as usize];
    match name {
        "name" => format!("{} {}", pick(&FIRST_NAMES, 1), pick(&LAST_NAMES, 2)),
        "email_address" => format!("{}@{}.com", words(draws, 3, 7), words(draws, 5, 5)),
        "credit_card" => {
            let four = |field| draws.below(field, 10_000);
            format!("{:04} {:04} {:04} {:04}", four(10), four(11), four(12), four(13))
        }
        "city" => pick(&CITIES, 20).to_owned(),
        _ => pick(&STATES, 21).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::open;
    use crate::source::testing::{Taken, connector, node};

    /// Rows of `gen.py --events 200 --seed 42`, part files joined, made once.
    #[test]
    fn rows_equal_those_of_the_reference() {
        for (kind, expected) in [("person", 0usize), ("auction", 1), ("bid", 2)] {
            let spec = connector("nexmark", &[("table", kind), ("rows", "200")]);
            let node = node(spec.clone(), own_columns(&spec).expect("known table"), None);
            let mut taken = Taken::default();
            taken.until(&mut *open(&node, &BTreeMap::new()).expect("opens"), |taken| taken.finished.len() == 1);
            let mut reference: Vec<&str> = REFERENCE[expected].lines().collect();
            reference.sort();
            assert_eq!(taken.sorted(), reference, "{kind}");
        }
    }

    /// The lines of the reference, columns joined by `|` as Arrow prints them.
    const REFERENCE: [&str; 3] =
        [include_str!("reference/person.txt"), include_str!("reference/auction.txt"), include_str!("reference/bid.txt")];
}
