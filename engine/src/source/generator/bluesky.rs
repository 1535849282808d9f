//! An invented Bluesky: events of the shape, mix, skew and faults of the real firehose, with no real text or person.
//!
//! ```
//! use engine::source::generator::bluesky::{Generator, Settings};
//! let mut generator = Generator::new(Settings::default());
//! let event = generator.event();           // event 0, then 1, 2, …
//! let frame = event.v2();                  // as `subscribeEvents` sends it; `v1()` as `/subscribe` does
//! assert_eq!(Generator::new(Settings::default()).at(0), event);
//! # assert!(frame.contains(&event.did));
//! ```
//!
//! Event n is a pure function of the settings and n: [`Generator::at`] makes any of them, [`Generator::skip_to`] moves.
//! `time_us` never goes down with n and is a schedule too: a server that sends event n when the wall clock reaches its
//! `time_us` has the day's curve (peak to trough 2), and every 20 minutes a burst of ten times the rate for a minute.
//! Each event has one `seq`; sending it twice, late or not at all is the server's part.

use std::fmt::Write;

use serde_json::json;

use super::random::{Draws, mix};

/// What the generator makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Other seeds, other events.
    pub seed: u64,
    /// The mix.
    pub profile: Profile,
    /// Events per second of event time outside of bursts, averaged over a day.
    pub rate: f64,
    /// `time_us` of event 0, microseconds since 1970.
    pub start_us: i64,
    /// Accounts there are.
    pub users: u64,
    /// Share of commits whose record is odd: NUL, unpaired surrogates, wrong types, a megabyte of text.
    pub odd_records: f64,
    /// Share of events whose frame does not parse.
    pub broken_frames: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            seed: 42,
            profile: Profile::Y2026,
            rate: 350.0,
            // 2026-07-01 00:00:00 UTC
            start_us: 1_782_864_000_000_000,
            users: 200_000,
            odd_records: 0.0,
            broken_frames: 0.0,
        }
    }
}

/// Mixes of collections that have been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// July 2026: likes 69 %, posts 12, reposts 10, follows 5.
    Y2026,
    /// The sign-up wave of November 2024: likes 47 %, follows 33, posts 9.5.
    Wave2024,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A record was created, updated or deleted.
    Commit,
    /// A handle may have changed.
    Identity,
    /// An account was taken down, deleted, reactivated.
    Account,
    /// A repository was resynchronised; version 2 of the protocol only.
    Sync,
}

impl Kind {
    /// As the wire spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Identity => "identity",
            Kind::Account => "account",
            Kind::Sync => "sync",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number from 0 on.
    pub number: u64,
    /// Its number on the wire of version 2.
    pub seq: u64,
    /// Who.
    pub did: String,
    /// When it was sequenced, microseconds since 1970.
    pub time_us: i64,
    /// What kind.
    pub kind: Kind,
    /// `create`, `update`, `delete`; commits only, as all that follow but the payload.
    pub operation: Option<&'static str>,
    /// The record's collection, an NSID.
    pub collection: Option<&'static str>,
    /// The record's key.
    pub rkey: Option<String>,
    /// The repository's revision, a TID.
    pub rev: Option<String>,
    /// The record's content hash; none for deletes.
    pub cid: Option<String>,
    /// The record, JSON text; none for deletes.
    pub record: Option<String>,
    /// Body of identity, account and sync events, JSON text.
    pub payload: Option<String>,
    /// The frame is cut in the middle.
    pub broken: bool,
}

/// Makes events in order, or any of them.
#[derive(Debug, Clone)]
pub struct Generator {
    settings: Settings,
    next: u64,
}

/// `seq` of event 0.
pub const SEQ_BASE: u64 = 24_000_000_000;

const LIKE: &str = "app.bsky.feed.like";
const POST: &str = "app.bsky.feed.post";
const REPOST: &str = "app.bsky.feed.repost";
const FOLLOW: &str = "app.bsky.graph.follow";
const BLOCK: &str = "app.bsky.graph.block";
/// The rest, names that nobody knows and misspelt ones among them, as they occur.
const OTHERS: [&str; 8] = [
    "app.bsky.actor.profile",
    "app.bsky.graph.listitem",
    "app.bsky.feed.threadgate",
    "app.bsky.feed.postgate",
    "app.bsky.actor.status",
    "com.example.weather.reading",
    "app.bsky.graph.starterPack",
    "app.bsky.feed.deleteLike",
];

