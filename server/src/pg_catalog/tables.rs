//! The shapes of the relations: columns with PostgreSQL 15's names and types.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;

use crate::pgwire::types::{PgType, Scalar, TYPE_KEY};

/// A relation: schema, name, columns as `name:type`.
pub(super) struct Table(&'static str, &'static str, &'static str);

/// A cell of a row; texts and numbers take the type of their column.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    Numbers(Vec<i64>),
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Cell::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Number(value)
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Cell::Text(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Self {
        Cell::Text(value)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Null, Into::into)
    }
}

/// A row, by column name; columns it does not name get [`Table::default`].
pub(super) type Row = Vec<(&'static str, Cell)>;

const PG: &str = "pg_catalog";
const INFO: &str = "information_schema";

pub(super) const TABLES: &[Table] = &[
    Table(PG, "pg_am", "oid:oid amname:name amhandler:regproc amtype:char"),
    Table(PG, "pg_attrdef", "oid:oid adrelid:oid adnum:int2 adbin:text"),
    Table(
        PG,
        "pg_attribute",
        "attrelid:oid attname:name atttypid:oid attstattarget:int4 attlen:int2 attnum:int2 attndims:int4 attcacheoff:int4 atttypmod:int4 attbyval:bool attalign:char attstorage:char attcompression:char attnotnull:bool atthasdef:bool atthasmissing:bool attidentity:char attgenerated:char attisdropped:bool attislocal:bool attinhcount:int4 attcollation:oid attacl:_text attoptions:_text attfdwoptions:_text attmissingval:text",
    ),
    Table(PG, "pg_auth_members", "roleid:oid member:oid grantor:oid admin_option:bool"),
    Table(PG, "pg_available_extensions", "name:name default_version:text installed_version:text comment:text"),
    Table(PG, "pg_cast", "oid:oid castsource:oid casttarget:oid castfunc:oid castcontext:char castmethod:char"),
    Table(
        PG,
        "pg_class",
        "oid:oid relname:name relnamespace:oid reltype:oid reloftype:oid relowner:oid relam:oid relfilenode:oid reltablespace:oid relpages:int4 reltuples:float4 relallvisible:int4 reltoastrelid:oid relhasindex:bool relisshared:bool relpersistence:char relkind:char relnatts:int2 relchecks:int2 relhasrules:bool relhastriggers:bool relhassubclass:bool relrowsecurity:bool relforcerowsecurity:bool relispopulated:bool relreplident:char relispartition:bool relrewrite:oid relfrozenxid:xid relminmxid:xid relacl:_text reloptions:_text relpartbound:text xmin:xid",
    ),
    Table(
        PG,
        "pg_collation",
        "oid:oid collname:name collnamespace:oid collowner:oid collprovider:char collisdeterministic:bool collencoding:int4 collcollate:text collctype:text colliculocale:text collversion:text",
    ),
    Table(
        PG,
        "pg_constraint",
        "oid:oid conname:name connamespace:oid contype:char condeferrable:bool condeferred:bool convalidated:bool conrelid:oid contypid:oid conindid:oid conparentid:oid confrelid:oid confupdtype:char confdeltype:char confmatchtype:char conislocal:bool coninhcount:int4 connoinherit:bool conkey:_int2 confkey:_int2 conpfeqop:_oid conppeqop:_oid conffeqop:_oid confdelsetcols:_int2 conexclop:_oid conbin:text",
    ),
    Table(
        PG,
        "pg_conversion",
        "oid:oid conname:name connamespace:oid conowner:oid conforencoding:int4 contoencoding:int4 conproc:regproc condefault:bool",
    ),
    Table(
        PG,
        "pg_database",
        "oid:oid datname:name datdba:oid encoding:int4 datlocprovider:char datistemplate:bool datallowconn:bool datconnlimit:int4 datfrozenxid:xid datminmxid:xid dattablespace:oid datcollate:text datctype:text daticulocale:text datcollversion:text datacl:_text",
    ),
    Table(PG, "pg_db_role_setting", "setdatabase:oid setrole:oid setconfig:_text"),
    Table(PG, "pg_default_acl", "oid:oid defaclrole:oid defaclnamespace:oid defaclobjtype:char defaclacl:_text"),
    Table(PG, "pg_depend", "classid:oid objid:oid objsubid:int4 refclassid:oid refobjid:oid refobjsubid:int4 deptype:char"),
    Table(PG, "pg_description", "objoid:oid classoid:oid objsubid:int4 description:text"),
    Table(PG, "pg_enum", "oid:oid enumtypid:oid enumsortorder:float4 enumlabel:name"),
    Table(PG, "pg_event_trigger", "oid:oid evtname:name evtevent:name evtowner:oid evtfoid:oid evtenabled:char evttags:_text"),
    Table(
        PG,
        "pg_extension",
        "oid:oid extname:name extowner:oid extnamespace:oid extrelocatable:bool extversion:text extconfig:_oid extcondition:_text",
    ),
    Table(
        PG,
        "pg_foreign_data_wrapper",
        "oid:oid fdwname:name fdwowner:oid fdwhandler:oid fdwvalidator:oid fdwacl:_text fdwoptions:_text",
    ),
    Table(
        PG,
        "pg_foreign_server",
        "oid:oid srvname:name srvowner:oid srvfdw:oid srvtype:text srvversion:text srvacl:_text srvoptions:_text",
    ),
    Table(PG, "pg_foreign_table", "ftrelid:oid ftserver:oid ftoptions:_text"),
    Table(
        PG,
        "pg_index",
        "indexrelid:oid indrelid:oid indnatts:int2 indnkeyatts:int2 indisunique:bool indnullsnotdistinct:bool indisprimary:bool indisexclusion:bool indimmediate:bool indisclustered:bool indisvalid:bool indcheckxmin:bool indisready:bool indislive:bool indisreplident:bool indkey:_int2 indcollation:_oid indclass:_oid indoption:_int2 indexprs:text indpred:text",
    ),
    Table(PG, "pg_indexes", "schemaname:name tablename:name indexname:name tablespace:name indexdef:text"),
    Table(PG, "pg_inherits", "inhrelid:oid inhparent:oid inhseqno:int4 inhdetachpending:bool"),
    Table(
        PG,
        "pg_language",
        "oid:oid lanname:name lanowner:oid lanispl:bool lanpltrusted:bool lanplcallfoid:oid laninline:oid lanvalidator:oid lanacl:_text",
    ),
    Table(
        PG,
        "pg_locks",
        "locktype:text database:oid relation:oid page:int4 tuple:int2 virtualxid:text transactionid:xid classid:oid objid:oid objsubid:int2 virtualtransaction:text pid:int4 mode:text granted:bool fastpath:bool waitstart:timestamptz",
    ),
    Table(
        PG,
        "pg_matviews",
        "schemaname:name matviewname:name matviewowner:name tablespace:name hasindexes:bool ispopulated:bool definition:text",
    ),
    Table(PG, "pg_namespace", "oid:oid nspname:name nspowner:oid nspacl:_text xmin:xid"),
    Table(
        PG,
        "pg_opclass",
        "oid:oid opcmethod:oid opcname:name opcnamespace:oid opcowner:oid opcfamily:oid opcintype:oid opcdefault:bool opckeytype:oid",
    ),
    Table(
        PG,
        "pg_operator",
        "oid:oid oprname:name oprnamespace:oid oprowner:oid oprkind:char oprcanmerge:bool oprcanhash:bool oprleft:oid oprright:oid oprresult:oid",
    ),
    Table(PG, "pg_partitioned_table", "partrelid:oid partstrat:char partnatts:int2 partdefid:oid partattrs:_int2"),
    Table(
        PG,
        "pg_policy",
        "oid:oid polname:name polrelid:oid polcmd:char polpermissive:bool polroles:_oid polqual:text polwithcheck:text",
    ),
    Table(PG, "pg_prepared_statements", "name:text statement:text prepare_time:timestamptz from_sql:bool"),
    Table(
        PG,
        "pg_proc",
        "oid:oid proname:name pronamespace:oid proowner:oid prolang:oid procost:float4 prorows:float4 provariadic:oid prosupport:regproc prokind:char prosecdef:bool proleakproof:bool proisstrict:bool proretset:bool provolatile:char proparallel:char pronargs:int2 pronargdefaults:int2 prorettype:oid proargtypes:_oid proallargtypes:_oid proargmodes:_text proargnames:_text prosrc:text probin:text proacl:_text",
    ),
    Table(
        PG,
        "pg_publication",
        "oid:oid pubname:name pubowner:oid puballtables:bool pubinsert:bool pubupdate:bool pubdelete:bool pubtruncate:bool pubviaroot:bool",
    ),
    Table(PG, "pg_publication_namespace", "oid:oid pnpubid:oid pnnspid:oid"),
    Table(PG, "pg_publication_rel", "oid:oid prpubid:oid prrelid:oid prqual:text prattrs:_int2"),
    Table(PG, "pg_range", "rngtypid:oid rngsubtype:oid rngmultitypid:oid rngcollation:oid rngsubopc:oid"),
    Table(
        PG,
        "pg_rewrite",
        "oid:oid rulename:name ev_class:oid ev_type:char ev_enabled:char is_instead:bool ev_qual:text ev_action:text",
    ),
    Table(
        PG,
        "pg_roles",
        "rolname:name rolsuper:bool rolinherit:bool rolcreaterole:bool rolcreatedb:bool rolcanlogin:bool rolreplication:bool rolconnlimit:int4 rolpassword:text rolvaliduntil:timestamptz rolbypassrls:bool rolconfig:_text oid:oid",
    ),
    Table(
        PG,
        "pg_sequence",
        "seqrelid:oid seqtypid:oid seqstart:int8 seqincrement:int8 seqmax:int8 seqmin:int8 seqcache:int8 seqcycle:bool",
    ),
    Table(PG, "pg_sequences", "schemaname:name sequencename:name sequenceowner:name"),
    Table(
        PG,
        "pg_settings",
        "name:text setting:text unit:text category:text short_desc:text extra_desc:text context:text vartype:text source:text min_val:text max_val:text enumvals:_text boot_val:text reset_val:text sourcefile:text sourceline:int4 pending_restart:bool",
    ),
    Table(PG, "pg_shdescription", "objoid:oid classoid:oid description:text"),
    Table(
        PG,
        "pg_stat_activity",
        "datid:oid datname:name pid:int4 leader_pid:int4 usesysid:oid usename:name application_name:text client_addr:text client_hostname:text client_port:int4 backend_start:timestamptz xact_start:timestamptz query_start:timestamptz state_change:timestamptz wait_event_type:text wait_event:text state:text backend_xid:xid backend_xmin:xid query_id:int8 query:text backend_type:text",
    ),
    Table(PG, "pg_stat_user_tables", "relid:oid schemaname:name relname:name seq_scan:int8 n_live_tup:int8 n_dead_tup:int8"),
    Table(
        PG,
        "pg_statistic_ext",
        "oid:oid stxrelid:oid stxname:name stxnamespace:oid stxowner:oid stxstattarget:int4 stxkeys:_int2 stxkind:_text stxexprs:text",
    ),
    Table(
        PG,
        "pg_tables",
        "schemaname:name tablename:name tableowner:name tablespace:name hasindexes:bool hasrules:bool hastriggers:bool rowsecurity:bool",
    ),
    Table(PG, "pg_tablespace", "oid:oid spcname:name spcowner:oid spcacl:_text spcoptions:_text"),
    Table(PG, "pg_timezone_names", "name:text abbrev:text utc_offset:interval is_dst:bool"),
    Table(
        PG,
        "pg_trigger",
        "oid:oid tgrelid:oid tgparentid:oid tgname:name tgfoid:oid tgtype:int2 tgenabled:char tgisinternal:bool tgconstrrelid:oid tgconstrindid:oid tgconstraint:oid tgdeferrable:bool tginitdeferred:bool tgnargs:int2",
    ),
    Table(
        PG,
        "pg_type",
        "oid:oid typname:name typnamespace:oid typowner:oid typlen:int2 typbyval:bool typtype:char typcategory:char typispreferred:bool typisdefined:bool typdelim:char typrelid:oid typsubscript:regproc typelem:oid typarray:oid typinput:regproc typoutput:regproc typreceive:regproc typsend:regproc typmodin:regproc typmodout:regproc typanalyze:regproc typalign:char typstorage:char typnotnull:bool typbasetype:oid typtypmod:int4 typndims:int4 typcollation:oid typdefault:text typacl:_text",
    ),
    Table(
        PG,
        "pg_user",
        "usename:name usesysid:oid usecreatedb:bool usesuper:bool userepl:bool usebypassrls:bool passwd:text valuntil:timestamptz useconfig:_text",
    ),
    Table(PG, "pg_views", "schemaname:name viewname:name viewowner:name definition:text"),
    Table(
        INFO,
        "schemata",
        "catalog_name:name schema_name:name schema_owner:name default_character_set_catalog:name default_character_set_schema:name default_character_set_name:name sql_path:varchar",
    ),
    Table(
        INFO,
        "tables",
        "table_catalog:name table_schema:name table_name:name table_type:varchar self_referencing_column_name:name reference_generation:varchar user_defined_type_catalog:name user_defined_type_schema:name user_defined_type_name:name is_insertable_into:varchar is_typed:varchar commit_action:varchar",
    ),
    Table(
        INFO,
        "columns",
        "table_catalog:name table_schema:name table_name:name column_name:name ordinal_position:int4 column_default:varchar is_nullable:varchar data_type:varchar character_maximum_length:int4 character_octet_length:int4 numeric_precision:int4 numeric_precision_radix:int4 numeric_scale:int4 datetime_precision:int4 interval_type:varchar character_set_name:name collation_name:name domain_name:name udt_catalog:name udt_schema:name udt_name:name is_identity:varchar identity_generation:varchar is_generated:varchar generation_expression:varchar is_updatable:varchar",
    ),
    Table(
        INFO,
        "views",
        "table_catalog:name table_schema:name table_name:name view_definition:varchar check_option:varchar is_updatable:varchar is_insertable_into:varchar",
    ),
    Table(
        INFO,
        "table_constraints",
        "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name table_name:name constraint_type:varchar is_deferrable:varchar initially_deferred:varchar enforced:varchar",
    ),
    Table(
        INFO,
        "key_column_usage",
        "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name table_name:name column_name:name ordinal_position:int4 position_in_unique_constraint:int4",
    ),
    Table(
        INFO,
        "referential_constraints",
        "constraint_catalog:name constraint_schema:name constraint_name:name unique_constraint_catalog:name unique_constraint_schema:name unique_constraint_name:name match_option:varchar update_rule:varchar delete_rule:varchar",
    ),
    Table(
        INFO,
        "routines",
        "specific_catalog:name specific_schema:name specific_name:name routine_catalog:name routine_schema:name routine_name:name routine_type:varchar data_type:varchar",
    ),
    Table(
        INFO,
        "character_sets",
        "character_set_catalog:name character_set_schema:name character_set_name:name character_repertoire:name form_of_use:name default_collate_catalog:name default_collate_schema:name default_collate_name:name",
    ),
];

/// Relations that never have a row, because what they list does not exist here. A query over one of them is empty.
pub(super) const EMPTY: &[&str] = &[
    "pg_attrdef",
    "pg_auth_members",
    "pg_available_extensions",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_inherits",
    "pg_language",
    "pg_locks",
    "pg_opclass",
    "pg_operator",
    "pg_partitioned_table",
    "pg_policy",
    "pg_prepared_statements",
    "pg_proc",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_range",
    "pg_rewrite",
    "pg_sequence",
    "pg_sequences",
    "pg_shdescription",
    "pg_statistic_ext",
    "pg_tablespace",
    "pg_timezone_names",
    "pg_trigger",
    "referential_constraints",
    "routines",
];

/// The relation of that name, if it is one of ours.
pub(super) fn find(schema: &str, name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.0 == schema && table.1 == name)
}

