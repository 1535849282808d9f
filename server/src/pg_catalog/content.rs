//! The rows of the relations, made from a catalog version when a query is planned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Field;
use catalog::{Definition, ObjectKind, Version};

use super::oid;
use super::tables::{Cell, EMPTY, Row};
use crate::pgwire::types::{PgType, Scalar, TYPES, type_modifier};
use crate::session::{Backend, SETTINGS, SessionInfo};

/// Postgres's own schemas and ours, by number.
const PG_CATALOG: i64 = 11;
const PUBLIC: i64 = 2_200;
const INFORMATION_SCHEMA: i64 = 13_000;
const FRESHET: i64 = 13_001;
/// The one role there is: whoever is connected.
pub(super) const ROLE: i64 = 10;
/// `heap`.
const HEAP: i64 = 2;
/// The database.
const DATABASE: i64 = 5;
/// Primary keys are listed as indexes and constraints, numbered away from tables.
const INDEX_OFFSET: i64 = 1 << 30;
const CONSTRAINT_OFFSET: i64 = 3 << 29;

/// Everything rows are made from.
pub(super) struct Content<'a> {
    pub(super) version: &'a Arc<Version>,
    pub(super) session: &'a SessionInfo,
    pub(super) backend: &'a dyn Backend,
}

macro_rules! row {
    ($($name:ident: $value:expr),* $(,)?) => { vec![$((stringify!($name), Cell::from($value))),*] };
}

/// Letter of `pg_class.relkind`; `None` for what is no relation.
pub(super) fn relkind(kind: ObjectKind) -> Option<&'static str> {
    match kind {
        ObjectKind::Table | ObjectKind::StoredStreamingTable | ObjectKind::StreamingTable => Some("r"),
        ObjectKind::StreamingView => Some("m"),
        ObjectKind::View => Some("v"),
        ObjectKind::Sink | ObjectKind::Schema => None,
    }
}

/// All schemas with their numbers.
pub(super) fn schemas(version: &Version) -> BTreeMap<String, i64> {
    let own = [("pg_catalog", PG_CATALOG), ("public", PUBLIC), ("information_schema", INFORMATION_SCHEMA), ("freshet", FRESHET)];
    let mut schemas: BTreeMap<String, i64> = own.into_iter().map(|(name, number)| (name.to_owned(), number)).collect();
    for definition in version.objects.values().filter(|definition| definition.kind == ObjectKind::Schema) {
        schemas.entry(definition.name.name.clone()).or_insert_with(|| oid(definition.id));
    }
    schemas
}

/// User relations.
pub(super) fn relations(version: &Version) -> impl Iterator<Item = (&Arc<Definition>, &'static str)> {
    version.objects.values().filter_map(|definition| Some((definition, relkind(definition.kind)?)))
}

/// The text of a view's query.
pub(super) fn view_query(definition: &Definition) -> String {
    // The statement is canonical; what follows its first AS outside of a column list is the query.
    let text = &definition.sql;
    let upper = text.to_ascii_uppercase();
    upper.find(" AS ").map_or_else(|| text.clone(), |at| text[at + 4..].trim().to_owned())
}

/// Where the columns of a primary key stand, from 1.
fn key_columns(definition: &Definition) -> Vec<i64> {
    let place = |name: &String| definition.schema.index_of(name).ok().and_then(|index| i64::try_from(index + 1).ok());
    definition.primary_key.iter().filter_map(place).collect()
}

fn yes_no(value: bool) -> &'static str {
    if value { "YES" } else { "NO" }
}

