//! Statements as they are written, and as they are misspelt.

use super::*;
use crate::{AlterAction, CopyDirection, EmitClause, RelationKind};

fn debug(text: &str) -> String {
    match parse(text) {
        Ok(parsed) => parsed.into_iter().map(|parsed| essentials(&parsed.statement)).collect::<Vec<_>>().join("; "),
        Err(error) => {
            let position = error.position.map(|position| format!("@{position}")).unwrap_or_default();
            let hint = error.hint.map(|hint| format!(" [{hint}]")).unwrap_or_default();
            format!("{}{position}: {}{hint}", error.sqlstate, error.message)
        }
    }
}

fn essentials(statement: &Statement) -> String {
    match statement {
        Statement::Query(query) => format!("query {query}"),
        Statement::Insert(insert) => insert.to_string(),
        Statement::Update(update) => update.to_string(),
        Statement::Delete(delete) => delete.to_string(),
        Statement::CreateStreamingTable(create) => format!(
            "stream {:?} own={} [{}] watermark={:?} include={:?} {:?} {:?} {:?}",
            create.name.name,
            create.own_columns,
            create.columns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            create.watermark,
            create
                .include
                .iter()
                .map(|include| (&*include.what, include.header.as_deref(), &*include.column))
                .collect::<Vec<_>>(),
            create.options,
            create.format,
            create.encode,
        ),
        Statement::CreateStreamingView(create) => format!(
            "streaming view {} replace={} {:?} {} emit={:?} lateness={:?} late={:?}",
            create.name.name,
            create.or_replace,
            create.options,
            create.query,
            create.emit,
            create.allow_lateness_us,
            create.late_into.as_ref().map(|name| &name.name)
        ),
        Statement::CreateSink(create) => {
            format!("sink {} {} {:?} {:?}", create.name.name, create.query, create.options, create.emit)
        }
        Statement::CreateTable(create) => {
            format!("table {} {} key={:?}", create.name.name, create.columns.len(), create.primary_key)
        }
        Statement::Copy(copy) => format!("copy {:?} {:?}", copy.direction, copy.options),
        Statement::Explain { analyze, verbose, statement } => {
            format!("explain {analyze} {verbose} {}@{}", statement.text, statement.offset)
        }
        Statement::Prepare { name, statement } => format!("prepare {name} {}@{}", statement.text, statement.offset),
        Statement::Declare { name, hold, query } => format!("declare {name} {hold} {}", query.text),
        other => format!("{other:?}"),
    }
}

