//! Who is connected and what they run: for `freshet.sessions`, `freshet.queries`, `pg_stat_activity` and cancel requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::SessionInfo;

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Waits for a command.
    Idle,
    /// Waits for a command within a transaction block.
    IdleInTransaction,
    /// Waits for the end of a failed transaction block.
    IdleInFailedTransaction,
    /// Runs a statement.
    Active,
}

impl SessionState {
    /// As `pg_stat_activity.state` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Idle => "idle",
            SessionState::IdleInTransaction => "idle in transaction",
            SessionState::IdleInFailedTransaction => "idle in transaction (aborted)",
            SessionState::Active => "active",
        }
    }
}

/// A row of `freshet.sessions`.
#[derive(Debug, Clone)]
pub struct Activity {
    /// Who.
    pub info: Arc<SessionInfo>,
    /// State.
    pub state: SessionState,
    /// Wall time of the connection, microseconds since 1970.
    pub connected_us: i64,
    /// Wall time the running statement began, or the last one if none runs.
    pub started_us: Option<i64>,
    /// Text of the running statement, or of the last one.
    pub sql: String,
    /// Rows the statement has sent.
    pub rows: u64,
}

#[derive(Debug)]
struct Entry {
    activity: Activity,
    secret: i32,
    /// Cancels the statement that runs now; a new one for each statement.
    statement: CancellationToken,
    /// Ends the whole session: `pg_terminate_backend`.
    session: CancellationToken,
}

/// All connected clients.
#[derive(Debug, Default)]
pub struct Registry {
    sessions: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_pid: i32,
    entries: BTreeMap<i32, Entry>,
}

impl Registry {
    /// Takes a free process number for a new connection, unless `limit` are connected already.
    pub fn register(self: &Arc<Self>, secret: i32, limit: usize, now_us: i64, client: String) -> Option<Registration> {
        let mut state = self.sessions.lock();
        if state.entries.len() >= limit {
            return None;
        }
        // Numbers go round below 2^31 and skip those in use.
        let pid = loop {
            state.last_pid = if state.last_pid == i32::MAX { 1 } else { state.last_pid + 1 };
            if !state.entries.contains_key(&state.last_pid) {
                break state.last_pid;
            }
        };
        let info = Arc::new(SessionInfo {
            pid,
            user: String::new(),
            database: String::new(),
            application: String::new(),
            client,
            search_path: Vec::new(),
            time_zone: "UTC".to_owned(),
            settings: Arc::default(),
        });
        let session = CancellationToken::new();
        let activity =
            Activity { info, state: SessionState::Idle, connected_us: now_us, started_us: None, sql: String::new(), rows: 0 };
        state.entries.insert(pid, Entry { activity, secret, statement: CancellationToken::new(), session: session.clone() });
        Some(Registration { registry: Arc::clone(self), pid, terminated: session })
    }

    /// Everyone, by process number.
    pub fn activity(&self) -> Vec<Activity> {
        self.sessions.lock().entries.values().map(|entry| entry.activity.clone()).collect()
    }

    /// Address of a session's client.
    pub(crate) fn client(&self, pid: i32) -> String {
        self.sessions.lock().entries.get(&pid).map(|entry| entry.activity.info.client.clone()).unwrap_or_default()
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.sessions.lock().entries.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A cancel request from the wire: ends the running statement of the session if the secret is right.
    pub fn cancel_request(&self, pid: i32, secret: i32) -> bool {
        let state = self.sessions.lock();
        let Some(entry) = state.entries.get(&pid).filter(|entry| entry.secret == secret) else { return false };
        entry.statement.cancel();
        true
    }

    /// `pg_cancel_backend`.
    pub fn cancel(&self, pid: i32) -> bool {
        let state = self.sessions.lock();
        state.entries.get(&pid).map(|entry| entry.statement.cancel()).is_some()
    }

    /// `pg_terminate_backend`.
    pub fn terminate(&self, pid: i32) -> bool {
        let state = self.sessions.lock();
        state.entries.get(&pid).map(|entry| entry.session.cancel()).is_some()
    }
}

/// A session's place in the registry; given up when dropped.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    /// The process number a client knows the session by.
    pub pid: i32,
    /// Cancelled when the session is to end.
    pub terminated: CancellationToken,
}

impl Registration {
    /// What others see of the session from now on.
    pub fn describe(&self, info: Arc<SessionInfo>) {
        self.update(|entry| entry.activity.info = info);
    }

    /// A statement begins; the token is cancelled when it is to end. A cancel request that came before does not count.
    pub fn begin(&self, sql: &str, now_us: i64) -> CancellationToken {
        let token = CancellationToken::new();
        self.update(|entry| {
            entry.statement = token.clone();
            entry.activity.state = SessionState::Active;
            entry.activity.started_us = Some(now_us);
            entry.activity.sql = sql.to_owned();
            entry.activity.rows = 0;
        });
        token
    }

    /// The statement has sent so many rows.
    pub fn rows(&self, rows: u64) {
        self.update(|entry| entry.activity.rows = rows);
    }

    /// The statement has ended.
    pub fn end(&self, state: SessionState) {
        self.update(|entry| entry.activity.state = state);
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.registry.sessions.lock().entries.get_mut(&self.pid) {
            change(entry);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.lock().entries.remove(&self.pid);
    }
}