impl Content<'_> {
    /// Rows of a relation.
    pub(super) fn rows(&self, schema: &str, name: &str) -> Vec<Row> {
        if EMPTY.contains(&name) {
            return Vec::new();
        }
        match (schema, name) {
            ("pg_catalog", "pg_am") => vec![row! { oid: HEAP, amname: "heap", amtype: "t" }, row! { oid: 403, amname: "btree", amtype: "i" }],
            ("pg_catalog", "pg_namespace") => {
                let schemas = schemas(self.version);
                schemas.into_iter().map(|(name, number)| row! { oid: number, nspname: name, nspowner: ROLE }).collect()
            }
            ("pg_catalog", "pg_class") => self.classes(),
            ("pg_catalog", "pg_attribute") => self.attributes(),
            ("pg_catalog", "pg_type") => types(),
            ("pg_catalog", "pg_index") => self.keyed(|definition, keys| {
                let zeros = Cell::Numbers(vec![0; keys.len()]);
                let count = i64::try_from(keys.len()).unwrap_or(0);
                row! {
                    indexrelid: oid(definition.id) + INDEX_OFFSET, indrelid: oid(definition.id), indnatts: count, indnkeyatts: count,
                    indisunique: true, indisprimary: true, indimmediate: true, indisvalid: true, indisready: true, indislive: true,
                    indkey: Cell::Numbers(keys), indcollation: zeros.clone(), indclass: zeros.clone(), indoption: zeros,
                }
            }),
            ("pg_catalog", "pg_constraint") => self.keyed(|definition, keys| {
                row! {
                    oid: oid(definition.id) + CONSTRAINT_OFFSET, conname: key_name(definition), connamespace: self.namespace(definition),
                    contype: "p", convalidated: true, conrelid: oid(definition.id), conindid: oid(definition.id) + INDEX_OFFSET,
                    confupdtype: " ", confdeltype: " ", confmatchtype: " ", conislocal: true, connoinherit: true,
                    conkey: Cell::Numbers(keys),
                }
            }),
            ("pg_catalog", "pg_indexes") => self.keyed(|definition, _| {
                row! {
                    schemaname: definition.name.schema.as_str(), tablename: definition.name.name.as_str(),
                    indexname: key_name(definition), indexdef: index_definition(definition),
                }
            }),
            ("pg_catalog", "pg_description") => {
                let described = relations(self.version).filter_map(|(definition, _)| Some((definition, definition.comment.as_deref()?)));
                described.map(|(definition, comment)| row! { objoid: oid(definition.id), classoid: 1_259, objsubid: 0, description: comment }).collect()
            }
            ("pg_catalog", "pg_database") => vec![row! {
                oid: DATABASE, datname: self.session.database.as_str(), datdba: ROLE, encoding: 6, datlocprovider: "c", datallowconn: true,
                datconnlimit: -1, datcollate: "C.UTF-8", datctype: "C.UTF-8",
            }],
            ("pg_catalog", "pg_roles") => vec![row! {
                rolname: self.session.user.as_str(), rolsuper: true, rolinherit: true, rolcreaterole: true, rolcreatedb: true,
                rolcanlogin: true, rolconnlimit: -1, rolbypassrls: true, oid: ROLE,
            }],
            ("pg_catalog", "pg_user") => vec![row! { usename: self.session.user.as_str(), usesysid: ROLE, usecreatedb: true, usesuper: true }],
            ("pg_catalog", "pg_settings") => self.settings(),
            ("pg_catalog", "pg_stat_activity") => self.activity(),
            ("pg_catalog", "pg_stat_user_tables") => relations(self.version)
                .filter(|(_, kind)| *kind != "v")
                .map(|(definition, _)| {
                    let statistics = self.version.statistics(definition.id);
                    let rows = statistics.map(|numbers| i64::try_from(numbers.file_rows + numbers.memtable_rows).unwrap_or(i64::MAX));
                    row! { relid: oid(definition.id), schemaname: definition.name.schema.as_str(), relname: definition.name.name.as_str(), seq_scan: 0, n_live_tup: rows, n_dead_tup: 0 }
                })
                .collect(),
            ("pg_catalog", "pg_tables") => self.of_kind("r", |definition| {
                row! {
                    schemaname: definition.name.schema.as_str(), tablename: definition.name.name.as_str(),
                    tableowner: self.session.user.as_str(), hasindexes: !definition.primary_key.is_empty(),
                }
            }),
            ("pg_catalog", "pg_views") => self.of_kind("v", |definition| {
                row! {
                    schemaname: definition.name.schema.as_str(), viewname: definition.name.name.as_str(),
                    viewowner: self.session.user.as_str(), definition: view_query(definition),
                }
            }),
            ("pg_catalog", "pg_matviews") => self.of_kind("m", |definition| {
                row! {
                    schemaname: definition.name.schema.as_str(), matviewname: definition.name.name.as_str(),
                    matviewowner: self.session.user.as_str(), hasindexes: !definition.primary_key.is_empty(), ispopulated: true,
                    definition: view_query(definition),
                }
            }),
            ("information_schema", "schemata") => schemas(self.version)
                .into_keys()
                .map(|name| row! { catalog_name: self.session.database.as_str(), schema_name: name, schema_owner: self.session.user.as_str() })
                .collect(),
            // Postgres leaves materialized views out of information_schema; tools that know nothing else would not find ours.
            ("information_schema", "tables") => relations(self.version)
                .map(|(definition, kind)| {
                    row! {
                        table_catalog: self.session.database.as_str(), table_schema: definition.name.schema.as_str(),
                        table_name: definition.name.name.as_str(), table_type: if kind == "r" { "BASE TABLE" } else { "VIEW" },
                        is_insertable_into: yes_no(definition.kind == ObjectKind::Table), is_typed: "NO",
                    }
                })
                .collect(),
            ("information_schema", "columns") => self.columns(),
            ("information_schema", "views") => self.of_kind("v", |definition| {
                row! {
                    table_catalog: self.session.database.as_str(), table_schema: definition.name.schema.as_str(),
                    table_name: definition.name.name.as_str(), view_definition: view_query(definition), check_option: "NONE",
                    is_updatable: "NO", is_insertable_into: "NO",
                }
            }),
            ("information_schema", "table_constraints") => self.keyed(|definition, _| {
                row! {
                    constraint_catalog: self.session.database.as_str(), constraint_schema: definition.name.schema.as_str(),
                    constraint_name: key_name(definition), table_catalog: self.session.database.as_str(),
                    table_schema: definition.name.schema.as_str(), table_name: definition.name.name.as_str(),
                    constraint_type: "PRIMARY KEY", is_deferrable: "NO", initially_deferred: "NO", enforced: "YES",
                }
            }),
            ("information_schema", "key_column_usage") => self.key_column_usage(),
            ("information_schema", "character_sets") => vec![row! {
                character_set_name: "UTF8", character_repertoire: "UCS", form_of_use: "UTF8",
                default_collate_catalog: self.session.database.as_str(), default_collate_schema: "pg_catalog", default_collate_name: "C.UTF-8",
            }],
            _ => Vec::new(),
        }
    }

    fn namespace(&self, definition: &Definition) -> i64 {
        schemas(self.version).get(&definition.name.schema).copied().unwrap_or(0)
    }

    fn of_kind(&self, wanted: &str, row: impl Fn(&Definition) -> Row) -> Vec<Row> {
        relations(self.version).filter(|(_, kind)| *kind == wanted).map(|(definition, _)| row(definition)).collect()
    }

    /// A row for each relation with a primary key.
    fn keyed(&self, row: impl Fn(&Definition, Vec<i64>) -> Row) -> Vec<Row> {
        let keyed = relations(self.version).filter(|(definition, _)| !definition.primary_key.is_empty());
        keyed.map(|(definition, _)| row(definition, key_columns(definition))).collect()
    }

    fn classes(&self) -> Vec<Row> {
        let schemas = schemas(self.version);
        let mut rows = Vec::new();
        for (definition, kind) in relations(self.version) {
            let statistics = self.version.statistics(definition.id);
            let tuples =
                statistics.map_or(-1, |numbers| i64::try_from(numbers.file_rows + numbers.memtable_rows).unwrap_or(i64::MAX));
            let namespace = schemas.get(&definition.name.schema).copied().unwrap_or(0);
            let keyed = !definition.primary_key.is_empty();
            rows.push(row! {
                oid: oid(definition.id), relname: definition.name.name.as_str(), relnamespace: namespace, relowner: ROLE,
                relam: if kind == "v" { 0 } else { HEAP }, relpages: 0, reltuples: tuples, relallvisible: 0, relhasindex: keyed,
                relpersistence: "p", relkind: kind, relnatts: i64::try_from(definition.schema.fields().len()).unwrap_or(0),
                relispopulated: true, relreplident: "d",
            });
            if keyed {
                rows.push(row! {
                    oid: oid(definition.id) + INDEX_OFFSET, relname: key_name(definition), relnamespace: namespace, relowner: ROLE,
                    relam: 403, relpages: 0, reltuples: tuples, relallvisible: 0, relpersistence: "p", relkind: "i",
                    relnatts: i64::try_from(definition.primary_key.len()).unwrap_or(0), relispopulated: true, relreplident: "n",
                });
            }
        }
        rows
    }

    fn attributes(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (definition, _) in relations(self.version) {
            for (number, field) in (1i64..).zip(definition.schema.fields()) {
                let kind = PgType::of(field);
                let length = kind.size();
                rows.push(row! {
                    attrelid: oid(definition.id), attname: field.name().as_str(), atttypid: i64::from(kind.oid()), attstattarget: -1,
                    attlen: i64::from(length), attnum: number, attndims: i64::from(matches!(kind, PgType::Array(_))), attcacheoff: -1,
                    atttypmod: i64::from(type_modifier(field)), attbyval: matches!(length, 1 | 2 | 4 | 8), attalign: alignment(length),
                    attstorage: storage(kind), attnotnull: !field.is_nullable(), attislocal: true, attinhcount: 0,
                    attcollation: collation(kind),
                });
            }
        }
        rows
    }

    fn columns(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (definition, _) in relations(self.version) {
            for (number, field) in (1i64..).zip(definition.schema.fields()) {
                rows.push(self.column(definition, number, field));
            }
        }
        rows
    }

    fn column(&self, definition: &Definition, number: i64, field: &Field) -> Row {
        let kind = PgType::of(field);
        let (precision, radix, scale) = match (kind, type_modifier(field)) {
            (PgType::One(Scalar::Int2), _) => (Some(16), Some(2), Some(0)),
            (PgType::One(Scalar::Int4), _) => (Some(32), Some(2), Some(0)),
            (PgType::One(Scalar::Int8), _) => (Some(64), Some(2), Some(0)),
            (PgType::One(Scalar::Float4), _) => (Some(24), Some(2), None),
            (PgType::One(Scalar::Float8), _) => (Some(53), Some(2), None),
            (PgType::One(Scalar::Numeric), modifier) if modifier >= 4 => {
                (Some(i64::from((modifier - 4) >> 16)), Some(10), Some(i64::from((modifier - 4) & 0x7ff)))
            }
            (PgType::One(Scalar::Numeric), _) => (None, Some(10), None),
            _ => (None, None, None),
        };
        let datetime =
            matches!(kind, PgType::One(Scalar::Timestamp | Scalar::Timestamptz | Scalar::Time | Scalar::Interval)).then_some(6);
        let data_type = if let PgType::Array(_) = kind { "ARRAY".to_owned() } else { kind.sql_name() };
        row! {
            table_catalog: self.session.database.as_str(), table_schema: definition.name.schema.as_str(),
            table_name: definition.name.name.as_str(), column_name: field.name().as_str(), ordinal_position: number,
            is_nullable: yes_no(field.is_nullable()), data_type: data_type, numeric_precision: precision,
            numeric_precision_radix: radix, numeric_scale: scale, datetime_precision: datetime,
            udt_catalog: self.session.database.as_str(), udt_schema: "pg_catalog", udt_name: kind.name(), is_identity: "NO",
            is_generated: "NEVER", is_updatable: yes_no(definition.kind == ObjectKind::Table),
        }
    }

    fn key_column_usage(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (definition, _) in relations(self.version) {
            for (number, name) in (1i64..).zip(&definition.primary_key) {
                rows.push(row! {
                    constraint_catalog: self.session.database.as_str(), constraint_schema: definition.name.schema.as_str(),
                    constraint_name: key_name(definition), table_catalog: self.session.database.as_str(),
                    table_schema: definition.name.schema.as_str(), table_name: definition.name.name.as_str(),
                    column_name: name.as_str(), ordinal_position: number,
                });
            }
        }
        rows
    }

    fn settings(&self) -> Vec<Row> {
        let own: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        let row = |(name, value): &(String, String)| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name);
            row! {
                name: name.as_str(), setting: value.as_str(), category: if own.contains(name.as_str()) { "Session" } else { "Server" },
                short_desc: setting.map(|setting| setting.description), context: if own.contains(name.as_str()) { "user" } else { "sighup" },
                vartype: "string", source: "session", boot_val: value.as_str(), reset_val: value.as_str(),
            }
        };
        self.session.settings.iter().map(row).collect()
    }

    fn activity(&self) -> Vec<Row> {
        let row = |activity: crate::session::Activity| {
            let (address, port) = activity.info.client.rsplit_once(':').unwrap_or((&activity.info.client, ""));
            row! {
                datid: DATABASE, datname: activity.info.database.as_str(), pid: i64::from(activity.info.pid), usesysid: ROLE,
                usename: activity.info.user.as_str(), application_name: activity.info.application.as_str(),
                client_addr: address, client_port: port.parse::<i64>().ok(), state: activity.state.as_str(),
                query: activity.sql, backend_type: "client backend",
            }
        };
        self.backend.sessions().activity().into_iter().map(row).collect()
    }
}