#[test]
fn statements_and_mistakes() {
    for (text, expected) in [
        ("", "Empty"),
        (" -- nothing\n ; ;", "Empty"),
        ("select 1; select 2", "query SELECT 1; query SELECT 2"),
        ("select ';' -- ;\n;", "query SELECT ';'"),
        ("SELCT 1", "42601@1: syntax error at or near \"SELCT\" [Perhaps you meant SELECT.]"),
        ("select 1;\nselect * from t\nwhere )", "42601@33: syntax error at or near \")\""),
        ("select (1", "42601@10: syntax error at end of input"),
        ("select 'abc", "42601@8: unterminated quoted string"),
        ("select a from t GRUOP BY a", "42601@23: syntax error at or near \"BY\" [Perhaps you meant GROUP.]"),
        (
            "CREATE STREAMING TABLE t (a INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector='kafka', scan.startup.mode='earliest', n=3) FORMAT PLAIN ENCODE JSON",
            "stream \"t\" own=false [a INT, ts TIMESTAMP] watermark=Some((\"ts\", 5000000)) include=[] {\"connector\": \"kafka\", \"n\": \"3\", \"scan.startup.mode\": \"earliest\"} Some(\"PLAIN\") Some(\"JSON\")",
        ),
        (
            "create source j (*, watermark for event_time as event_time) include partition as kpart include header 'op' as op include key with (connector='jetstream')",
            "stream \"j\" own=true [] watermark=Some((\"event_time\", 0)) include=[(\"partition\", None, \"kpart\"), (\"header\", Some(\"op\"), \"op\"), (\"key\", None, \"_key\")] {\"connector\": \"jetstream\"} None None",
        ),
        (
            "CREATE STREAMNG TABLE t (a int) WITH (connector='x')",
            "42601@8: syntax error at or near \"STREAMNG\" [Perhaps you meant STREAMING.]",
        ),
        (
            "CREATE STREAMING TABLE t (a int, WATERMARK FOR a AS b - INTERVAL '1 s') WITH (connector='x')",
            "42601@53: a watermark is the column less an interval [Write WATERMARK FOR a AS a - INTERVAL '5 seconds'.]",
        ),
        ("CREATE STREAMING TABLE t (a int, a text) WITH (connector='x')", "42701@34: column \"a\" specified more than once"),
        (
            "CREATE STREAMING TABLE t (a int)",
            "42601: a streaming table needs WITH (connector = '…') [Connectors are jetstream, kafka, files, nexmark and bluesky.]",
        ),
        ("CREATE STREAMING TABLE t (a int) WITH (a='1', a='2')", "42601@47: option \"a\" is given more than once"),
        (
            "CREATE MATERIALIZED VIEW IF NOT EXISTS v WITH (state_ttl='7 days') AS SELECT a FROM t EMIT ON WINDOW CLOSE ALLOW LATENESS INTERVAL '1 minute' LATE INTO late",
            "streaming view v replace=false {\"state_ttl\": \"7 days\"} SELECT a FROM t emit=Some(OnWindowClose) lateness=Some(60000000) late=Some(\"late\")",
        ),
        (
            "CREATE OR REPLACE STREAMING VIEW v AS WITH x AS (SELECT 1) SELECT * FROM x JOIN emit ON true EMIT EVERY '5 seconds';",
            "streaming view v replace=true {} WITH x AS (SELECT 1) SELECT * FROM x JOIN emit ON true emit=Some(Every(5000000)) lateness=None late=None",
        ),
        (
            "CREATE STREAMING VIEW v AS SELECT a FROM t EMIT ON WINDOW CLOSED",
            "42601@59: syntax error at or near \"CLOSED\" [Perhaps you meant CLOSE.]",
        ),
        (
            "CREATE SINK s FROM \"V\" WITH (connector = 'blackhole')",
            "sink s SELECT * FROM \"V\" {\"connector\": \"blackhole\"} None",
        ),
        (
            "CREATE SINK s AS SELECT a FROM t WHERE a > 1 WITH (connector = 'blackhole') EMIT ON UPDATE",
            "sink s SELECT a FROM t WHERE a > 1 {\"connector\": \"blackhole\"} Some(OnUpdate)",
        ),
        ("CREATE TABLE t (a INT PRIMARY KEY, check TEXT NOT NULL)", "table t 2 key=[\"a\"]"),
        ("CREATE TABLE t (a INT, b INT, PRIMARY KEY (a, b))", "table t 2 key=[\"a\", \"b\"]"),
        ("CREATE TABLE t (a INT, UNIQUE (a))", "0A000@24: only PRIMARY KEY and NOT NULL constraints are supported"),
        ("CREATE INDEX i ON t (a)", "0A000@8: CREATE INDEX is not supported"),
        (
            "COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';')",
            "copy In {\"delimiter\": \";\", \"format\": \"csv\", \"header\": \"true\"}",
        ),
        ("COPY (SELECT 1) TO STDOUT", "copy Out {\"format\": \"text\"}"),
        ("COPY t FROM STDIN csv header null 'x'", "copy In {\"format\": \"csv\", \"header\": \"true\", \"null\": \"x\"}"),
        (
            "COPY t FROM '/etc/passwd'",
            "0A000@13: COPY to or from a file of the server is not supported [Anyone can COPY to stdout or from stdin. psql's \\copy command also works for anyone.]",
        ),
        ("EXPLAIN (ANALYZE, VERBOSE off) SELECT 1", "explain true false SELECT 1@31"),
        ("EXPLAIN ANALYZE SELECT 1", "explain true false SELECT 1@16"),
        ("EXPLAIN EXPLAIN SELECT 1", "0A000@9: EXPLAIN is not possible for this statement"),
        ("PREPARE p (int) AS SELECT $1", "prepare p SELECT $1@19"),
        ("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT 1", "declare c true SELECT 1"),
        ("FETCH FORWARD 100 FROM c", "Fetch { name: \"c\", count: Some(100) }"),
        ("FETCH c", "Fetch { name: \"c\", count: Some(1) }"),
        ("FETCH ALL IN c", "Fetch { name: \"c\", count: None }"),
        ("SET search_path TO a, \"B\"", "Set { local: false, name: \"search_path\", value: Some(\"a, B\") }"),
        ("SET LOCAL x.y = -1", "Set { local: true, name: \"x.y\", value: Some(\"-1\") }"),
        ("SET TIME ZONE 'UTC'", "Set { local: false, name: \"timezone\", value: Some(\"UTC\") }"),
        ("SHOW streaming views", "Show(\"streaming views\")"),
        ("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", "Begin"),
        ("ROLLBACK TO SAVEPOINT a", "Savepoint(\"ROLLBACK\")"),
        ("FLUSH", "Flush"),
        ("FLUSH x", "42601@7: syntax error at or near \"x\""),
        ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"),
        (
            "SELECT * FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
            "query SELECT * FROM TABLE(SESSION(\"partition by\"(bid, bidder), DESCRIPTOR(ts), INTERVAL '10' SECOND))",
        ),
        (
            "SELECT * FROM TABLE(TUMBLE(DATA => TABLE s.bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECOND))",
            "query SELECT * FROM TABLE(TUMBLE(DATA => s.bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' SECOND))",
        ),
    ] {
        assert_eq!(debug(text), expected, "{text}");
    }
    let drop = parse("DROP MATERIALIZED VIEW IF EXISTS a, s.b CASCADE").expect("parses");
    assert!(
        matches!(&drop[0].statement, Statement::Drop(drop) if drop.kind == RelationKind::StreamingView && drop.cascade && drop.names.len() == 2)
    );
    let alter = parse("ALTER STREAMING VIEW v SET (state_ttl = '1 day')").expect("parses");
    assert!(
        matches!(&alter[0].statement, Statement::Alter(alter) if matches!(&alter.action, AlterAction::Set(options) if options["state_ttl"] == "1 day"))
    );
    assert!(
        matches!(&parse("COPY t TO STDOUT BINARY").expect("parses")[0].statement, Statement::Copy(copy) if copy.direction == CopyDirection::Out && copy.options["format"] == "binary")
    );
    assert!(
        matches!(&parse("CREATE SINK s FROM v WITH (connector='b') EMIT ON WINDOW CLOSE").expect("parses")[0].statement, Statement::CreateSink(sink) if sink.emit == Some(EmitClause::OnWindowClose))
    );
}

