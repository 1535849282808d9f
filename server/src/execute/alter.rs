//! ALTER and COMMENT: a new version of a definition under the same identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use catalog::{Definition, ObjectId, ObjectKind, ObjectName};
use sql::{Alter, AlterAction, Error, Name, Parsed, Result, Statement};

use super::create::retention;
use super::ddl::{Work, done, is_of_kind, kind_name, relation_name, wrong_kind};
use super::drop::refuse_dependents;
use super::resolve;
use crate::session::{Backend, Outcome};

pub(super) async fn alter(work: &Work<'_>, alter: &Alter) -> Result<Outcome> {
    let definition = resolve(&work.version, &work.session.search_path, &alter.name)?;
    changeable(&definition)?;
    if !is_of_kind(definition.kind, alter.kind) {
        return Err(wrong_kind(&definition, alter.kind, "ALTER"));
    }
    match &alter.action {
        AlterAction::Rename(name) => rename(work, &definition, name).await?,
        AlterAction::Pause => pause(work, &definition).await?,
        AlterAction::Resume => resume(work, &definition).await?,
        AlterAction::Set(options) => set(work, &definition, options).await?,
    }
    Ok(done(&format!("ALTER {}", relation_name(alter.kind).to_uppercase())))
}

pub(super) async fn comment(work: &Work<'_>, name: &Name, comment: Option<&str>) -> Result<Outcome> {
    let definition = resolve(&work.version, &work.session.search_path, name)?;
    changeable(&definition)?;
    let comment = comment.filter(|text| !text.is_empty()).map(str::to_owned);
    work.put(Definition { comment, ..Definition::clone(&definition) }).await?;
    Ok(done("COMMENT"))
}

async fn rename(work: &Work<'_>, definition: &Arc<Definition>, name: &str) -> Result<()> {
    if definition.kind.has_table() {
        // The folder of its files has its name, and other readers know it by that.
        let message = format!("renaming a {} is not there yet", kind_name(definition.kind));
        let hint = format!("CREATE VIEW {name} AS SELECT * FROM {} gives it a second name.", definition.name.name);
        return Err(Error::new("0A000", message).hint(hint));
    }
    // The texts of those who read it name it.
    refuse_dependents(&work.version, &[definition.id], "rename")?;
    let target = ObjectName { schema: definition.name.schema.clone(), name: name.to_owned() };
    if work.version.object(&target).is_some() {
        return Err(Error::new("42P07", format!("relation \"{name}\" already exists")));
    }
    let renamed = Definition { name: target, ..Definition::clone(definition) };
    work.put(renamed.clone()).await?;
    if renamed.kind.has_dataflow() && !renamed.paused {
        restart(work, &renamed).await;
    }
    work.database.events().add("renamed", &renamed.name.to_string(), &format!("was {}", definition.name));
    Ok(())
}

async fn pause(work: &Work<'_>, definition: &Arc<Definition>) -> Result<()> {
    with_dataflow(definition, "pause")?;
    if definition.paused {
        return Ok(());
    }
    work.put(Definition { paused: true, ..Definition::clone(definition) }).await?;
    work.database.engine().stop(definition.id).await;
    work.database.events().add("paused", &definition.name.to_string(), kind_name(definition.kind));
    Ok(())
}

async fn resume(work: &Work<'_>, definition: &Arc<Definition>) -> Result<()> {
    with_dataflow(definition, "resume")?;
    if !definition.paused {
        return Ok(());
    }
    let resumed = Definition { paused: false, ..Definition::clone(definition) };
    // What cannot be planned stays paused.
    let planned = super::plan_definition(&work.planner_of(&resumed), &work.version, &resumed)?;
    work.put(resumed).await?;
    work.database.engine().start(planned.dataflow);
    work.database.events().add("resumed", &definition.name.to_string(), kind_name(definition.kind));
    Ok(())
}

async fn set(work: &Work<'_>, definition: &Arc<Definition>, options: &BTreeMap<String, String>) -> Result<()> {
    if !definition.kind.has_dataflow() && definition.kind != ObjectKind::StreamingTable {
        return Err(Error::new("42809", format!("a {} has no options", kind_name(definition.kind))));
    }
    const FIXED: [&str; 2] = ["connector", "table"];
    if let Some(fixed) = options.keys().find(|key| FIXED.contains(&key.as_str())) {
        return Err(
            Error::new("0A000", format!("option \"{fixed}\" cannot be changed")).hint("Drop the object and create it anew.")
        );
    }
    let mut changed = Definition::clone(definition);
    changed.options.extend(options.iter().map(|(key, value)| (key.clone(), value.clone())));
    check_options(work, definition, &changed)?;
    work.put(changed.clone()).await?;
    if changed.kind.has_dataflow() && !changed.paused {
        restart(work, &changed).await;
    }
    for reader in readers(work, definition.id) {
        restart(work, &reader).await;
    }
    work.database.events().add("changed", &changed.name.to_string(), "options");
    Ok(())
}

/// Plans the object with its new options, without running anything.
fn check_options(work: &Work<'_>, old: &Definition, new: &Definition) -> Result<()> {
    if new.kind.has_dataflow() {
        super::plan_definition(&work.planner_of(new), &work.version, new)?;
    }
    if let Some(Parsed { statement: Statement::CreateStreamingTable(mut create), .. }) = sql::parse(&new.sql)?.pop() {
        let stored = |definition: &Definition| Ok::<_, Error>(retention(&definition.options)?.is_some());
        if stored(old)? != stored(new)? {
            let message = "a streaming table cannot begin or cease to be stored";
            return Err(Error::new("0A000", message).hint("Drop it and create it anew with the retention you want."));
        }
        create.options = super::user_options(new);
        work.planner.streaming_table(&create)?;
    }
    Ok(())
}

/// Running dataflows that read a streaming table on their own.
fn readers(work: &Work<'_>, id: ObjectId) -> Vec<Arc<Definition>> {
    let Some(source) = work.version.objects.get(&id).filter(|definition| definition.kind == ObjectKind::StreamingTable) else {
        return Vec::new();
    };
    let reads = |definition: &&Arc<Definition>| {
        definition.kind.has_dataflow() && !definition.paused && definition.depends_on.contains(&source.id)
    };
    work.version.objects.values().filter(reads).cloned().collect()
}

/// Stops a dataflow and starts it from its last commit as its definition now says.
async fn restart(work: &Work<'_>, definition: &Definition) {
    work.database.engine().stop(definition.id).await;
    work.database.start_dataflow(&work.database.catalog().version(), definition);
}

fn with_dataflow(definition: &Definition, verb: &str) -> Result<()> {
    if definition.kind.has_dataflow() {
        return Ok(());
    }
    let error = Error::new(
        "42809",
        format!("cannot {verb} {} \"{}\": nothing runs for it", kind_name(definition.kind), definition.name.name),
    );
    Err(error.hint("Streaming views, sinks and stored streaming tables can be paused."))
}

fn changeable(definition: &Definition) -> Result<()> {
    if definition.id < ObjectId::FIRST_USER {
        return Err(Error::new("42501", format!("permission denied: \"{}\" is a system relation", definition.name.name)));
    }
    Ok(())
}
