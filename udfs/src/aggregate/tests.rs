//! Sums and averages in all types, against exact numbers.

use arrow::array::{Array, ArrayRef, BooleanArray, Decimal128Array, Int64Array};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::EmitTo;

use super::*;

fn finish(kind: Kind, input: &DataType) -> Finish {
    Finish {
        kind,
        total: total_type(input),
        result: Total::new(kind).return_type(std::slice::from_ref(input)).expect("a number"),
    }
}

fn column(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn numeric(value: i128, scale: i8) -> ScalarValue {
    ScalarValue::Decimal128(Some(value), DIGITS, scale)
}

#[test]
fn what_was_added_can_be_taken_back() {
    let mut sum = Totals::<Int64Type>::new(finish(Kind::Sum, &DataType::Int64));
    sum.update_batch(&[column(&[Some(3), None, Some(4)])]).expect("adds");
    sum.retract_batch(&[column(&[Some(3), None])]).expect("takes back");
    assert_eq!(sum.evaluate().expect("a sum"), numeric(4, 0));
    sum.retract_batch(&[column(&[Some(4)])]).expect("takes back");
    assert_eq!(sum.evaluate().expect("a sum"), ScalarValue::Decimal128(None, DIGITS, 0));

    let mut distinct = Distinct::<Int64Type>::new(finish(Kind::Sum, &DataType::Int64), DataType::Int64);
    distinct.update_batch(&[column(&[Some(3), Some(3), Some(4)])]).expect("adds");
    distinct.retract_batch(&[column(&[Some(3)])]).expect("takes back");
    assert_eq!(distinct.evaluate().expect("a sum"), numeric(7, 0));
    distinct.retract_batch(&[column(&[Some(3)])]).expect("takes back");
    assert_eq!(distinct.evaluate().expect("a sum"), numeric(4, 0));
}

#[test]
fn groups_skip_nulls_and_filtered_rows() {
    let mut groups = Groups::<Int64Type>::new(finish(Kind::Avg, &DataType::Int64));
    let filter = BooleanArray::from(vec![Some(true), Some(true), Some(false), None, Some(true)]);
    let values = column(&[Some(1), Some(2), Some(100), Some(100), None]);
    groups.update_batch(&[values], &[0, 0, 0, 1, 1], Some(&filter), 3).expect("adds");
    let means = groups.evaluate(EmitTo::All).expect("means");
    let means = means.as_any().downcast_ref::<Decimal128Array>().expect("numeric").clone();
    assert_eq!(means.value_as_string(0), "1.5000000000000000");
    assert!(means.is_null(1) && means.is_null(2));
}

#[test]
fn merged_states_equal_one_run() {
    let all = column(&[Some(5), Some(-7), None, Some(i64::MAX), Some(i64::MAX)]);
    let groups = [0, 1, 1, 0, 0];
    let make = || Groups::<Int64Type>::new(finish(Kind::Sum, &DataType::Int64));
    let (mut whole, mut first, mut merged) = (make(), make(), make());
    whole.update_batch(std::slice::from_ref(&all), &groups, None, 2).expect("adds");
    first.update_batch(&[all.slice(0, 3)], &groups[..3], None, 2).expect("adds");
    let rows = make().convert_to_state(&[all.slice(3, 2)], None).expect("a state per row");
    merged.merge_batch(&rows, &groups[3..], 2).expect("merges");
    merged.merge_batch(&first.state(EmitTo::All).expect("state"), &[0, 1], 2).expect("merges");
    let expected = whole.evaluate(EmitTo::All).expect("sums");
    assert_eq!(&merged.evaluate(EmitTo::All).expect("sums"), &expected);
    assert_eq!(ScalarValue::try_from_array(&expected, 0).expect("a value"), numeric(2 * i128::from(i64::MAX) + 5, 0));
}

#[test]
fn sums_that_do_not_fit_are_errors() {
    let largest = 10_i128.pow(DIGITS.into()) - 1;
    let input = DataType::Decimal128(DIGITS, 0);
    let values: ArrayRef = Arc::new(Decimal128Array::from(vec![largest, 1]).with_data_type(input.clone()));
    let mut sum = Totals::<Decimal128Type>::new(finish(Kind::Sum, &input));
    sum.update_batch(std::slice::from_ref(&values)).expect("128 bits hold it");
    let error = sum.evaluate().expect_err("38 digits do not").to_string();
    assert!(error.contains("numeric out of range"), "{error}");
    assert!(sum.update_batch(&[values]).is_err(), "128 bits do not hold twice as much");
}