#[test]
fn offsets_count_characters_of_the_whole_text() {
    let parsed = parse("select 'ä€𝄞';\n  select  foo ;").expect("parses");
    assert_eq!((parsed[1].text.as_str(), parsed[1].offset), ("select  foo", 16));
    assert_eq!(parse("select 'ä€𝄞';\n selct 1").expect_err("misspelt").position, Some(16));
}

#[test]
fn nesting_is_refused_before_the_stack_ends() {
    for text in [
        format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("select {}1", "- ".repeat(100_000)),
        format!("select {}true", "not ".repeat(100_000)),
        format!("select 1{}", " + 1".repeat(100_000)),
        format!("select 1{}", " union all select 1".repeat(100_000)),
        format!("select {} 1 {}", "case when true then".repeat(10_000), " end".repeat(10_000)),
        format!("{}select 1", "explain ".repeat(10_000)),
        format!("{}select 1", "prepare a as ".repeat(10_000)),
        format!("select {}1{}", "array[".repeat(10_000), "]".repeat(10_000)),
        format!("create table t (a int{})", "[]".repeat(10_000)),
    ] {
        match parse(&text) {
            Ok(_) => assert!(text.contains("[]"), "{}", &text[..40]),
            Err(error) => assert!(["54001", "0A000", "42601"].contains(&error.sqlstate), "{} {}", error.sqlstate, &text[..40]),
        }
    }
}

