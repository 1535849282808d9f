//! SHOW and DESCRIBE: settings, and lists of what is there.

use std::sync::Arc;

use catalog::{Definition, ObjectKind, ObjectName, Version};
use sql::{Error, Name, Result};

use super::{Rows, SETTINGS, Session};
use crate::pgwire::types::{PgType, format_type, type_modifier};

impl Session {
    /// SHOW name, SHOW ALL, SHOW STREAMING VIEWS and the like.
    pub(super) fn show(&mut self, name: &str) -> Result<Rows> {
        use ObjectKind::{Schema, Sink, StoredStreamingTable, StreamingTable, StreamingView, Table, View};
        match name {
            "all" => {
                let description =
                    |name: &str| SETTINGS.iter().find(|setting| setting.name == name).map_or("", |setting| setting.description);
                let row = |(name, value): &(String, String)| vec![name.clone(), value.clone(), description(name).to_owned()];
                let rows: Vec<_> = self.info().settings.iter().map(row).collect();
                Ok(Rows::text(&["name", "setting", "description"], &rows))
            }
            "tables" => Ok(self.list(&[Table])),
            "views" => Ok(self.list(&[View])),
            "streaming views" | "materialized views" => Ok(self.list(&[StreamingView])),
            "streaming tables" | "sources" => Ok(self.list(&[StreamingTable, StoredStreamingTable])),
            "sinks" => Ok(self.list(&[Sink])),
            "schemas" => Ok(self.list(&[Schema])),
            _ => {
                let server = || {
                    let known = self.info().settings.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                    known.map(|(_, value)| value.clone())
                };
                let value = match self.settings.show(name) {
                    Ok(value) => value,
                    Err(error) => server().ok_or(error)?,
                };
                let known = SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name));
                Ok(Rows::text(&[known.map_or(name, |setting| setting.name)], &[vec![value]]))
            }
        }
    }

    fn list(&mut self, kinds: &[ObjectKind]) -> Rows {
        let version = self.version();
        let chosen = version.names.iter().filter_map(|(name, id)| Some((name, version.objects.get(id)?)));
        let chosen = chosen.filter(|(_, definition)| kinds.contains(&definition.kind));
        let rows: Vec<_> = chosen
            .map(|(name, definition)| {
                vec![name.schema.clone(), name.name.clone(), definition.comment.clone().unwrap_or_default()]
            })
            .collect();
        Rows::text(&["schema", "name", "comment"], &rows)
    }

    /// DESCRIBE relation.
    pub(super) fn describe_relation(&mut self, name: &Name) -> Result<Rows> {
        let version = self.version();
        let definition = self.relation(&version, name)?;
        let row = |field: &Arc<arrow::datatypes::Field>| {
            let key = definition.primary_key.contains(field.name());
            vec![
                field.name().clone(),
                format_type(PgType::of(field), type_modifier(field)),
                if field.is_nullable() { "YES" } else { "NO" }.to_owned(),
                if key { "PRI" } else { "" }.to_owned(),
            ]
        };
        let rows: Vec<_> = definition.schema.fields().iter().map(row).collect();
        Ok(Rows::text(&["column", "type", "nullable", "key"], &rows))
    }

    /// The relation a name stands for, by the search path.
    pub(super) fn relation(&self, version: &Version, name: &Name) -> Result<Arc<Definition>> {
        let path: &[String] = &self.info().search_path;
        let given = name.schema.clone().map(|schema| vec![schema]);
        let schemas = given.as_deref().unwrap_or(path);
        let find = |schema: &String| version.object(&ObjectName { schema: schema.clone(), name: name.name.clone() });
        let found = schemas.iter().find_map(find).filter(|definition| definition.kind != ObjectKind::Schema);
        let written = name.schema.iter().map(|schema| format!("{schema}.")).chain([name.name.clone()]).collect::<String>();
        found.map(Arc::clone).ok_or_else(|| Error::new("42P01", format!("relation \"{written}\" does not exist")))
    }
}