impl Table {
    fn columns(&self) -> impl Iterator<Item = (&'static str, PgType)> {
        self.2.split(' ').filter_map(|column| {
            let (name, kind) = column.split_once(':')?;
            Some((name, PgType::from_name(kind)?))
        })
    }

    fn schema(&self) -> SchemaRef {
        let field = |(name, kind): (&str, PgType)| {
            let field = Field::new(name, kind.arrow(), true);
            match kind {
                PgType::One(scalar) => field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), scalar.row().name.to_owned())])),
                PgType::Array(_) => field,
            }
        };
        Arc::new(Schema::new(self.columns().map(field).collect::<Vec<_>>()))
    }

    /// The relation with these rows.
    pub(super) fn provider(&self, rows: Vec<Row>) -> Arc<dyn TableProvider> {
        let schema = self.schema();
        let columns = self.columns().map(|(name, kind)| {
            let cells = rows.iter().map(|row| {
                let cell = row.iter().find(|(column, _)| *column == name).map(|(_, cell)| cell.clone());
                value(kind, cell.unwrap_or_else(|| default(kind)))
            });
            column(kind, cells)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns.collect(), &options)
            .expect("columns are made with the types of the schema");
        Arc::new(MemTable::try_new(schema, vec![vec![batch]]).expect("the batch has the table's schema"))
    }
}

