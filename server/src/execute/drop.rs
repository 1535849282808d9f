//! DROP: what depends on an object goes first, or stops the statement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catalog::{Definition, DefinitionChange, ObjectId, ObjectKind, ObjectName, Transaction, Version};
use sql::{Drop, Error, RelationKind, Result};

use super::create::is_system_schema;
use super::ddl::{Work, is_of_kind, kind_name, relation_name, wrong_kind};
use super::find;
use crate::session::Outcome;

type Objects = BTreeMap<ObjectId, Arc<Definition>>;

pub(super) async fn drop(work: &Work<'_>, drop: &Drop) -> Result<Outcome> {
    let mut roots = Vec::new();
    let mut notices = Vec::new();
    for name in &drop.names {
        let found = match drop.kind {
            RelationKind::Schema => find_schema(&work.version, &name.name)?,
            _ => find(&work.version, &work.session.search_path, name),
        };
        match found {
            Some(definition) if definition.id < ObjectId::FIRST_USER || is_system_schema(&definition.name.schema) => {
                return Err(Error::new("42501", format!("permission denied: \"{}\" is a system relation", definition.name.name)));
            }
            Some(definition) if is_of_kind(definition.kind, drop.kind) => roots.push(definition.id),
            Some(definition) => return Err(wrong_kind(&definition, drop.kind, "DROP")),
            None => {
                let message = format!("{} \"{}\" does not exist", relation_name(drop.kind), name.name);
                let sqlstate = if drop.kind == RelationKind::Schema { "3F000" } else { "42P01" };
                match drop.if_exists {
                    true => notices.push(format!("{message}, skipping")),
                    false => return Err(Error::new(sqlstate, message)),
                }
            }
        }
    }
    let order = drop_order(&work.version.objects, &roots);
    let others: Vec<ObjectId> = order.iter().copied().filter(|id| !roots.contains(id)).collect();
    if !drop.cascade && !others.is_empty() {
        return Err(dependents_error(&work.version.objects, &roots, &others, "drop"));
    }
    notices.extend(others.iter().rev().map(|id| format!("drop cascades to {}", described(&work.version.objects[id]))));
    if !order.is_empty() {
        let definitions = order.iter().map(|id| DefinitionChange::Drop(*id)).collect();
        work.commit(Transaction { definitions, ..Transaction::default() }).await?;
    }
    for id in &order {
        let definition = &work.version.objects[id];
        if definition.kind.has_dataflow() {
            work.database.engine().stop(*id).await;
        }
        work.database.events().add("dropped", &definition.name.to_string(), kind_name(definition.kind));
    }
    Ok(Outcome { tag: format!("DROP {}", relation_name(drop.kind).to_uppercase()), notices })
}

/// 2BP01 when something reads one of the objects.
pub(super) fn refuse_dependents(version: &Version, roots: &[ObjectId], verb: &str) -> Result<()> {
    let order = drop_order(&version.objects, roots);
    let others: Vec<ObjectId> = order.into_iter().filter(|id| !roots.contains(id)).collect();
    if others.is_empty() { Ok(()) } else { Err(dependents_error(&version.objects, roots, &others, verb)) }
}

/// The objects and all that depend on them, directly or not: each before what it depends on.
fn drop_order(objects: &Objects, roots: &[ObjectId]) -> Vec<ObjectId> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for root in roots {
        visit(objects, *root, &mut seen, &mut order);
    }
    order
}

fn visit(objects: &Objects, id: ObjectId, seen: &mut BTreeSet<ObjectId>, order: &mut Vec<ObjectId>) {
    if !seen.insert(id) {
        return;
    }
    for dependent in objects.values().filter(|definition| depends_on(objects, definition, id)) {
        visit(objects, dependent.id, seen, order);
    }
    order.push(id);
}

/// Whether `definition` needs the object: it reads it, or stands in it when that is a schema.
fn depends_on(objects: &Objects, definition: &Definition, id: ObjectId) -> bool {
    let within = || {
        let container = objects.get(&id);
        container.is_some_and(|schema| schema.kind == ObjectKind::Schema && schema.name.name == definition.name.schema)
    };
    definition.id != id && (definition.depends_on.contains(&id) || within())
}