/// Numbers of the draws, so that no two decisions share one.
mod draw {
    pub(super) const KIND: u64 = 1;
    pub(super) const COLLECTION: u64 = 2;
    pub(super) const OTHER: u64 = 3;
    pub(super) const OPERATION: u64 = 4;
    pub(super) const USER: u64 = 5;
    pub(super) const TARGET: u64 = 6;
    pub(super) const HOT: u64 = 7;
    pub(super) const BACK: u64 = 8;
    pub(super) const DELAY: u64 = 9;
    pub(super) const CREATED: u64 = 10;
    pub(super) const CREATED_SKEW: u64 = 11;
    pub(super) const FORM: u64 = 12;
    pub(super) const LANGUAGE: u64 = 13;
    pub(super) const LENGTH: u64 = 14;
    pub(super) const REPLY: u64 = 15;
    pub(super) const EMBED: u64 = 16;
    pub(super) const TAGS: u64 = 17;
    pub(super) const COPY: u64 = 18;
    pub(super) const ODD: u64 = 19;
    pub(super) const ODD_KIND: u64 = 20;
    pub(super) const BROKEN: u64 = 21;
    pub(super) const STATUS: u64 = 22;
    pub(super) const VIA: u64 = 23;
    pub(super) const LINK: u64 = 24;
    pub(super) const MENTION: u64 = 25;
    pub(super) const CLOCK: u64 = 26;
    pub(super) const CID: u64 = 27;
    pub(super) const WORDS: u64 = 1000;
    pub(super) const TAG_WORDS: u64 = 3000;
}

