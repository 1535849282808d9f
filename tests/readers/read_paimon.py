#!/usr/bin/env python3
"""Prints the rows of a table as another Paimon reader (pypaimon) sees them, one JSON object per line.

    read_paimon.py <warehouse directory> <schema>.<table>

Decimals and binary (hexadecimal) are strings; timestamps are ISO 8601; rows come in no particular order.
"""

import datetime
import decimal
import json
import sys

from pypaimon import CatalogFactory


def plain(value):
    """A value that JSON has."""
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"no JSON for {type(value)}")


def main():
    warehouse, name = sys.argv[1:]
    table = CatalogFactory.create({"warehouse": warehouse}).get_table(name)
    builder = table.new_read_builder()
    splits = builder.new_scan().plan().splits()
    for row in builder.new_read().to_arrow(splits).to_pylist():
        print(json.dumps(row, default=plain, ensure_ascii=False))


if __name__ == "__main__":
    main()
