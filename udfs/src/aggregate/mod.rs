//! `sum` and `avg` with Postgres's result types: wide enough that a stream does not overflow them, exact for exact inputs.
//!
//! Both keep a total and a count per group, which is also their state: so they can be merged and, row by row, taken back.

use std::sync::Arc;

use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

use crate::FunctionDoc;
use totals::{Distinct, Groups, Input, Totals};

mod totals;

pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    [Kind::Sum, Kind::Avg].map(|kind| Arc::new(AggregateUDF::from(Total::new(kind)))).into()
}

pub(crate) const DOCS: &[FunctionDoc] = &[
    FunctionDoc {
        name: "sum",
        signature: "smallint | int",
        returns: "bigint",
        doc: "The sum of all values but NULLs; NULL of none.",
    },
    FunctionDoc {
        name: "sum",
        signature: "bigint | numeric",
        returns: "numeric",
        doc: "The exact sum; an error (22003) beyond 38 digits.",
    },
    FunctionDoc { name: "sum", signature: "real", returns: "real", doc: "The sum, computed in double precision." },
    FunctionDoc { name: "sum", signature: "double precision", returns: "double precision", doc: "The sum." },
    FunctionDoc {
        name: "avg",
        signature: "smallint | int | bigint | numeric",
        returns: "numeric",
        doc: "The exact mean, rounded to 16 digits behind the point.",
    },
    FunctionDoc { name: "avg", signature: "real | double precision", returns: "double precision", doc: "The mean." },
];

/// Digits behind the point of an exact mean. Postgres gives at least 16 significant digits; this gives 16 behind the point.
const AVG_SCALE: i8 = 16;

/// Digits of the widest numeric.
const DIGITS: u8 = 38;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Sum,
    Avg,
}

/// `sum` or `avg`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Total {
    kind: Kind,
    signature: Signature,
}

impl Total {
    fn new(kind: Kind) -> Self {
        Total { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// The type the argument is cast to.
fn input_type(function: &str, given: &DataType) -> Result<DataType> {
    use DataType::*;
    Ok(match given {
        Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..) => given.clone(),
        Int8 | UInt8 | UInt16 => Int32,
        UInt32 | Null => Int64,
        UInt64 => Decimal128(20, 0),
        other => return plan_err!("function {function}({other}) does not exist"),
    })
}

/// The type totals are kept in.
fn total_type(input: &DataType) -> DataType {
    match input {
        DataType::Int16 | DataType::Int32 => DataType::Int64,
        DataType::Decimal128(_, scale) => DataType::Decimal128(DIGITS, *scale),
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        _ => DataType::Decimal128(DIGITS, 0),
    }
}

/// How a total and a count become the answer.
#[derive(Debug, Clone)]
pub(crate) struct Finish {
    kind: Kind,
    total: DataType,
    result: DataType,
}

impl Finish {
    fn new(kind: Kind, args: &AccumulatorArgs) -> Self {
        let result = args.return_field.data_type().clone();
        Finish { kind, total: total_type(args.expr_fields[0].data_type()), result }
    }
}

/// Calls a generic method with the Arrow type of the argument.
macro_rules! with_input {
    ($input:expr, $make:ident . $method:ident) => {
        match $input {
            DataType::Int16 => $make.$method::<Int16Type>(),
            DataType::Int32 => $make.$method::<Int32Type>(),
            DataType::Int64 => $make.$method::<Int64Type>(),
            DataType::Decimal128(..) => $make.$method::<Decimal128Type>(),
            DataType::Float32 => $make.$method::<Float32Type>(),
            DataType::Float64 => $make.$method::<Float64Type>(),
            other => return plan_err!("no total of {other}"),
        }
    };
}

impl AggregateUDFImpl for Total {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Sum => "sum",
            Kind::Avg => "avg",
        }
    }

    fn aliases(&self) -> &[String] {
        &[]
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![input_type(self.name(), argument)?]),
            _ => plan_err!("function {} takes one argument", self.name()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let input = input_type(self.name(), &arguments[0])?;
        Ok(match (self.kind, &input) {
            (Kind::Sum, DataType::Float32) => DataType::Float32,
            (Kind::Sum, _) => total_type(&input),
            (Kind::Avg, DataType::Float32 | DataType::Float64) => DataType::Float64,
            (Kind::Avg, DataType::Decimal128(_, scale)) => DataType::Decimal128(DIGITS, AVG_SCALE.max(*scale)),
            (Kind::Avg, _) => DataType::Decimal128(DIGITS, AVG_SCALE),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let input = args.input_fields[0].data_type();
        Ok(if args.is_distinct {
            let items = Field::new_list_field(input.clone(), true);
            vec![Arc::new(Field::new_list(format!("{}[distinct]", args.name), items, true))]
        } else {
            vec![
                Arc::new(Field::new(format!("{}[total]", args.name), total_type(input), true)),
                Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true)),
            ]
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let finish = Finish::new(self.kind, &args);
        let distinct = args.is_distinct;
        let input = args.expr_fields[0].data_type().clone();
        let make = Make { finish, distinct, input };
        Ok(with_input!(args.expr_fields[0].data_type(), make.accumulator))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let make = Make { finish: Finish::new(self.kind, &args), distinct: false, input: DataType::Null };
        Ok(with_input!(args.expr_fields[0].data_type(), make.groups))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
        datafusion::logical_expr::utils::AggregateOrderSensitivity::Insensitive
    }
}

/// What an accumulator is made from.
struct Make {
    finish: Finish,
    distinct: bool,
    input: DataType,
}

impl Make {
    fn accumulator<I: Input>(self) -> Box<dyn Accumulator> {
        if self.distinct {
            Box::new(Distinct::<I>::new(self.finish, self.input))
        } else {
            Box::new(Totals::<I>::new(self.finish))
        }
    }

    fn groups<I: Input>(self) -> Box<dyn GroupsAccumulator> {
        Box::new(Groups::<I>::new(self.finish))
    }
}

#[cfg(test)]
mod tests;