impl Generator {
    /// Starts before event 0.
    pub fn new(settings: Settings) -> Self {
        Generator { settings, next: 0 }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next event.
    pub fn event(&mut self) -> Event {
        let event = self.at(self.next);
        self.next += 1;
        event
    }

    /// Number of the event that [`Generator::event`] gives next.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Goes on with event `number`.
    pub fn skip_to(&mut self, number: u64) {
        self.next = number;
    }

    /// The first event whose time is at or after `time_us`.
    pub fn seek(&self, time_us: i64) -> u64 {
        let (mut low, mut high) = (0, 1u64);
        while self.time_us(high) < time_us {
            high *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.time_us(middle) < time_us { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// When event `number` is sequenced.
    pub fn time_us(&self, number: u64) -> i64 {
        const CALM: f64 = 1140.0;
        const BURST: f64 = 60.0;
        const DAY: f64 = 86_400.0;
        // Seconds at an even rate, folded so that ten times the events fall into each burst …
        let even = number as f64 / self.settings.rate;
        let (cycle, within) = ((even / (CALM + 10.0 * BURST)).floor(), even % (CALM + 10.0 * BURST));
        let bursty = cycle * (CALM + BURST) + if within < CALM { within } else { CALM + (within - CALM) / 10.0 };
        // … and bent by the day: the rate is highest when this runs slowest, a third up and down.
        let turn = std::f64::consts::TAU / DAY;
        let bent = bursty + ((turn * bursty).cos() - 1.0) / turn / 3.0;
        self.settings.start_us + (bent * 1e6) as i64
    }

    fn draws(&self, number: u64) -> Draws {
        Draws::new(self.settings.seed ^ 0xb10e, number)
    }

    /// What event `number` is, without the costly rest.
    fn sort(&self, number: u64) -> (Kind, &'static str) {
        let draws = self.draws(number);
        let rare = if self.settings.profile == Profile::Wave2024 { 0.003 } else { 0.0006 };
        let kind = match draws.unit(draw::KIND) {
            at if at < rare => Kind::Identity,
            at if at < 2.0 * rare => Kind::Account,
            at if at < 2.0 * rare + 0.000_05 => Kind::Sync,
            _ => Kind::Commit,
        };
        let shares: [(f64, &str); 5] = match self.settings.profile {
            Profile::Y2026 => [(0.69, LIKE), (0.12, POST), (0.10, REPOST), (0.05, FOLLOW), (0.01, BLOCK)],
            Profile::Wave2024 => [(0.47, LIKE), (0.095, POST), (0.06, REPOST), (0.33, FOLLOW), (0.016, BLOCK)],
        };
        let mut at = draws.unit(draw::COLLECTION);
        for (share, collection) in shares {
            if at < share {
                return (kind, collection);
            }
            at -= share;
        }
        (kind, OTHERS[draws.below(draw::OTHER, OTHERS.len() as u64) as usize])
    }

    fn operation(&self, number: u64) -> &'static str {
        match self.draws(number).unit(draw::OPERATION) {
            at if at < 0.955 => "create",
            at if at < 0.994 => "delete",
            _ => "update",
        }
    }

    /// Whether event `number` creates a record of the collection.
    fn creates(&self, number: u64, collection: &str) -> bool {
        self.sort(number) == (Kind::Commit, collection_of(collection)) && self.operation(number) == "create"
    }

    /// The nearest event at or before `from` that creates a record of the collection.
    fn created_before(&self, from: u64, collection: &str) -> Option<u64> {
        (from.saturating_sub(400)..=from).rev().find(|number| self.creates(*number, collection))
    }

    /// A record made before event `number`: newer ones more often, and every few minutes one that everybody likes.
    fn target(&self, number: u64, field: u64, collection: &str) -> Option<u64> {
        let draws = self.draws(number);
        let reach = number.min((self.settings.rate * 4.0 * 3600.0) as u64).max(1) as f64;
        // Uniform in the logarithm of the age.
        let age = reach.powf(draws.unit(field)) as u64;
        let mut from = number.checked_sub(age.max(1))?;
        if draws.chance(draw::HOT, 0.4) {
            from -= from % 2003;
        }
        self.created_before(from, collection)
    }

    /// Number of the account behind event `number`: few do most.
    fn user(&self, number: u64, collection: &str) -> u64 {
        zipf(self.draws(number).unit(draw::USER), self.settings.users, if collection == LIKE { 1.1 } else { 1.001 })
    }

    fn did(&self, user: u64) -> String {
        let mut did = String::from("did:plc:");
        let mut bits = [mix(user ^ self.settings.seed), mix(user.wrapping_add(0x5eed))];
        for at in 0..24 {
            let word = &mut bits[at / 12];
            did.push(b"abcdefghijklmnopqrstuvwxyz234567"[(*word & 31) as usize] as char);
            *word >>= 5;
        }
        did
    }

    /// When the repository made the commit of event `number`.
    fn commit_us(&self, number: u64) -> i64 {
        self.time_us(number) - 300_000 - self.draws(number).below(draw::DELAY, 400_000) as i64
    }

    fn tid(&self, number: u64) -> String {
        tid(self.commit_us(number), self.draws(number).below(draw::CLOCK, 1024))
    }

    fn cid(&self, number: u64) -> String {
        let mut cid = String::from("bafyrei");
        let draws = self.draws(number);
        for at in 0..52 {
            cid.push(
                b"abcdefghijklmnopqrstuvwxyz234567"[(draws.bits(draw::CID + 100 + at / 12) >> (5 * (at % 12)) & 31) as usize]
                    as char,
            );
        }
        cid
    }

    fn uri(&self, number: u64, collection: &str) -> String {
        format!("at://{}/{collection}/{}", self.did(self.user(number, collection)), self.tid(number))
    }

    /// Event `number`.
    pub fn at(&self, number: u64) -> Event {
        let (kind, collection) = self.sort(number);
        let draws = self.draws(number);
        let time_us = self.time_us(number);
        let mut event = Event {
            number,
            seq: SEQ_BASE + number,
            did: self.did(self.user(number, collection)),
            time_us,
            kind,
            operation: None,
            collection: None,
            rkey: None,
            rev: None,
            cid: None,
            record: None,
            payload: None,
            broken: draws.chance(draw::BROKEN, self.settings.broken_frames),
        };
        let time = rfc3339(time_us, 3);
        let did = event.did.clone();
        match kind {
            Kind::Identity => {
                let handle = format!("{}.example.test", self.handle(number));
                event.payload = Some(json!({ "did": did, "seq": number + 7, "time": time, "handle": handle }).to_string());
            }
            Kind::Account => {
                let status = ["takendown", "suspended", "deleted", "deactivated"][draws.below(draw::STATUS, 4) as usize];
                let active = draws.chance(draw::BACK, 0.4);
                let mut body = json!({ "active": active, "did": did, "seq": number + 7, "time": time });
                if !active {
                    body["status"] = status.into();
                }
                event.payload = Some(body.to_string());
            }
            Kind::Sync => {
                let body = json!({ "did": did, "rev": self.tid(number), "seq": number + 7, "time": time });
                event.payload = Some(body.to_string());
            }
            Kind::Commit => self.commit(&mut event, collection),
        }
        event
    }

    fn handle(&self, number: u64) -> String {
        let draws = self.draws(number);
        format!("{}-{}", TAGS[draws.below(draw::TAG_WORDS, TAGS.len() as u64) as usize], draws.below(draw::STATUS, 10_000))
    }

    fn commit(&self, event: &mut Event, collection: &'static str) {
        let number = event.number;
        event.rev = Some(self.tid(number));
        event.collection = Some(collection);
        let mut operation = self.operation(number);
        // A delete or an update is of a record that was created before.
        let before = if operation == "create" { None } else { self.target(number, draw::TARGET, collection) };
        if before.is_none() && operation != "create" {
            operation = "create";
        }
        let subject = before.unwrap_or(number);
        event.did = self.did(self.user(subject, collection));
        event.rkey = Some(if collection.starts_with("app.bsky.actor.") { "self".to_owned() } else { self.tid(subject) });
        event.operation = Some(operation);
        if operation != "delete" {
            event.cid = Some(self.cid(number));
            let odd = self.draws(number).chance(draw::ODD, self.settings.odd_records);
            event.record = Some(if odd { self.odd_record(number) } else { self.record(number, collection) });
        }
    }

    fn record(&self, number: u64, collection: &str) -> String {
        let draws = self.draws(number);
        let created = self.created_at(number);
        let strong = |target: u64, collection: &str| json!({ "cid": self.cid(target), "uri": self.uri(target, collection) });
        let mut record = match collection {
            POST => return self.post(number, &created),
            LIKE | REPOST => match self.target(number, draw::TARGET, POST) {
                Some(target) => json!({ "subject": strong(target, POST) }),
                // The first events have nothing before them; a post from before the stream's start it is.
                None => {
                    json!({ "subject": { "cid": self.cid(number ^ 1), "uri": format!("at://{}/{POST}/{}", self.did(draws.below(draw::BACK, 1000)), tid(self.settings.start_us - 1_000_000, 0)) } })
                }
            },
            FOLLOW | BLOCK => json!({ "subject": self.did(zipf(draws.unit(draw::TARGET), self.settings.users, 1.05)) }),
            "app.bsky.actor.profile" => {
                json!({ "displayName": self.handle(number), "description": self.text(number, "en") })
            }
            "app.bsky.graph.listitem" => {
                let owner = self.did(self.user(number, collection));
                json!({ "list": format!("at://{owner}/app.bsky.graph.list/{}", self.tid(number / 100)), "subject": self.did(draws.below(draw::TARGET, self.settings.users)) })
            }
            "app.bsky.feed.threadgate" | "app.bsky.feed.postgate" => {
                json!({ "post": self.target(number, draw::TARGET, POST).map(|post| self.uri(post, POST)) })
            }
            "com.example.weather.reading" => json!({ "celsius": draws.below(draw::TARGET, 400) as f64 / 10.0 - 10.0 }),
            _ => json!({ "subject": self.did(draws.below(draw::TARGET, self.settings.users)) }),
        };
        record["$type"] = collection.into();
        record["createdAt"] = created.into();
        if matches!(collection, LIKE | REPOST)
            && draws.chance(draw::VIA, 0.16)
            && let Some(via) = self.target(number, draw::BACK, REPOST)
        {
            record["via"] = strong(via, REPOST);
        }
        record.to_string()
    }

    fn post(&self, number: u64, created: &str) -> String {
        let draws = self.draws(number);
        let language = match draws.unit(draw::LANGUAGE) {
            at if at < 0.61 => Some("en"),
            at if at < 0.735 => Some("ja"),
            at if at < 0.849 => None,
            at if at < 0.89 => Some("ko"),
            at if at < 0.93 => Some("de"),
            at if at < 0.97 => Some("pt"),
            _ => Some("es"),
        };
        // Bots: one in twenty says word for word what another said within the last ten minutes.
        let copied = draws.chance(draw::COPY, 0.05);
        let window = (self.settings.rate * 25.0) as u64;
        let source = if copied { number - number % window.max(2) } else { number };
        let language = if copied { Some("en") } else { language };
        let mut text = self.text(source, language.unwrap_or("en"));
        let mut facets = Vec::new();
        let mut append = |text: &mut String, words: &str, feature: serde_json::Value| {
            text.push(' ');
            let start = text.len();
            text.push_str(words);
            // Facets count bytes of UTF-8, not characters.
            facets.push(json!({ "features": [feature], "index": { "byteEnd": text.len(), "byteStart": start } }));
        };
        if draws.chance(draw::TAGS, 0.25) {
            for at in 0..1 + draws.below(draw::TAGS + 500, 3) {
                // Topics change by the hour: what is in fashion now is not what was then.
                let fashion = (self.time_us(number) / 3_600_000_000) as u64;
                let place = zipf(draws.unit(draw::TAG_WORDS + at), TAGS.len() as u64, 1.2);
                let tag = TAGS[((place + fashion * 7) % TAGS.len() as u64) as usize];
                append(&mut text, &format!("#{tag}"), json!({ "$type": "app.bsky.richtext.facet#tag", "tag": tag }));
            }
        }
        if draws.chance(draw::MENTION, 0.08) {
            let did = self.did(zipf(draws.unit(draw::MENTION + 500), self.settings.users, 1.05));
            append(
                &mut text,
                &format!("@{}.example.test", self.handle(number)),
                json!({ "$type": "app.bsky.richtext.facet#mention", "did": did }),
            );
        }
        let domain = ["news.example.com", "blog.example.org", "video.example.net", "shop.example.com", "wiki.example.org"]
            [zipf(draws.unit(draw::LINK + 500), 5, 1.1) as usize];
        let url = format!("https://{domain}/{}", draws.below(draw::LINK + 600, 10_000));
        if draws.chance(draw::LINK, 0.1) {
            append(&mut text, &url, json!({ "$type": "app.bsky.richtext.facet#link", "uri": url }));
        }
        let blob = |kind: &str| json!({ "$type": "blob", "mimeType": kind, "ref": { "$link": self.cid(number + 1) }, "size": 1000 + draws.below(draw::EMBED + 500, 900_000) });
        let embed = match draws.unit(draw::EMBED) {
            at if at < 0.136 => Some(json!({ "$type": "app.bsky.embed.images", "images": [{ "alt": "", "image": blob("image/jpeg") }] })),
            at if at < 0.236 => Some(json!({ "$type": "app.bsky.embed.external", "external": { "description": "", "title": "A page", "uri": url } })),
            at if at < 0.249 => Some(json!({ "$type": "app.bsky.embed.video", "video": blob("video/mp4") })),
            at if at < 0.30 => self.target(number, draw::BACK, POST).map(|quoted| {
                json!({ "$type": "app.bsky.embed.record", "record": { "cid": self.cid(quoted), "uri": self.uri(quoted, POST) } })
            }),
            _ => None,
        };
        let mut record = json!({ "$type": POST, "createdAt": created, "text": text });
        if let Some(language) = language {
            record["langs"] = json!([language]);
        }
        if !facets.is_empty() {
            record["facets"] = facets.into();
        }
        if let Some(embed) = embed {
            record["embed"] = embed;
        }
        if draws.chance(draw::REPLY, 0.42)
            && let Some(parent) = self.target(number, draw::TARGET, POST)
        {
            let parent = json!({ "cid": self.cid(parent), "uri": self.uri(parent, POST) });
            record["reply"] = json!({ "parent": parent, "root": parent });
        }
        record.to_string()
    }

    /// Words in a row: about 68 characters, sometimes hundreds.
    fn text(&self, number: u64, language: &str) -> String {
        let draws = self.draws(number);
        // Normal enough: the sum of four uniform draws.
        let normal: f64 = (0..4).map(|at| draws.unit(draw::LENGTH + 600 + at) - 0.5).sum::<f64>() * 1.73;
        let length = (68.0 * (0.8 * normal).exp()).clamp(3.0, 280.0) as usize;
        let words: &[&str] = match language {
            "ja" => &JAPANESE,
            "ko" => &KOREAN,
            "de" => &GERMAN,
            "pt" => &PORTUGUESE,
            "es" => &SPANISH,
            _ => &ENGLISH,
        };
        let mut text = String::new();
        let mut characters = 0;
        for at in 0.. {
            let word = words[zipf(draws.unit(draw::WORDS + at), words.len() as u64, 0.7) as usize];
            characters += word.chars().count() + 1;
            if characters > length && at > 0 {
                break;
            }
            if at > 0 && language != "ja" {
                text.push(' ');
            }
            text.push_str(word);
        }
        text
    }

    /// What the client claims: nearly always right, in many spellings, and sometimes absurd.
    fn created_at(&self, number: u64) -> String {
        let draws = self.draws(number);
        let at = self.commit_us(number) - draws.below(draw::CREATED_SKEW, 800_000) as i64;
        if draws.chance(draw::CREATED, 0.01) {
            return match draws.below(draw::FORM, 5) {
                0 => "1970-01-01T00:00:00Z".to_owned(),
                1 => "9999-12-31T23:59:59.999Z".to_owned(),
                2 => rfc3339(at + 7 * 86_400_000_000, 3),
                3 => rfc3339(at - 3 * 365 * 86_400_000_000, 3),
                _ => "just now".to_owned(),
            };
        }
        match draws.below(draw::FORM, 20) {
            0 => rfc3339(at, 0),
            1 => rfc3339(at, 6),
            2 => rfc3339(at, 9),
            3 => rfc3339(at + 7_200_000_000, 3).replace('Z', "+02:00"),
            _ => rfc3339(at, 3),
        }
    }

    /// Records that clients really send and that break readers.
    fn odd_record(&self, number: u64) -> String {
        let created = self.created_at(number);
        match self.draws(number).below(draw::ODD_KIND, 9) {
            0 => format!(r#"{{"$type":"{POST}","createdAt":"{created}","text":"a\u0000b"}}"#),
            1 => format!(r#"{{"$type":"{POST}","createdAt":"{created}","text":"half \ud83d a face"}}"#),
            2 => json!({ "$type": POST, "createdAt": created, "langs": "en", "text": "langs is no list" }).to_string(),
            3 => json!({ "$type": LIKE }).to_string(),
            4 => json!({ "$type": LIKE, "createdAt": created, "subject": self.did(1) }).to_string(),
            5 => json!({ "$type": "com.example.unknown", "createdAt": created }).to_string(),
            6 => json!({ "$type": POST, "createdAt": created, "text": "😀".repeat(750) }).to_string(),
            7 => json!({ "$type": POST, "createdAt": 17, "text": ["not", "a", "text"] }).to_string(),
            _ => json!({ "$type": POST, "createdAt": created, "text": "x".repeat(1 << 20) }).to_string(),
        }
    }
}

/// The constant equal to `collection`, so that sorts can be compared.
fn collection_of(collection: &str) -> &'static str {
    [LIKE, POST, REPOST, FOLLOW, BLOCK].iter().chain(&OTHERS).find(|known| **known == collection).copied().unwrap_or("")
}

impl Event {
    /// What makes the event the same wherever it is seen.
    pub fn event_id(&self) -> String {
        match (self.kind, &self.collection, &self.rkey, &self.rev, self.operation) {
            (Kind::Commit, Some(collection), Some(rkey), Some(rev), Some(operation)) => {
                format!("{}|{collection}|{rkey}|{rev}|{operation}", self.did)
            }
            _ => format!("{}|{}|{}", self.did, self.kind.name(), self.number + 7),
        }
    }

    /// The frame of `/subscribe`; none for kinds that it never sends. `cursor` is added by hosts of version 2.
    pub fn v1(&self, with_cursor: bool) -> Option<String> {
        let mut frame = format!(r#"{{"did":"{}","time_us":{}"#, self.did, self.time_us);
        if with_cursor {
            let _ = write!(frame, r#","cursor":{}"#, self.seq);
        }
        let _ = write!(frame, r#","kind":"{}","#, self.kind.name());
        match self.kind {
            Kind::Sync => return None,
            Kind::Commit => {
                let _ = write!(frame, r#""commit":{{"rev":"{}""#, self.rev.as_deref().unwrap_or_default());
                self.push_commit(&mut frame);
                frame.push('}');
            }
            Kind::Identity | Kind::Account => {
                let _ = write!(frame, r#""{}":{}"#, self.kind.name(), self.payload.as_deref().unwrap_or("{}"));
            }
        }
        frame.push('}');
        Some(self.cut(frame))
    }

    /// The frame of `subscribeEvents`.
    pub fn v2(&self) -> String {
        let kind = self.kind.name();
        let time = rfc3339(self.time_us, 6);
        let mut frame = format!(
            r#"{{"$type":"message","payload":{{"$type":"network.bsky.jetstream.subscribeEvents#{kind}","seq":{},"did":"{}","time":"{time}""#,
            self.seq, self.did
        );
        match self.kind {
            Kind::Commit => {
                let _ = write!(frame, r#","rev":"{}""#, self.rev.as_deref().unwrap_or_default());
                self.push_commit(&mut frame);
            }
            Kind::Identity | Kind::Account | Kind::Sync => {
                let _ = write!(frame, r#","{kind}":{}"#, self.payload.as_deref().unwrap_or("{}"));
            }
        }
        frame.push_str("}}");
        self.cut(frame)
    }

    /// The fields behind `rev`, the same in both versions.
    fn push_commit(&self, frame: &mut String) {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        let (operation, collection) = (self.operation.unwrap_or_default(), self.collection.unwrap_or_default());
        let _ = write!(frame, r#","operation":"{operation}","collection":"{collection}","rkey":"{}""#, text(&self.rkey));
        if let (Some(record), Some(cid)) = (&self.record, &self.cid) {
            let _ = write!(frame, r#","record":{record},"cid":"{cid}""#);
        }
    }

    fn cut(&self, mut frame: String) -> String {
        if self.broken {
            let middle = (frame.len() / 2..frame.len()).find(|at| frame.is_char_boundary(*at)).unwrap_or(0);
            frame.truncate(middle);
        }
        frame
    }
}

/// A place below `count`, the first ones more often: rank r with weight about r^-s.
fn zipf(unit: f64, count: u64, s: f64) -> u64 {
    let power = 1.0 - s;
    let rank = (((count as f64).powf(power) - 1.0) * unit + 1.0).powf(1.0 / power);
    (rank as u64).saturating_sub(1).min(count - 1)
}

/// A TID: 53 bits of microseconds and 10 of a clock, in sortable base 32.
pub fn tid(micros: i64, clock: u64) -> String {
    let bits = (micros as u64) << 10 | (clock & 1023);
    let digit = |at: u32| b"234567abcdefghijklmnopqrstuvwxyz"[(bits >> (60 - 5 * at) & 31) as usize] as char;
    (0..13).map(digit).collect()
}

/// RFC 3339 in UTC with so many fractional digits.
pub fn rfc3339(micros: i64, digits: usize) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    match digits {
        0 => time.format("%Y-%m-%dT%H:%M:%SZ").to_string(),
        3 => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        6 => time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        _ => time.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string(),
    }
}

const ENGLISH: [&str; 64] = [
    "the",
    "a",
    "and",
    "to",
    "of",
    "is",
    "in",
    "it",
    "my",
    "this",
    "so",
    "today",
    "you",
    "what",
    "new",
    "good",
    "love",
    "really",
    "people",
    "time",
    "morning",
    "coffee",
    "cat",
    "dog",
    "game",
    "music",
    "art",
    "great",
    "happy",
    "book",
    "work",
    "rain",
    "sun",
    "garden",
    "river",
    "thanks",
    "beautiful",
    "terrible",
    "awful",
    "sad",
    "angry",
    "hate",
    "stupid",
    "worst",
    "best",
    "weird",
    "train",
    "city",
    "photo",
    "night",
    "moon",
    "bread",
    "soup",
    "winter",
    "summer",
    "sailing",
    "wind",
    "boat",
    "harbour",
    "idiot",
    "wonderful",
    "boring",
    "broken",
    "finally",
];
const GERMAN: [&str; 24] = [
    "der",
    "die",
    "und",
    "ist",
    "nicht",
    "heute",
    "wieder",
    "schön",
    "morgen",
    "kaffee",
    "katze",
    "wetter",
    "zug",
    "arbeit",
    "musik",
    "immer",
    "endlich",
    "wunderbar",
    "schlecht",
    "regen",
    "brot",
    "garten",
    "fluss",
    "abend",
];
const PORTUGUESE: [&str; 24] = [
    "o", "a", "e", "de", "que", "não", "hoje", "bom", "dia", "café", "gato", "chuva", "sol", "música", "muito", "lindo",
    "triste", "trabalho", "praia", "noite", "amigo", "jogo", "livro", "saudade",
];
const SPANISH: [&str; 24] = [
    "el", "la", "y", "de", "que", "no", "hoy", "bueno", "día", "café", "gato", "lluvia", "sol", "música", "muy", "bonito",
    "triste", "trabajo", "playa", "noche", "amigo", "juego", "libro", "mañana",
];
const JAPANESE: [&str; 24] = [
    "今日",
    "は",
    "の",
    "が",
    "猫",
    "とても",
    "楽しい",
    "雨",
    "音楽",
    "写真",
    "です",
    "ね",
    "朝",
    "夜",
    "電車",
    "本",
    "海",
    "空",
    "花",
    "寒い",
    "美味しい",
    "仕事",
    "休み",
    "好き",
];
const KOREAN: [&str; 20] = [
    "오늘",
    "아침",
    "고양이",
    "커피",
    "음악",
    "사진",
    "정말",
    "좋은",
    "날씨",
    "비",
    "바다",
    "하늘",
    "꽃",
    "책",
    "밤",
    "기차",
    "일",
    "친구",
    "너무",
    "행복",
];
/// Invented topics.
const TAGS: [&str; 48] = [
    "sailing",
    "catsofthesea",
    "breadclub",
    "rustlang",
    "gardenlog",
    "moonwatch",
    "trainspotting",
    "inktober",
    "soupseason",
    "booktalk",
    "photowalk",
    "chessnight",
    "birding",
    "opensky",
    "retrogames",
    "synthjam",
    "poetry",
    "tidepool",
    "northwind",
    "harbourlife",
    "teatime",
    "stargazing",
    "cycling",
    "woodwork",
    "mapmaking",
    "fermented",
    "typography",
    "lighthouse",
    "rainyday",
    "quizhour",
    "puzzles",
    "longread",
    "fieldnotes",
    "mushrooms",
    "kites",
    "pixelart",
    "choir",
    "ceramics",
    "weather",
    "bakery",
    "riverwalk",
    "museum",
    "jazz",
    "darksky",
    "seashanty",
    "compost",
    "origami",
    "data",
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn event_n_is_the_same_however_it_is_reached() {
        let settings = Settings { odd_records: 0.01, broken_frames: 0.001, ..Settings::default() };
        let mut generator = Generator::new(settings.clone());
        let events: Vec<Event> = (0..3000).map(|_| generator.event()).collect();
        let mut other = Generator::new(settings);
        other.skip_to(1234);
        assert_eq!(other.event(), events[1234]);
        assert_eq!(other.at(77), events[77]);
        assert!(events.windows(2).all(|pair| pair[0].time_us <= pair[1].time_us));
        assert_eq!(other.seek(events[500].time_us), 500);
        let ids: BTreeSet<String> = events.iter().map(Event::event_id).collect();
        assert_eq!(ids.len(), events.len());
    }

    #[test]
    fn the_mix_is_that_of_the_profile() {
        let mut generator = Generator::new(Settings::default());
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for _ in 0..20_000 {
            let event = generator.event();
            *counts.entry(event.collection.unwrap_or(event.kind.name())).or_default() += 1;
            let frame: serde_json::Value = serde_json::from_str(&event.v2()).expect("a whole frame");
            assert_eq!(frame["payload"]["seq"], event.seq);
            if let Some(v1) = event.v1(true) {
                let v1: serde_json::Value = serde_json::from_str(&v1).expect("a whole frame");
                assert_eq!((&v1["time_us"], &v1["did"]), (&event.time_us.into(), &event.did.into()));
            }
        }
        let share = |name: &str| counts[name] as f64 / 20_000.0;
        assert!((share(LIKE) - 0.69).abs() < 0.02 && (share(POST) - 0.12).abs() < 0.01 && (share(FOLLOW) - 0.05).abs() < 0.01);
    }

    #[test]
    fn a_burst_has_ten_times_the_rate() {
        let generator = Generator::new(Settings { rate: 10.0, ..Settings::default() });
        let per_minute = |second: i64| {
            let start = generator.settings.start_us;
            let at = |second: i64| generator.seek(start + second * 1_000_000) as f64;
            at(second + 30) - at(second)
        };
        let (calm, burst) = (per_minute(10), per_minute(1130));
        assert!(burst / calm > 8.0, "{calm} {burst}");
    }

    #[test]
    fn tids_sort_as_their_times() {
        assert_eq!(tid(0, 0), "2222222222222");
        assert!(tid(1_782_864_000_000_000, 5) < tid(1_782_864_000_000_001, 0));
    }
}
