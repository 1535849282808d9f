#!/bin/sh
# Writes the answers of a real PostgreSQL behind the expressions of a case file: answer.sh FILE, with PGHOST, PGPORT, PGUSER set.
# Each line is an expression, `=>`, its answer; where the two languages differ, `ours ;; postgres`.
set -eu
while IFS= read -r line; do
  expression=${line%% => *}
  asked=${expression##* ;; }
  answer=$(psql -XAtq -v VERBOSITY=sqlstate -v ON_ERROR_STOP=1 -P null=NULL -F ' | ' -c 'SET timezone TO UTC' -c "SELECT $asked" 2>&1) || true
  printf '%s => %s\n' "$expression" "$(printf '%s' "$answer" | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/\\n/g')"
done < "$1" > "$1.new"
mv "$1.new" "$1"