fn dependents_error(objects: &Objects, roots: &[ObjectId], others: &[ObjectId], verb: &str) -> Error {
    const LINES_MAX: usize = 100;
    let named: Vec<String> = roots.iter().map(|id| described(&objects[id])).collect();
    let mut lines = Vec::new();
    // In the order things were built, which is the one people think in.
    for id in others.iter().rev().take(LINES_MAX) {
        let definition = &objects[id];
        let needed = roots.iter().chain(others).find(|needed| depends_on(objects, definition, **needed));
        if let Some(needed) = needed {
            lines.push(format!("{} depends on {}", described(definition), described(&objects[needed])));
        }
    }
    let message = match named.as_slice() {
        [one] => format!("cannot {verb} {one} because other objects depend on it"),
        _ => format!("cannot {verb} desired object(s) because other objects depend on them"),
    };
    let error = Error::new("2BP01", message).detail(lines.join("\n"));
    match verb {
        "drop" => error.hint("Use DROP ... CASCADE to drop the dependent objects too."),
        _ => error.hint("Drop the dependent objects first, and create them again after."),
    }
}

/// `view posts`, with the schema when it is not public.
fn described(definition: &Definition) -> String {
    let ObjectName { schema, name } = &definition.name;
    let kind = kind_name(definition.kind);
    if schema == "public" || definition.kind == ObjectKind::Schema {
        format!("{kind} {name}")
    } else {
        format!("{kind} {schema}.{name}")
    }
}

fn find_schema(version: &Version, name: &str) -> Result<Option<Arc<Definition>>> {
    if name == "public" || is_system_schema(name) {
        return Err(Error::new("42501", format!("schema \"{name}\" cannot be dropped")));
    }
    let name = ObjectName { schema: name.to_owned(), name: name.to_owned() };
    Ok(version.object(&name).filter(|definition| definition.kind == ObjectKind::Schema).cloned())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    fn object(id: u64, schema: &str, name: &str, kind: ObjectKind, depends_on: &[u64]) -> (ObjectId, Arc<Definition>) {
        let definition = Definition {
            id: ObjectId(id),
            name: ObjectName { schema: schema.to_owned(), name: name.to_owned() },
            kind,
            sql: String::new(),
            schema: Arc::new(Schema::empty()),
            primary_key: Vec::new(),
            options: BTreeMap::new(),
            depends_on: depends_on.iter().map(|id| ObjectId(*id)).collect(),
            created_us: 0,
            comment: None,
            paused: false,
            watermark: None,
        };
        (ObjectId(id), Arc::new(definition))
    }

    fn objects() -> Objects {
        // A replaced view may depend on something with a greater number.
        Objects::from([
            object(1000, "lab", "lab", ObjectKind::Schema, &[]),
            object(1001, "public", "posts", ObjectKind::StoredStreamingTable, &[]),
            object(1002, "public", "recent", ObjectKind::View, &[1001, 1004]),
            object(1003, "public", "per_minute", ObjectKind::StreamingView, &[1002]),
            object(1004, "lab", "words", ObjectKind::Table, &[]),
            object(1005, "public", "other", ObjectKind::Table, &[]),
        ])
    }

    #[test]
    fn dependents_go_before_what_they_depend_on() {
        let cases: [(&[u64], &[u64]); 5] = [
            (&[1005], &[1005]),
            (&[1003], &[1003]),
            (&[1001], &[1003, 1002, 1001]),
            (&[1001, 1003], &[1003, 1002, 1001]),
            (&[1000], &[1003, 1002, 1004, 1000]),
        ];
        for (roots, expected) in cases {
            let roots: Vec<ObjectId> = roots.iter().map(|id| ObjectId(*id)).collect();
            let order: Vec<u64> = drop_order(&objects(), &roots).iter().map(|id| id.0).collect();
            assert_eq!(order, expected, "{roots:?}");
        }
    }

    #[test]
    fn the_error_lists_what_depends_on_what() {
        let objects = objects();
        let error = dependents_error(&objects, &[ObjectId(1001)], &[ObjectId(1003), ObjectId(1002)], "drop");
        assert_eq!(error.sqlstate, "2BP01");
        assert_eq!(error.message, "cannot drop streaming table posts because other objects depend on it");
        let detail = "view recent depends on streaming table posts\nstreaming view per_minute depends on view recent";
        assert_eq!(error.detail.as_deref(), Some(detail));
    }
}
