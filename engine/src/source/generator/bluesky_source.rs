//! `connector = 'bluesky'`: the generator's events as rows, without a server between.

use arrow::array::RecordBatch;
use catalog::ErrorRecord;

use super::bluesky::{Generator, Profile, Settings};
use super::{Events, Pace, SPLIT};
use crate::Result;
use crate::format::parse_timestamp;
use crate::plan::{ConnectorSpec, SourceNode};
use crate::source::jetstream::frame::EventRows;
use crate::source::options::Options;

/// Rows of a batch; an event is about half a kilobyte.
const BATCH_EVENTS: u64 = 2048;

struct Chosen {
    settings: Settings,
    pace: Pace,
    /// Event 0 happens when the source starts.
    starts_now: bool,
}

fn options_of(spec: &ConnectorSpec) -> Result<Chosen> {
    let options = Options::new("connector \"bluesky\"", &spec.options);
    let own = ["profile", "event.rate", "users", "start", "odd.records", "broken.frames"];
    let known: Vec<&str> = Pace::OPTIONS.iter().copied().chain(own).collect();
    options.check_known(&known, &[])?;
    let pace = Pace::of(&options)?;
    let mut settings =
        Settings { seed: options.whole("seed", 42)?, users: options.whole("users", 200_000)?.max(2), ..Settings::default() };
    if options.choice("profile", &["2026", "wave2024"])? == "wave2024" {
        settings.profile = Profile::Wave2024;
    }
    let share = |name: &str| -> Result<f64> {
        match options.text(name).map(|text| (text, text.parse::<f64>())) {
            None => Ok(0.0),
            Some((_, Ok(share))) if (0.0..=1.0).contains(&share) => Ok(share),
            Some((text, _)) => Err(options.invalid(name, text, "It is a share between 0 and 1.")),
        }
    };
    settings.odd_records = share("odd.records")?;
    settings.broken_frames = share("broken.frames")?;
    // Paced events happen when they come; unpaced ones at fixed times, so that a run can be repeated.
    let rate = options.whole("event.rate", if pace.rate > 0.0 { pace.rate as u64 } else { 350 })?;
    settings.rate = rate.max(1) as f64;
    let start = options.text("start");
    if let Some(text) = start.filter(|text| *text != "now") {
        settings.start_us = parse_timestamp(text.as_bytes())
            .map_err(|_| options.invalid("start", text, "It is 'now' or a time such as '2026-07-01 00:00:00'."))?;
    }
    Ok(Chosen { settings, pace, starts_now: start.map_or(pace.rate > 0.0, |start| start == "now") })
}

pub(in crate::source) fn check_options(spec: &ConnectorSpec) -> Result<()> {
    options_of(spec).map(|_| ())
}

pub(in crate::source) struct Bluesky {
    settings: Settings,
    starts_now: bool,
    generator: Option<Generator>,
    rows: EventRows,
}

impl Bluesky {
    pub(in crate::source) fn open(node: &SourceNode) -> Result<(Self, Pace)> {
        let Chosen { settings, pace, starts_now } = options_of(&node.connector)?;
        Ok((Bluesky { settings, starts_now, generator: None, rows: EventRows::new(node)? }, pace))
    }
}

impl Events for Bluesky {
    fn rows(&mut self, from: u64, to: u64, started_us: i64) -> Result<(RecordBatch, Vec<ErrorRecord>, u64)> {
        let mut settings = self.settings.clone();
        if self.starts_now {
            settings.start_us = started_us;
        }
        let generator = self.generator.get_or_insert_with(|| Generator::new(settings));
        generator.skip_to(from);
        let end = to.min(from + BATCH_EVENTS);
        for number in from..end {
            let event = generator.event();
            self.rows.push_frame(event.v2().as_bytes(), "generator", SPLIT, number);
        }
        let (rows, errors) = self.rows.take()?;
        Ok((rows, errors, end))
    }
}