/// Name of a primary key's index and constraint.
pub(super) fn key_name(definition: &Definition) -> String {
    format!("{}_pkey", definition.name.name)
}

/// As `pg_get_indexdef` writes it.
pub(super) fn index_definition(definition: &Definition) -> String {
    format!(
        "CREATE UNIQUE INDEX {} ON {} USING btree ({})",
        key_name(definition),
        definition.name,
        definition.primary_key.join(", ")
    )
}

/// The relation whose primary key has this number as an index or a constraint.
pub(super) fn keyed_by(version: &Version, number: i64) -> Option<&Arc<Definition>> {
    let is_key = |definition: &Arc<Definition>| matches!(number - oid(definition.id), INDEX_OFFSET | CONSTRAINT_OFFSET);
    relations(version).map(|(definition, _)| definition).find(|definition| is_key(definition))
}

fn alignment(length: i16) -> &'static str {
    match length {
        1 => "c",
        2 => "s",
        8 | 16 => "d",
        _ => "i",
    }
}

fn storage(kind: PgType) -> &'static str {
    match kind {
        PgType::One(Scalar::Numeric) => "m",
        kind if kind.size() == -1 => "x",
        _ => "p",
    }
}

fn collation(kind: PgType) -> i64 {
    match kind {
        PgType::One(scalar) | PgType::Array(scalar) if scalar.row().category == "S" => 100,
        _ => 0,
    }
}

fn types() -> Vec<Row> {
    let mut rows = Vec::new();
    for known in TYPES {
        let (oid, array) = (i64::from(known.oid), i64::from(known.array_oid));
        rows.push(row! {
            oid: oid, typname: known.name, typnamespace: PG_CATALOG, typowner: ROLE, typlen: i64::from(known.size),
            typbyval: matches!(known.size, 1 | 2 | 4 | 8), typtype: if known.category == "P" || known.category == "X" { "p" } else { "b" },
            typcategory: known.category, typisdefined: true, typdelim: ",", typarray: array, typalign: alignment(known.size),
            typstorage: storage(PgType::One(known.scalar)), typtypmod: -1, typndims: 0, typcollation: collation(PgType::One(known.scalar)),
        });
        if array != 0 {
            rows.push(row! {
                oid: array, typname: format!("_{}", known.name), typnamespace: PG_CATALOG, typowner: ROLE, typlen: -1, typtype: "b",
                typcategory: "A", typisdefined: true, typdelim: ",", typelem: oid, typalign: "i", typstorage: "x", typtypmod: -1,
                typndims: 0, typcollation: collation(PgType::Array(known.scalar)),
            });
        }
    }
    rows
}