/// What a column holds in rows that do not say: nothing, in the way Postgres says so for the type.
fn default(kind: PgType) -> Cell {
    match kind {
        PgType::One(Scalar::Bool) => Cell::Bool(false),
        PgType::One(Scalar::Oid | Scalar::Xid | Scalar::Regproc | Scalar::Int2) => Cell::Number(0),
        PgType::One(Scalar::Char) => Cell::Text(String::new()),
        _ => Cell::Null,
    }
}

fn value(kind: PgType, cell: Cell) -> ScalarValue {
    let null = || ScalarValue::try_from(&kind.arrow()).unwrap_or(ScalarValue::Null);
    let value = match cell {
        Cell::Null => return null(),
        Cell::Bool(value) => ScalarValue::Boolean(Some(value)),
        Cell::Number(value) => ScalarValue::Int64(Some(value)),
        Cell::Text(value) => ScalarValue::Utf8(Some(value)),
        Cell::Numbers(values) => {
            let values: Vec<_> = values.into_iter().map(|value| ScalarValue::Int64(Some(value))).collect();
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &arrow::datatypes::DataType::Int64))
        }
    };
    value.cast_to(&kind.arrow()).unwrap_or_else(|_| null())
}

fn column(kind: PgType, cells: impl Iterator<Item = ScalarValue>) -> ArrayRef {
    let mut cells = cells.peekable();
    if cells.peek().is_none() {
        return arrow::array::new_empty_array(&kind.arrow());
    }
    ScalarValue::iter_to_array(cells).expect("all cells have been cast to the type of the column")
}