/// xorshift, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn mutated_statements_never_panic() {
    const TEXTS: &[&str] = &[
        "CREATE STREAMING TABLE t (a INT, ts TIMESTAMP, *, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') INCLUDE header 'x' AS c WITH (connector = 'kafka', a.b = 1) FORMAT PLAIN ENCODE JSON (x = 'y');",
        "CREATE OR REPLACE STREAMING VIEW v WITH (state_ttl = '1 day') AS SELECT a, count(*) FILTER (WHERE b > 1) FROM TABLE(HOP(TABLE t PARTITION BY (a, b), DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '10' SECOND)) GROUP BY a EMIT ON WINDOW CLOSE ALLOW LATENESS INTERVAL '1 minute' LATE INTO x;",
        "COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, FORCE_QUOTE (a, b), NULL 'x'); COPY (SELECT 1) TO STDOUT CSV HEADER QUOTE '\"'",
        "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT a -> 'b' ->> 'c' #>> '{x,y}' FROM t WHERE x @> '{}' AND y ? 'k'; FETCH FORWARD 10 FROM c; CLOSE ALL;",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT CASE WHEN a THEN 1 ELSE 2 END, ARRAY[1,2][1], (regexp_match(x, 'y'))[2] FROM a LEFT JOIN b USING (c) WHERE a IN (SELECT 1) ORDER BY 1 LIMIT 3;",
        "INSERT INTO t (a, b) VALUES (1, DEFAULT), ($1, $2::jsonb); UPDATE t SET a = 1 WHERE b; DELETE FROM t USING u WHERE t.a = u.a; TRUNCATE TABLE a, b; DROP VIEW IF EXISTS v CASCADE",
        "SET search_path TO a, \"B\"; SHOW TIME ZONE; RESET ALL; ALTER SYSTEM SET x = 'y'; COMMENT ON TABLE t IS 'x'; PREPARE p (int) AS SELECT $1; EXECUTE p (1); E'\\n' U&'\\0041' $x$ a $x$",
    ];
    const WORDS: &[&str] = &[
        "(", ")", ",", ";", "'", "\"", "TABLE", "AS", "SELECT", "WITH", "BY", "=", ".", "*", "$$", "--", "/*", "1", "-", "[",
        "]", "EMIT", "ON", "é", "\0",
    ];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..3_000 {
        let mut words: Vec<&str> = TEXTS[random.below(TEXTS.len())].split_inclusive(|c: char| !c.is_alphanumeric()).collect();
        for _ in 0..=random.below(4) {
            let at = random.below(words.len());
            match random.below(4) {
                0 => {
                    words.remove(at);
                }
                1 => words.insert(at, WORDS[random.below(WORDS.len())]),
                2 => words[at] = WORDS[random.below(WORDS.len())],
                _ => {
                    let other = random.below(words.len());
                    words.swap(at, other);
                }
            }
            if words.is_empty() {
                break;
            }
        }
        let text = words.concat();
        if let Err(error) = parse(&text) {
            let length = text.chars().count();
            assert!(error.position.is_none_or(|position| (1..=length + 1).contains(&position)), "{error:?} in {text}");
        }
    }
}
